"""Marks in an Anthropic request at which the provider's own cache may begin again: `cache_control`, put in by splices.

Every other byte stays, so what stood before a mark is the same prefix as before. A request in which the application
marked anything itself is left alone: it knows its prompt better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_sidecar.formats.base import ParsedRequest, Splice
from llm_sidecar.formats.estimate import BYTES_PER_TOKEN
from llm_sidecar.formats.fields import text
from llm_sidecar.formats.json_body import elements, insert_member, member, members

_MARK: Final = b'{"type":"ephemeral"}'
_NAME: Final = "cache_control"
_TEXT_HEAD: Final = b'[{"type":"text","text":'
_TEXT_TAIL: Final = b',"cache_control":' + _MARK + b"}]"
_MARKABLE: Final = frozenset({"text", "image", "document", "search_result", "tool_use", "tool_result"})
"""Kinds of content that take a mark. Thoughts take none, and of what is not known here nobody can tell."""


def cache_markers(request: ParsedRequest, *, least_tokens: int) -> list[Splice]:
    """Marks behind tools, system and the last two of the user's turns, wherever the prefix is long enough.

    Turns are marked only where the conversation has begun: a first question may well be the only one. Ascending.
    Raises `MalformedRequest` where a place cannot be found.
    """
    if b'"cache_control"' in request.body:
        return []
    prefix = _Prefix(request, least_tokens)
    prefix.tools()
    prefix.system()
    prefix.turns()
    return sorted(prefix.splices, key=lambda splice: splice.start)


class _Prefix:
    """Goes through a request in the order in which the provider's prefix grows."""

    def __init__(self, request: ParsedRequest, least_tokens: int) -> None:
        self._body = request.body
        self._document = request.document
        self._least_bytes = least_tokens * BYTES_PER_TOKEN
        self._bytes = 0
        self.splices: list[Splice] = []

    @property
    def _is_long(self) -> bool:
        return self._bytes >= self._least_bytes

    def tools(self) -> None:
        """The last tool that is a part of the prefix from the beginning."""
        tools = self._document.get("tools")
        place = member(self._body, self._document, "tools")
        if not isinstance(tools, list) or place is None:
            return
        self._bytes += place.end - place.start
        usable = [index for index, tool in enumerate(tools) if isinstance(tool, dict) and not tool.get("defer_loading")]
        if usable and self._is_long:
            start, _ = elements(self._body, place.start)[usable[-1]]
            self._mark(start)

    def system(self) -> None:
        """The end of the system prompt."""
        place = member(self._body, self._document, "system")
        if place is None:
            return
        self._bytes += place.end - place.start
        if self._is_long:
            self._mark_content(self._document["system"], place.start, place.end)

    def turns(self) -> None:
        """The last two of the user's turns: where the last call's prefix ended, and where the next one's begins."""
        turns = self._document.get("messages")
        place = member(self._body, self._document, "messages")
        if not isinstance(turns, list) or place is None:
            return
        roles = [turn.get("role") if isinstance(turn, dict) else None for turn in turns]
        asked = [index for index, role in enumerate(roles) if role == "user"]
        if not asked or "assistant" not in roles[: asked[-1]]:
            return
        spans = elements(self._body, place.start)
        before = self._bytes
        for index in asked[-2:]:
            start, end = spans[index]
            self._bytes = before + end - place.start
            if self._is_long:
                self._mark_turn(turns[index], start)

    def _mark_turn(self, turn: Mapping[str, Any], start: int) -> None:
        contents = [found for found in members(self._body, start) if found.key == "content"]
        if len(contents) == 1:
            self._mark_content(turn.get("content"), contents[0].start, contents[0].end)

    def _mark_content(self, content: object, start: int, end: int) -> None:
        """Mark the last block that takes a mark; a plain text is made a block, which means the same."""
        if isinstance(content, str):
            if content.strip():
                self.splices += [Splice(start, start, _TEXT_HEAD), Splice(end, end, _TEXT_TAIL)]
        elif isinstance(content, list):
            markable = [index for index, block in enumerate(content) if _takes_a_mark(block)]
            if markable:
                self._mark(elements(self._body, start)[markable[-1]][0])

    def _mark(self, start: int) -> None:
        self.splices.append(insert_member(self._body, start, _NAME, _MARK))


def _takes_a_mark(block: object) -> bool:
    if not isinstance(block, dict) or block.get("type") not in _MARKABLE:
        return False
    return block["type"] != "text" or bool((text(block, "text") or "").strip())
