"""Streams written. Anthropic's blocks never overlap: parts that do (calls of OpenAI's chat) wait for each other.

A text of nothing gets no block, since Anthropic refuses such a block when the application sends it back. What the usage
of the input was, other APIs tell last, so `message_delta` tells all of it; the SDK takes that over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from llm_sidecar.contract.names import API
from llm_sidecar.formats.anthropic_messages import error_event
from llm_sidecar.translation import foreign
from llm_sidecar.translation.answer import Finish, ToldUsage
from llm_sidecar.translation.anthropic_messages import answers, signatures, stops, usage
from llm_sidecar.translation.anthropic_messages.blocks import BY_THE_MODEL, CALLER, CITATIONS, OWN
from llm_sidecar.translation.anthropic_messages.turns import checked_id
from llm_sidecar.translation.anthropic_messages.written_blocks import BlockWriter
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
from llm_sidecar.translation.losses import Losses
from llm_sidecar.translation.parts import Document, ToolCall

_TOLD_AT_THE_START: Final = ("cache_creation", "service_tier", "inference_geo", "speed")
_BESIDE_DELTA: Final = "context_management"


@dataclass(slots=True)
class _Part:
    """A part that has begun."""

    started: PartStarted
    is_open: bool = False
    """Its block has begun, too."""
    is_over: bool = False
    signature: str = ""
    waiting: list[PartDelta] = field(default_factory=list)


class MessagesStreamEncoder:
    """Writes one stream; see `StreamEncoder`."""

    __slots__ = (
        "_api",
        "_id",
        "_index",
        "_losses",
        "_lost_call",
        "_out",
        "_parts",
        "_refused",
        "_seen_call",
        "_stop",
        "_usage",
    )

    def __init__(self, *, losses: Losses) -> None:
        self._losses = losses
        self._id = ""
        self._api: API | None = None
        self._index = 0
        self._parts: dict[int, _Part] = {}
        self._stop: ChoiceEnded | None = None
        self._usage: ToldUsage | None = None
        self._seen_call = self._lost_call = self._refused = False
        self._out: list[bytes] = []

    def encode(self, events: Iterable[Event]) -> bytes:
        """The frames for these events."""
        for event in events:
            self._write(event)
        written = b"".join(self._out)
        self._out.clear()
        return written

    def error_tail(self, status: int, code: str, message: str) -> bytes:
        """An `error` event, at which the SDK raises."""
        return error_event(status, code, message)

    @property
    def _is_own(self) -> bool:
        return self._api is OWN

    def _write(self, event: Event) -> None:
        match event:
            case Started():
                self._on_start(event)
            case PartStarted() | PartDelta() | PartEnded() | ChoiceEnded() if event.choice != 0:
                self._losses.drop("choices")
            case PartStarted():
                self._parts[event.part] = _Part(event)
                self._advance()
            case PartDelta():
                self._on_delta(event)
            case PartEnded():
                self._parts[event.part].is_over = True
                self._advance()
            case ChoiceEnded():
                self._stop = event
            case UsageTold():
                self._usage = event.usage
            case Failed():
                self._out.append(error_event(event.status, event.code, event.message))
            case Ended():
                self._on_end(event)

    def _on_start(self, event: Started) -> None:
        self._id = event.id
        self._api = event.api
        self._usage = event.usage
        message: dict[str, Any] = {
            "id": event.id,
            "type": "message",
            "role": "assistant",
            "model": event.model,
            "content": [],
        }
        if self._is_own:
            message |= event.extra
            message |= {} if event.usage is None else {"usage": event.usage.extra}
        else:
            foreign.drop_extra(event.extra, where="", losses=self._losses)
            message |= {**stops.NOT_YET, "usage": usage.encode(event.usage)}
        self._frame("message_start", message=message)

    def _on_delta(self, event: PartDelta) -> None:
        if event.logprobs is not None:
            self._losses.drop("logprobs")
        part = self._parts[event.part]
        if next(iter(self._parts)) == event.part:
            self._delta(part, event)
        else:
            part.waiting.append(event)

    def _advance(self) -> None:
        """Write of the first part that is not yet ended what it has, and of those behind it once it is."""
        while self._parts:
            number, part = next(iter(self._parts.items()))
            if part.started.custom:
                self._leave_out(part)
            elif part.started.kind is PartKind.TOOL_CALL:
                self._open_block(part)
            for delta in part.waiting:
                self._delta(part, delta)
            part.waiting.clear()
            if not part.is_over:
                return
            self._close(part)
            del self._parts[number]

    def _leave_out(self, part: _Part) -> None:
        """A call of a tool that takes free text. What of it is still to come says nothing more."""
        self._losses.drop(foreign.CALL)
        self._lost_call = True
        part.waiting.clear()

    def _delta(self, part: _Part, event: PartDelta) -> None:
        if part.started.custom:
            return
        kind = part.started.kind
        if event.kind is DeltaKind.SIGNATURE:
            part.signature += event.text
        elif event.kind is DeltaKind.CITATION:
            self._citation(part, event.citation or {})
        elif event.text:
            self._open_block(part)
            if event.kind is DeltaKind.ARGUMENTS:
                self._block_delta({"type": "input_json_delta", "partial_json": event.text})
            elif kind is PartKind.THINKING:
                self._block_delta({"type": "thinking_delta", "thinking": event.text})
            else:
                self._refused = self._refused or kind is PartKind.REFUSAL
                self._block_delta({"type": "text_delta", "text": event.text})

    def _citation(self, part: _Part, citation: Document) -> None:
        if not self._is_own:
            self._losses.drop("citations")
            return
        self._open_block(part)
        self._block_delta({"type": "citations_delta", "citation": dict(citation)})

    def _open_block(self, part: _Part) -> None:
        if part.is_open:
            return
        part.is_open = True
        started = part.started
        extra = _rest(started) if self._is_own else {}
        if not self._is_own:
            foreign.drop_extra(started.extra, where=foreign.PART, losses=self._losses)
        if started.kind is PartKind.TOOL_CALL:
            self._open_call(started, extra)
        elif started.kind is PartKind.THINKING:
            self._begin({"type": "thinking", "thinking": "", "signature": "", **extra})
        else:
            self._begin({"type": "text", "text": "", **extra})

    def _open_call(self, started: PartStarted, extra: dict[str, Any]) -> None:
        self._seen_call = True
        if started.signature is not None:
            sign = signatures.marked(self._api, started.signature, signs_call=True)
            self._begin({"type": "thinking", "thinking": "", "signature": ""})
            self._block_delta({"type": "signature_delta", "signature": sign})
            self._end()
        call_id = checked_id(started.tool_id) or answers.made_up_id(self._id, started.part)
        self._begin({"type": "tool_use", "id": call_id, "name": started.tool_name, "input": {}, **extra})

    def _close(self, part: _Part) -> None:
        started = part.started
        if started.kind is PartKind.WHOLE:
            self._whole(started)
        elif started.kind is PartKind.THINKING:
            signature = part.signature
            if not self._is_own and (part.is_open or signature):
                signature = signatures.marked(self._api, signature)
            if signature:
                # One delta: the SDK takes each for the whole.
                self._open_block(part)
                self._block_delta({"type": "signature_delta", "signature": signature})
        elif part.signature:
            self._losses.drop("thought_signature")
        if part.is_open:
            self._end()

    def _whole(self, started: PartStarted) -> None:
        part = started.whole
        if part is None:
            return
        if isinstance(part, ToolCall) and not answers.is_writable(part):
            self._lost_call = True
        writer = BlockWriter(is_own=self._is_own, losses=self._losses)
        if self._is_own:
            written = writer.blocks([part])
        else:
            written = answers.shown(part, started.part, answer_id=self._id, api=self._api, writer=writer)
        for block in written:
            self._whole_block(block)

    def _whole_block(self, block: dict[str, Any]) -> None:
        """The input of a call comes in a delta, as the SDK expects it."""
        told = block.get("input")
        if not isinstance(told, dict) or not told:
            self._begin(block)
        else:
            self._begin({**block, "input": {}})
            self._block_delta({"type": "input_json_delta", "partial_json": orjson.dumps(told).decode()})
        self._end()

    def _on_end(self, event: Ended) -> None:
        foreign.drop_extra(event.extra, where="", losses=self._losses)
        stop = self._stop or ChoiceEnded(finish=Finish.OTHER)
        finish = Finish.REFUSAL if self._refused else stop.finish
        if self._lost_call:
            finish = answers.WITHOUT_A_CALL
        if not self._is_own:
            foreign.drop_extra(stop.extra, where="choices", losses=self._losses)
            sequence = stop.stop_sequence
            delta = stops.encode(finish, has_calls=self._seen_call, stop_sequence=sequence, losses=self._losses)
            self._frame("message_delta", delta=delta, usage=usage.encode(self._usage))
        else:
            beside = {name: value for name, value in stop.extra.items() if name == _BESIDE_DELTA}
            told = {name: value for name, value in stop.extra.items() if name != _BESIDE_DELTA}
            delta = stops.encode_own(stop.finish, stop_sequence=stop.stop_sequence)
            self._frame("message_delta", delta=delta | told, **beside, **self._own_last_usage())
        self._frame("message_stop")

    def _own_last_usage(self) -> dict[str, Any]:
        if self._usage is None:
            return {}
        told = {name: value for name, value in self._usage.extra.items() if name not in _TOLD_AT_THE_START}
        return {"usage": told}

    def _begin(self, block: dict[str, Any]) -> None:
        self._frame("content_block_start", index=self._index, content_block=block)

    def _block_delta(self, delta: dict[str, Any]) -> None:
        self._frame("content_block_delta", index=self._index, delta=delta)

    def _end(self) -> None:
        self._frame("content_block_stop", index=self._index)
        self._index += 1

    def _frame(self, kind: str, **rest: Any) -> None:
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **rest})))


def _rest(started: PartStarted) -> dict[str, Any]:
    """The `extra` of a block's beginning, as its document spelled it."""
    spelled: dict[str, Any] = {"caller": BY_THE_MODEL} if CALLER in started.extra else {}
    if CITATIONS in started.extra:
        spelled["citations"] = []
    return {**spelled, **{name: value for name, value in started.extra.items() if not name.startswith("$")}}
