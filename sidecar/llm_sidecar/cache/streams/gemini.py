"""Gemini: chunks, each an answer of its own kind, and the one answer that they make."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm_sidecar.cache.streams.merging import Document, NotUnderstood, a_list, an_object, grow, merge, the_only

if TYPE_CHECKING:
    from llm_sidecar.formats.base import ParsedRequest

_LATEST: Final = ("usageMetadata", "safetyRatings", "createTime")
"""Told anew in every chunk: the last tells all."""


def assemble(documents: Iterable[Document]) -> Document:
    """The answer. Raises `NotUnderstood`."""
    answer: dict[str, Any] = {}
    candidate: dict[str, Any] = {}
    content: dict[str, Any] = {}
    parts: list[dict[str, Any]] = []
    for chunk in documents:
        _merge(answer, chunk, without="candidates")
        if chunk.get("candidates"):
            told = the_only(chunk["candidates"], "candidates")
            _merge(candidate, told, without="content")
            holder = an_object(told.get("content") or {}, "content")
            merge(content, holder, without=("parts",))
            for part in a_list(holder.get("parts") or [], "parts"):
                _add(parts, an_object(part, "parts"))
    if "usageMetadata" not in answer or not candidate.get("finishReason"):
        raise NotUnderstood("the stream has no usage, or no finish reason")
    answer["candidates"] = [{"content": {"parts": parts, **content}, **candidate}]
    return answer


def _merge(into: dict[str, Any], told: Document, *, without: str) -> None:
    into.update({name: told[name] for name in _LATEST if told.get(name)})
    merge(into, told, without=(*_LATEST, without))


def _add(parts: list[dict[str, Any]], part: dict[str, Any]) -> None:
    """Texts that follow each other are one, thoughts apart from the rest. A signed part must stay as it came."""
    if "functionCall" in part and {"partialArgs", "willContinue"} & an_object(part["functionCall"], "call").keys():
        raise NotUnderstood("a function call in pieces")
    last = parts[-1] if parts else {}
    is_bare = {"text"} <= part.keys() <= {"text", "thought"}
    if is_bare and part.keys() == last.keys() and part.get("thought") == last.get("thought"):
        grow(last, "text", part["text"])
    else:
        parts.append(dict(part))


def replay(answer: Document, request: ParsedRequest) -> bytes:
    """One chunk, as Gemini itself streams a short answer. Raises `NotUnderstood`."""
    the_only(answer.get("candidates"), "candidates")
    if request.call.stream_is_json_array:
        return b"[%b]" % orjson.dumps(answer)
    return b"data: %b\r\n\r\n" % orjson.dumps(answer)
