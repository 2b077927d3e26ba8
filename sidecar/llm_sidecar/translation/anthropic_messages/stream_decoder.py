"""Streams read: blocks that other languages have are told as they grow, all others when they are whole.

An event of an unknown kind says nothing (`ping` is one). A delta that is unknown, or does not fit its block, becomes a
part of its own behind that block, so that it is not passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from llm_sidecar.formats.anthropic_messages import read_error
from llm_sidecar.formats.base import FrameTooLarge
from llm_sidecar.formats.fields import count, load_mapping, mapping, text
from llm_sidecar.formats.sse import DONE, FrameSplitter, each_frame
from llm_sidecar.translation.answer import Finish, ToldUsage
from llm_sidecar.translation.anthropic_messages import blocks, stops, usage
from llm_sidecar.translation.anthropic_messages.blocks import OWN
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
from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.parts import NOTHING, Document, Native, Text, Thinking, ToolCall
from llm_sidecar.translation.reading import Fields

_DELTAS: Final = {
    "text_delta": (DeltaKind.TEXT, "text"),
    "thinking_delta": (DeltaKind.TEXT, "thinking"),
    "input_json_delta": (DeltaKind.ARGUMENTS, "partial_json"),
    "signature_delta": (DeltaKind.SIGNATURE, "signature"),
}

_FITTING: Final = {
    "text": ("text_delta", "citations_delta"),
    "thinking": ("thinking_delta", "signature_delta"),
    "tool_use": ("input_json_delta",),
}


@dataclass(slots=True)
class _Growing:
    """A block that has begun: told as it grows (`part` is its number), or kept until it is whole."""

    block: dict[str, Any]
    part: int | None
    arguments: list[str] = field(default_factory=list)
    unknown: list[dict[str, Any]] = field(default_factory=list)
    bytes_kept: int = 0


class MessagesStreamDecoder:
    """Reads one stream; see `StreamDecoder`."""

    __slots__ = ("_is_over", "_max_frame_bytes", "_open", "_parts", "_splitter", "_started", "_stopped", "_usage")

    def __init__(self, *, max_frame_bytes: int) -> None:
        self._splitter = FrameSplitter(max_frame_bytes=max_frame_bytes)
        self._max_frame_bytes = max_frame_bytes
        self._open: dict[int, _Growing] = {}
        self._parts = 0
        self._usage: ToldUsage | None = None
        self._started = self._stopped = self._is_over = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Events of the frames that are complete now. Raises `FrameTooLarge` and `Undecodable`."""
        return self._read_block(self._splitter.push(chunk))

    def finish(self) -> list[Event]:
        """Events of a last frame that is whole but for its empty line."""
        rest = self._splitter.rest()
        data = [data for _, data in each_frame(rest)]
        return self._read_block(rest) if data and load_mapping(data[-1]) is not None else []

    def _read_block(self, block: bytes) -> list[Event]:
        events: list[Event] = []
        for name, data in each_frame(block):
            if not data or data == DONE:
                continue
            document = load_mapping(data)
            if document is None:
                raise Undecodable("a frame of the stream is not a JSON object")
            if not self._is_over:
                self._read(text(document, "type") or name.decode("ascii", "replace"), document, events)
        return events

    def _read(self, kind: str, document: dict[str, Any], events: list[Event]) -> None:
        if kind == "error":
            error = read_error(mapping(document, "error"))
            self._is_over = True
            events.append(Failed(status=error.status, code=error.code, message=error.message))
        elif kind == "message_start":
            self._on_start(document, events)
        elif kind in ("content_block_start", "content_block_delta", "content_block_stop"):
            self._on_block(kind, document, events)
        elif kind == "message_delta":
            self._on_message_delta(document, events)
        elif kind == "message_stop":
            self._check_started()
            if not self._stopped:
                self._stop(Finish.OTHER, events)
            self._is_over = True
            events.append(Ended())

    def _check_started(self) -> None:
        if not self._started:
            raise Undecodable("the stream does not begin with message_start")

    def _on_start(self, document: dict[str, Any], events: list[Event]) -> None:
        message = Fields(document.get("message"), "message_start.message")
        told = message.object("usage")
        if told is not None:
            self._usage = usage.decode(told, self._usage)
        identity, model = message.text("id") or "", message.text("model") or ""
        for name in ("type", "role", "content"):
            message.take(name)
        if self._started:
            return
        self._started = True
        events.append(Started(id=identity, model=model, api=OWN, usage=self._usage, extra=message.rest))

    def _on_block(self, kind: str, document: dict[str, Any], events: list[Event]) -> None:
        self._check_started()
        index = count(document, "index")
        if index is None or self._stopped:
            raise Undecodable(f"{kind} has no index, or comes after the end of the content")
        if kind == "content_block_start":
            # The real API ends each block before the next; some servers that speak like it forget to.
            self._end_all(events)
            self._begin(index, document.get("content_block"), events)
        elif kind == "content_block_stop":
            if index in self._open:
                self._end(index, events)
        elif index not in self._open:
            raise Undecodable(f"{kind} is for a content block that has not begun")
        else:
            self._grow(self._open[index], mapping(document, "delta"), events)

    def _begin(self, index: int, block: Any, events: list[Event]) -> None:
        whole = blocks.decode_block(block, "content_block")
        number = self._parts
        if isinstance(whole, Text):
            started = PartStarted(part=number, kind=PartKind.TEXT, extra=whole.extra)
        elif isinstance(whole, Thinking) and whole.redacted is None:
            started = PartStarted(part=number, kind=PartKind.THINKING, extra=whole.extra)
        elif isinstance(whole, ToolCall):
            started = PartStarted(
                part=number, kind=PartKind.TOOL_CALL, tool_id=whole.id, tool_name=whole.name, extra=whole.extra
            )
        else:
            self._open[index] = _Growing(dict(block), None)
            return
        self._parts += 1
        self._open[index] = _Growing(dict(block), number)
        events.append(started)
        if isinstance(whole, Text | Thinking) and whole.text:
            events.append(PartDelta(part=number, kind=DeltaKind.TEXT, text=whole.text))
        if isinstance(whole, Text):
            events += [PartDelta(part=number, kind=DeltaKind.CITATION, citation=each) for each in whole.citations]
        if isinstance(whole, Thinking) and whole.signature:
            events.append(PartDelta(part=number, kind=DeltaKind.SIGNATURE, text=whole.signature))

    def _grow(self, growing: _Growing, delta: Any, events: list[Event]) -> None:
        kind = text(delta, "type")
        if growing.part is None:
            self._keep(growing, delta)
            return
        fits = kind in _FITTING[growing.block["type"]]
        if kind == "citations_delta" and fits and isinstance(delta.get("citation"), dict):
            events.append(PartDelta(part=growing.part, kind=DeltaKind.CITATION, citation=delta["citation"]))
            return
        known = _DELTAS.get(kind or "") if fits else None
        if known is None:
            growing.unknown.append(delta)
            self._count(growing, delta)
            return
        said = text(delta, known[1])
        if said is None:
            raise Undecodable(f"a {kind} has no {known[1]}")
        if known[0] is DeltaKind.ARGUMENTS:
            growing.block["input"] = {}
        events.append(PartDelta(part=growing.part, kind=known[0], text=said))

    def _keep(self, growing: _Growing, delta: dict[str, Any]) -> None:
        """Let a block grow that is told when it is whole: strings are joined, all else is replaced."""
        self._count(growing, delta)
        for name, value in delta.items():
            before = growing.block.get(name)
            if name == "partial_json" and isinstance(value, str):
                growing.arguments.append(value)
            elif isinstance(value, str) and isinstance(before, str):
                growing.block[name] = before + value if name != "type" else before
            elif name != "type":
                growing.block[name] = value

    def _count(self, growing: _Growing, delta: dict[str, Any]) -> None:
        growing.bytes_kept += len(orjson.dumps(delta))
        if growing.bytes_kept > self._max_frame_bytes:
            raise FrameTooLarge(f"a single content block is larger than {self._max_frame_bytes} bytes")

    def _end_all(self, events: list[Event]) -> None:
        for index in list(self._open):
            self._end(index, events)

    def _end(self, index: int, events: list[Event]) -> None:
        growing = self._open.pop(index)
        if growing.part is None:
            if arguments := "".join(growing.arguments):
                growing.block["input"] = _loaded(arguments)
            self._tell_whole(growing.block, events)
            return
        if growing.block.get("type") == "tool_use" and growing.block["input"]:
            # It came whole at the beginning, and no delta after it.
            arguments = orjson.dumps(growing.block["input"]).decode()
            events.append(PartDelta(part=growing.part, kind=DeltaKind.ARGUMENTS, text=arguments))
        events.append(PartEnded(part=growing.part))
        for delta in growing.unknown:
            self._tell_native(Native(owner=OWN, kind=text(delta, "type") or "delta", value=delta), events)

    def _tell_whole(self, block: dict[str, Any], events: list[Event]) -> None:
        part = blocks.decode_block(block, "content_block")
        self._tell_native(part, events)

    def _tell_native(self, part: Any, events: list[Event]) -> None:
        events.append(PartStarted(part=self._parts, kind=PartKind.WHOLE, whole=part))
        events.append(PartEnded(part=self._parts))
        self._parts += 1

    def _on_message_delta(self, document: dict[str, Any], events: list[Event]) -> None:
        self._check_started()
        fields = Fields(document, "message_delta")
        fields.take("type")
        delta = Fields(fields.object("delta") or {}, "message_delta.delta")
        told = fields.object("usage")
        reason = delta.text("stop_reason")
        if reason is not None and not self._stopped:
            finish = stops.decode(reason)
            sequence = delta.text("stop_sequence")
            word = {"stop_reason": reason} if finish is Finish.OTHER else {}
            self._stop(finish, events, stop_sequence=sequence, extra={**delta.rest, **fields.rest, **word})
        if told is not None:
            self._usage = usage.decode(told, self._usage)
            events.append(UsageTold(usage=self._usage))

    def _stop(
        self, finish: Finish, events: list[Event], *, stop_sequence: str | None = None, extra: Document = NOTHING
    ) -> None:
        """The content is over: blocks that were never ended are ended now."""
        self._end_all(events)
        self._stopped = True
        events.append(ChoiceEnded(finish=finish, stop_sequence=stop_sequence, extra=extra))


def _loaded(arguments: str) -> Any:
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError as error:
        raise Undecodable("the input of a tool that the provider runs is not JSON") from error
