"""The messages of another language, in the order that Anthropic wants.

- User and assistant take turns: neighbours of one role are joined.
- All results of an assistant's calls stand together at the head of the one message behind it.
- Instructions before the first other turn go into `system`. Later ones stay where they are, as Anthropic's messages
  have a `system` role too, but behind a user's message: never between a call and its results, nor behind an answer.
  Only one that nothing of the user follows is moved into `system`, and named (`messages.system`).
- A conversation of instructions alone is asked as the user's, since Anthropic requires a message (`messages.role`).
- A call without an id gets one from its position, and so does the result that answers it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Final

from llm_sidecar.translation.anthropic_messages.written_blocks import BlockWriter
from llm_sidecar.translation.conversation import Conversation, Role, Turn
from llm_sidecar.translation.losses import SYSTEM_POSITION, Losses, Untranslatable
from llm_sidecar.translation.parts import Part, Text, ToolCall, ToolResult

Block = dict[str, Any]
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NOT_IN_ID: Final = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages:
    """What to write."""

    system: list[Block]
    messages: list[dict[str, Any]]
    answers_tools: bool
    """The last message gives results of tools."""


def checked_name(name: str) -> str:
    """The name of a tool. Raises `Untranslatable` for one that Anthropic does not take."""
    if not _NAME.fullmatch(name):
        raise Untranslatable("a tool's name that is not 1 to 128 letters, digits, `_` and `-`")
    return name


def checked_id(call_id: str) -> str:
    """Anthropic takes ids of letters, digits, `_` and `-` alone; equal ones stay equal."""
    return _NOT_IN_ID.sub("_", call_id)


def arrange(conversation: Conversation, losses: Losses) -> Messages:
    """Order the messages of a conversation."""
    writer = BlockWriter(is_own=False, losses=losses)
    if any(turn.name is not None for turn in conversation.turns):
        losses.drop("messages.name")
    turns = list(_with_ids(conversation.turns))
    first = next((index for index, turn in enumerate(turns) if turn.role is not Role.SYSTEM), len(turns))
    system = writer.blocks(conversation.system)
    head = [block for turn in turns[:first] for block in _instructions(turn, writer)]
    messages: list[dict[str, Any]] = []
    for is_assistant, group in groupby(turns[first:], key=_is_assistant):
        if is_assistant:
            _append(messages, "assistant", [block for turn in group for block in writer.blocks(turn.parts)])
            continue
        behind = _Behind(writer=writer)
        for turn in group:
            behind.take(turn)
        hoisted = behind.write(messages)
        if hoisted:
            losses.drop(SYSTEM_POSITION)
            head += hoisted
    if not messages and head:
        losses.drop("messages.role")
        return Messages(system=system, messages=[{"role": "user", "content": head}], answers_tools=False)
    last = next((each for each in reversed(messages) if each["role"] != "system"), None)
    answers_tools = last is not None and any(block["type"] == "tool_result" for block in last["content"])
    return Messages(system=system + head, messages=messages, answers_tools=answers_tools)


def _is_assistant(turn: Turn) -> bool:
    return turn.role is Role.ASSISTANT


def _append(messages: list[dict[str, Any]], role: str, blocks: list[Block]) -> None:
    """A message without content is none. Neighbours of one role become one message."""
    if not blocks:
        return
    if messages and messages[-1]["role"] == role:
        messages[-1]["content"] += blocks
    else:
        messages.append({"role": role, "content": blocks})


@dataclass(slots=True, kw_only=True)
class _Behind:
    """All that stands between two of the assistant's turns."""

    writer: BlockWriter
    results: list[Block] = field(default_factory=list)
    runs: list[tuple[str, list[Block]]] = field(default_factory=list)

    def take(self, turn: Turn) -> None:
        if turn.role is Role.SYSTEM:
            self.runs.append(("system", _instructions(turn, self.writer)))
            return
        is_result = [isinstance(part, ToolResult) for part in turn.parts]
        self.results += self.writer.blocks(part for part, is_it in zip(turn.parts, is_result, strict=True) if is_it)
        self.runs.append(
            ("user", self.writer.blocks(p for p, is_it in zip(turn.parts, is_result, strict=True) if not is_it))
        )

    def write(self, messages: list[dict[str, Any]]) -> list[Block]:
        """Append the messages; returns instructions that find no place here."""
        runs = [(role, blocks) for role, blocks in self.runs if blocks]
        if self.results:
            runs.insert(0, ("user", self.results))
        first_user = next((index for index, (role, _) in enumerate(runs) if role == "user"), None)
        if first_user is None:
            return [block for _, blocks in runs for block in blocks]
        runs.insert(0, runs.pop(first_user))
        for role, blocks in runs:
            _append(messages, role, blocks)
        return []


def _instructions(turn: Turn, writer: BlockWriter) -> list[Block]:
    if not all(isinstance(part, Text) for part in turn.parts):
        raise Untranslatable("instructions that are not text")
    return writer.blocks(turn.parts)


def _with_ids(turns: Iterable[Turn]) -> Iterator[Turn]:
    """Give ids to calls that have none, and to their results, by name and order."""
    open_calls: list[ToolCall] = []
    for index, turn in enumerate(turns):
        parts: list[Part] = []
        if turn.role is Role.ASSISTANT:
            open_calls = []
        for number, part in enumerate(turn.parts):
            if isinstance(part, ToolCall):
                call = replace(part, id=checked_id(part.id) or f"call_{index}_{number}", name=checked_name(part.name))
                open_calls.append(call)
                parts.append(call)
            elif isinstance(part, ToolResult):
                call_id = checked_id(part.call_id) or _answered(part, open_calls)
                open_calls = [call for call in open_calls if call.id != call_id]
                parts.append(replace(part, call_id=call_id))
            else:
                parts.append(part)
        yield replace(turn, parts=tuple(parts))


def _answered(result: ToolResult, open_calls: list[ToolCall]) -> str:
    for call in open_calls:
        if result.name in (None, call.name):
            return call.id
    raise Untranslatable("a tool's result without the call that it answers")
