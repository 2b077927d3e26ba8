"""Events, written as Gemini's stream: as server-sent events without names, or as one JSON array.

Text goes on as it comes. A tool call goes on when it is whole: this API tells calls in one piece. The finish reasons
and the usage come together in the last chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from llm_sidecar.contract.names import API
from llm_sidecar.formats.gemini import error_document, error_frame, last_element
from llm_sidecar.translation.answer import ToldUsage
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
from llm_sidecar.translation.gemini.answers import BLOCKED, FINISH, encode_usage, finish_word, is_writable
from llm_sidecar.translation.gemini.models import THIRD
from llm_sidecar.translation.gemini.part_encoding import AnswerPartEncoder
from llm_sidecar.translation.gemini.streams import ORIGIN
from llm_sidecar.translation.losses import THINKING_SIGNATURE, Losses
from llm_sidecar.translation.parts import NOTHING, Document, Part, Refusal, ToolCall, ToolKind


@dataclass(slots=True, kw_only=True)
class _Growing:
    """A part that is not whole yet."""

    start: PartStarted
    arguments: list[str] = field(default_factory=list)
    signature: str | None = None


class GeminiStreamEncoder:
    """See `StreamEncoder`."""

    __slots__ = (
        "_begun",
        "_closed",
        "_envelope",
        "_finishes",
        "_json_array",
        "_losses",
        "_notable",
        "_own",
        "_parts",
        "_usage",
    )

    def __init__(self, *, json_array: bool, losses: Losses) -> None:
        self._json_array = json_array
        self._losses = losses
        self._own = self._begun = self._closed = False
        self._envelope: dict[str, Any] = {}
        self._parts: dict[tuple[int, int], _Growing] = {}
        self._notable: dict[int, tuple[Part, ...]] = {}
        """Of each choice, the parts that have a say in its finish reason."""
        self._finishes: dict[int, ChoiceEnded] = {}
        self._usage: ToldUsage | None = None

    def encode(self, events: Iterable[Event]) -> bytes:
        """See `StreamEncoder`."""
        return b"".join(frame for event in events for frame in self._frames(event))

    def error_tail(self, status: int, code: str, message: str) -> bytes:
        """An error as the next event, or as the last element; nothing once the answer is complete."""
        if self._closed:
            return b""
        self._closed = True
        if not self._json_array:
            return error_frame(status, code, message)
        if self._begun:
            return last_element(status, code, message)
        return b"[%b]" % orjson.dumps(error_document(status, code, message, {}))

    def _frames(self, event: Event) -> Iterator[bytes]:
        match event:
            case Started():
                self._start(event)
            case PartStarted():
                yield from self._start_part(event)
            case PartDelta():
                yield from self._delta(event)
            case PartEnded():
                yield from self._end_part(event)
            case ChoiceEnded():
                self._finishes[event.choice] = event
                self._drop(event.extra, "choices")
            case UsageTold():
                self._usage = event.usage
            case Failed():
                yield self.error_tail(event.status, event.code, event.message)
            case Ended():
                self._drop(event.extra, "")
                yield self._last()

    def _start(self, event: Started) -> None:
        self._own = event.extra.get(ORIGIN) is API.GEMINI
        self._drop(event.extra, "")
        told = {"modelVersion": event.model, "responseId": event.id}
        self._envelope = {name: value for name, value in told.items() if value}
        self._usage = event.usage

    def _start_part(self, event: PartStarted) -> Iterator[bytes]:
        if event.whole is None:
            self._drop(event.extra, CALL if event.kind is PartKind.TOOL_CALL else PART)
            self._parts[event.choice, event.part] = _Growing(start=event)
            if event.kind is PartKind.REFUSAL:
                self._note(event.choice, Refusal(text=""))
            return
        self._drop(getattr(event.whole, "extra", NOTHING), PART)
        self._note(event.choice, event.whole)
        encoded = self._encoder().encode(event.whole)
        if encoded is not None:
            yield self._chunk(event.choice, encoded)

    def _delta(self, event: PartDelta) -> Iterator[bytes]:
        growing = self._parts[event.choice, event.part]
        is_thought = growing.start.kind is PartKind.THINKING
        thought = {"thought": True} if is_thought else {}
        match event.kind:
            case DeltaKind.ARGUMENTS:
                growing.arguments.append(event.text)
            case DeltaKind.CITATION:
                self._losses.drop("citations")
            case DeltaKind.SIGNATURE if growing.start.kind is PartKind.TOOL_CALL:
                growing.signature = event.text
            case DeltaKind.SIGNATURE if is_thought and not self._own:
                self._losses.drop(THINKING_SIGNATURE)
            case DeltaKind.SIGNATURE:
                yield self._chunk(event.choice, {"text": "", **thought, "thoughtSignature": event.text})
            case DeltaKind.TEXT:
                if event.logprobs is not None and not self._own:
                    self._losses.drop("logprobs")
                beside = {"logprobsResult": event.logprobs} if event.logprobs is not None and self._own else {}
                yield self._chunk(event.choice, {"text": event.text, **thought}, beside)

    def _end_part(self, event: PartEnded) -> Iterator[bytes]:
        growing = self._parts.pop((event.choice, event.part), None)
        if growing is None or growing.start.kind is not PartKind.TOOL_CALL:
            return
        call = ToolCall(
            id=growing.start.tool_id,
            name=growing.start.tool_name,
            arguments="".join(growing.arguments),
            kind=ToolKind.CUSTOM if growing.start.custom else ToolKind.FUNCTION,
            signature=growing.signature or growing.start.signature,
            extra=growing.start.extra,
        )
        if not is_writable(call):
            self._note(event.choice, call)
        encoded = self._encoder().encode(call)
        if encoded is not None:
            yield self._chunk(event.choice, encoded)

    def _last(self) -> bytes:
        self._closed = True
        document: dict[str, Any] = {}
        candidates = [
            self._finished(ended) for _, ended in sorted(self._finishes.items()) if BLOCKED not in ended.extra
        ]
        if candidates:
            document["candidates"] = candidates
        for ended in self._finishes.values():
            if self._own and BLOCKED in ended.extra:
                document["promptFeedback"] = ended.extra["promptFeedback"]
        if self._usage is not None:
            document["usageMetadata"] = encode_usage(self._usage, own=self._own)
        frame = self._frame(document)
        return frame + b"]" if self._json_array else frame

    def _finished(self, ended: ChoiceEnded) -> dict[str, Any]:
        beside: Document = NOTHING
        if self._own:
            beside = {name: value for name, value in ended.extra.items() if not name.startswith("$")}
        word = finish_word(ended.finish, ended.stop_sequence, self._notable.get(ended.choice, ()), self._losses)
        return {
            "content": {"parts": [{"text": ""}], "role": "model"},
            "finishReason": ended.extra.get(FINISH, word) if self._own else word,
            "index": ended.choice,
            **beside,
        }

    def _chunk(self, choice: int, part: dict[str, Any], beside: Mapping[str, Any] = NOTHING) -> bytes:
        candidate = {"content": {"parts": [part], "role": "model"}, "index": choice, **beside}
        return self._frame({"candidates": [candidate]})

    def _frame(self, document: dict[str, Any]) -> bytes:
        data = orjson.dumps(document | self._envelope)
        if not self._json_array:
            return b"data: %b\r\n\r\n" % data
        opening = b",\r\n" if self._begun else b"["
        self._begun = True
        return opening + data

    def _encoder(self) -> AnswerPartEncoder:
        return AnswerPartEncoder(own=self._own, losses=self._losses, generation=THIRD)

    def _note(self, choice: int, part: Part) -> None:
        self._notable[choice] = (*self._notable.get(choice, ()), part)

    def _drop(self, extra: Document, where: str) -> None:
        if not self._own:
            drop_extra(extra, where=where, losses=self._losses)
