"""Writes events of another language as a stream of chat completion chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from llm_sidecar.contract.names import API
from llm_sidecar.formats import openai_errors
from llm_sidecar.formats.base import Usage
from llm_sidecar.translation.events import (
    ChoiceEnded,
    DeltaKind,
    Ended,
    Event,
    Failed,
    PartDelta,
    PartEnded,
    PartKind,
    PartStarted,
    Started,
    UsageTold,
)
from llm_sidecar.translation.foreign import CALL, PART, drop_extra
from llm_sidecar.translation.losses import THINKING_SIGNATURE, Losses
from llm_sidecar.translation.openai_chat.answers import (
    call_field,
    drop_of_text,
    drop_of_thinking,
    made_up_id,
    name_of,
)
from llm_sidecar.translation.openai_chat.finishes import encode_finish
from llm_sidecar.translation.openai_chat.messages import signature_field
from llm_sidecar.translation.openai_chat.usage import encode_usage
from llm_sidecar.translation.parts import Part, Refusal, Text, Thinking, ToolCall

_DONE: Final = b"data: [DONE]\n\n"
_FIELDS: Final = {
    PartKind.TEXT: "content",
    PartKind.REFUSAL: "refusal",
    PartKind.THINKING: "reasoning_content",
}


@dataclass(slots=True)
class _Call:
    number: int
    is_custom: bool
    is_empty: bool = True


@dataclass(slots=True)
class _Choice:
    calls: int = 0
    refused: bool = False


class ChatStreamEncoder:
    """See `StreamEncoder`. Every chunk says `"usage": null` where the usage chunk is wanted, as OpenAI's do."""

    __slots__ = ("_api", "_choices", "_envelope", "_include_usage", "_is_over", "_losses", "_parts", "_usage")

    def __init__(self, *, include_usage: bool, losses: Losses) -> None:
        self._include_usage = include_usage
        self._losses = losses
        self._envelope: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._parts: dict[tuple[int, int], PartKind | _Call] = {}
        self._api: API | None = None
        self._usage: Usage | None = None
        self._is_over = False

    def encode(self, events: Iterable[Event]) -> bytes:
        """The frames for these events."""
        return b"".join(frame for event in events for frame in self._frames(event))

    def error_tail(self, status: int, code: str, message: str) -> bytes:
        """A data frame with a top-level `error`, at which the SDK raises; nothing behind an end."""
        if self._is_over:
            return b""
        self._is_over = True
        return b"data: %b\n\n" % openai_errors.error_body(status, code, message, {})

    def _frames(self, event: Event) -> Iterator[bytes]:
        if isinstance(event, PartDelta):
            yield from self._grow(event)
        elif isinstance(event, PartStarted):
            yield from self._begin_part(event)
        elif isinstance(event, PartEnded):
            yield from self._end_part(event)
        elif isinstance(event, Started):
            self._start(event)
        elif isinstance(event, ChoiceEnded):
            yield from self._end_choice(event)
        elif isinstance(event, UsageTold):
            self._usage = event.usage.buckets
        elif isinstance(event, Failed):
            yield self.error_tail(event.status, event.code, event.message)
        else:
            yield from self._end(event)

    def _start(self, event: Started) -> None:
        drop_extra(event.extra, where="", losses=self._losses)
        self._api = event.api
        if event.usage is not None:
            self._usage = event.usage.buckets
        self._envelope = {
            "id": event.id or f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": event.created_seconds if event.created_seconds is not None else int(time.time()),
            "model": event.model,
        }

    def _begin_part(self, event: PartStarted) -> Iterator[bytes]:
        drop_extra(event.extra, where=CALL if event.kind is PartKind.TOOL_CALL else PART, losses=self._losses)
        if event.kind is PartKind.WHOLE:
            yield from self._whole(event.choice, event.whole)
            return
        yield from self._begin_choice(event.choice, has_text=event.kind is PartKind.TEXT)
        key = (event.choice, event.part)
        if event.kind is not PartKind.TOOL_CALL:
            self._parts[key] = event.kind
            self._choices[event.choice].refused |= event.kind is PartKind.REFUSAL
            if event.signature is not None:
                self._losses.drop(self._signature_name())
            return
        call = self._parts[key] = _Call(self._next_call(event.choice), event.custom)
        kind, argument = _call_words(is_custom=event.custom)
        field = {
            "index": call.number,
            "id": event.tool_id or made_up_id(self._envelope.get("id", ""), event.choice, call.number),
            "type": kind,
            kind: {"name": event.tool_name, argument: ""},
            **signature_field(event.signature),
        }
        yield self._delta(event.choice, {"tool_calls": [field]})

    def _signature_name(self) -> str:
        return "thought_signature" if self._api is API.GEMINI else THINKING_SIGNATURE

    def _begin_choice(self, index: int, *, has_text: bool) -> Iterator[bytes]:
        if index in self._choices:
            return
        self._choices[index] = _Choice()
        yield self._delta(index, {"role": "assistant", "content": "" if has_text else None, "refusal": None})

    def _next_call(self, choice: int) -> int:
        self._choices[choice].calls += 1
        return self._choices[choice].calls - 1

    def _grow(self, event: PartDelta) -> Iterator[bytes]:
        if event.logprobs is not None:
            self._losses.drop("logprobs")
        if event.kind is DeltaKind.SIGNATURE:
            self._losses.drop(self._signature_name())
        elif event.kind is DeltaKind.CITATION:
            self._losses.drop("citations")
        elif event.text:
            part = self._parts[event.choice, event.part]
            if isinstance(part, _Call):
                yield self._arguments(event.choice, part, event.text)
            else:
                yield self._delta(event.choice, {_FIELDS[part]: event.text})

    def _arguments(self, choice: int, call: _Call, text: str) -> bytes:
        call.is_empty = False
        kind, argument = _call_words(is_custom=call.is_custom)
        return self._delta(choice, {"tool_calls": [{"index": call.number, kind: {argument: text}}]})

    def _end_part(self, event: PartEnded) -> Iterator[bytes]:
        part = self._parts.pop((event.choice, event.part), None)
        # A call without arguments: applications parse them, and nothing is no JSON.
        if isinstance(part, _Call) and part.is_empty and not part.is_custom:
            yield self._arguments(event.choice, part, "{}")

    def _whole(self, choice: int, part: Part | None) -> Iterator[bytes]:
        delta = None if part is None else self._delta_of(part)
        if delta is None:
            if part is not None and not isinstance(part, Thinking):
                self._losses.drop(name_of(part))
            return
        yield from self._begin_choice(choice, has_text="content" in delta)
        if isinstance(part, ToolCall):
            number = self._next_call(choice)
            made_up = made_up_id(self._envelope.get("id", ""), choice, number)
            delta = {"tool_calls": [{"index": number, **call_field(part, made_up)}]}
        self._choices[choice].refused |= isinstance(part, Refusal)
        yield self._delta(choice, delta)

    def _delta_of(self, part: Part) -> dict[str, Any] | None:
        if isinstance(part, Text):
            drop_of_text(part, self._losses)
            return {"content": part.text}
        if isinstance(part, Refusal):
            return {"refusal": part.text}
        if isinstance(part, Thinking):
            drop_of_thinking(part, self._losses)
            return {"reasoning_content": part.text} if part.text else None
        return {} if isinstance(part, ToolCall) else None

    def _end_choice(self, event: ChoiceEnded) -> Iterator[bytes]:
        drop_extra(event.extra, where="choices", losses=self._losses)
        if event.stop_sequence is not None:
            self._losses.drop("stop_sequence")
        yield from self._begin_choice(event.choice, has_text=True)
        choice = self._choices[event.choice]
        word = encode_finish(event.finish, refused=choice.refused, called=choice.calls > 0, losses=self._losses)
        yield self._delta(event.choice, {}, word)

    def _end(self, event: Ended) -> Iterator[bytes]:
        drop_extra(event.extra, where="", losses=self._losses)
        if self._include_usage and self._usage is not None:
            yield _frame({**self._envelope, "choices": [], "usage": encode_usage(self._usage)})
        self._is_over = True
        yield _DONE

    def _delta(self, choice: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        told = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self._include_usage else {}
        return _frame({**self._envelope, "choices": [told], **usage})


def _call_words(*, is_custom: bool) -> tuple[str, str]:
    return ("custom", "input") if is_custom else ("function", "arguments")


def _frame(document: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(document)
