"""Reads a stream of chat completion chunks as events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from llm_sidecar.contract.names import API
from llm_sidecar.formats.openai_errors import read_stream_error
from llm_sidecar.formats.sse import DONE, FrameSplitter, each_frame
from llm_sidecar.translation.answer import Finish, ToldUsage
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
from llm_sidecar.translation.openai_chat.finishes import decode_finish
from llm_sidecar.translation.openai_chat.messages import take_signature
from llm_sidecar.translation.openai_chat.usage import decode_usage
from llm_sidecar.translation.parts import Document, Native
from llm_sidecar.translation.reading import Fields

_TEXTS: Final = {
    "content": PartKind.TEXT,
    "refusal": PartKind.REFUSAL,
    "reasoning_content": PartKind.THINKING,
    "reasoning": PartKind.THINKING,
}
_NO_CONTENT: Final = frozenset({"role", "tool_calls", "annotations", *_TEXTS})
_ENVELOPE: Final = ("id", "model", "created", "object", "obfuscation")
"""What every chunk says again, and padding."""


class ChatStreamDecoder:
    """See `StreamDecoder`. The usage is told right before the end, whenever the provider told it."""

    __slots__ = ("_choices", "_is_over", "_is_started", "_left", "_splitter", "_usage")

    def __init__(self, *, max_frame_bytes: int) -> None:
        self._splitter = FrameSplitter(max_frame_bytes=max_frame_bytes)
        self._choices: dict[int, _Choice] = {}
        self._is_started = False
        self._is_over = False
        self._usage: ToldUsage | None = None
        self._left: dict[str, Any] = {}

    def feed(self, chunk: bytes) -> list[Event]:
        """Events of the frames that are complete now. Raises `FrameTooLarge` and `Undecodable`."""
        return list(self._read(self._splitter.push(chunk)))

    def finish(self) -> list[Event]:
        """Events of a last frame that is whole but for its empty line; half a frame is none."""
        rest = self._splitter.rest()
        return list(self._read(rest, is_cut=True)) if rest else []

    def _read(self, block: bytes, *, is_cut: bool = False) -> Iterator[Event]:
        for _, data in each_frame(block):
            if self._is_over:
                return
            if data == DONE:
                yield from self._end()
            elif data:
                try:
                    document = orjson.loads(data)
                except orjson.JSONDecodeError:
                    if is_cut:
                        return
                    raise Undecodable("a stream chunk is no JSON") from None
                yield from self._chunk(document)

    def _chunk(self, document: Any) -> Iterator[Event]:
        fields = Fields(document, "a stream chunk")
        if document.get("error"):
            self._is_over = True
            error = read_stream_error(document["error"])
            yield Failed(status=error.status, code=error.code, message=error.message)
            return
        usage, choices = fields.object("usage"), fields.array("choices") or []
        if usage is not None:
            self._usage = decode_usage(usage)
        envelope = {name: fields.take(name) for name in _ENVELOPE}
        self._left |= {name: value for name, value in fields.rest.items() if value is not None}
        if choices:
            yield from self._start(envelope)
        for choice in choices:
            yield from self._choice(choice)

    def _start(self, envelope: Document) -> Iterator[Event]:
        if self._is_started:
            return
        self._is_started = True
        created = envelope.get("created")
        told, self._left = self._left, {}
        yield Started(
            api=API.OPENAI_CHAT,
            id=str(envelope.get("id") or ""),
            model=str(envelope.get("model") or ""),
            created_seconds=created if type(created) is int else None,
            extra=told,
        )

    def _choice(self, document: Any) -> Iterator[Event]:
        fields = Fields(document, "a stream chunk's choice")
        index = fields.whole("index") or 0
        choice = self._choices.setdefault(index, _Choice(index))
        delta = fields.object("delta") or {}
        logprobs, word = fields.object("logprobs"), fields.text("finish_reason")
        choice.left |= {name: value for name, value in fields.rest.items() if value is not None}
        if not choice.is_ended:
            yield from choice.delta(delta, logprobs)
            if word is not None:
                yield from choice.end(word)

    def _end(self) -> Iterator[Event]:
        yield from self._start({})
        for choice in self._choices.values():
            if not choice.is_ended:
                yield from choice.end("")
        if self._usage is not None:
            yield UsageTold(usage=self._usage)
        self._is_over = True
        yield Ended(extra=self._left)


@dataclass(slots=True)
class _Call:
    """A tool call that grows. Its part begins when its name is known."""

    id: str = ""
    part: int | None = None
    held: str = ""


@dataclass(slots=True)
class _Choice:
    index: int
    parts: int = 0
    """So many have begun."""
    open_text: tuple[int, PartKind] | None = None
    calls: dict[int, _Call] = field(default_factory=dict)
    """Those not yet ended, by the provider's number: they may grow in turns."""
    called: int = 0
    refused: bool = False
    is_ended: bool = False
    left: dict[str, Any] = field(default_factory=dict)

    def delta(self, delta: Mapping[str, Any], logprobs: Document | None) -> Iterator[Event]:
        for name in ("reasoning_content", "reasoning", "content", "refusal"):
            text = delta.get(name)
            # Some servers tell thoughts under both names.
            if text and not (name == "reasoning" and delta.get("reasoning_content")):
                yield from self._text(_TEXTS[name], text, logprobs)
                logprobs = None
        fields = Fields(delta, "a stream chunk's delta")
        for citation in fields.array("annotations") or ():
            yield from self._open(PartKind.TEXT)
            yield self._grown(DeltaKind.CITATION, citation=Fields(citation, "an annotation").rest)
        for name, value in delta.items():
            if value and name not in _NO_CONTENT:
                yield from self._whole(name, value)
        for call in fields.array("tool_calls") or ():
            yield from self._call(Fields(call, "a stream chunk's tool call"))

    def end(self, word: str) -> Iterator[Event]:
        yield from self._close_text()
        yield from self._close_calls()
        self.is_ended = True
        finish = decode_finish(word, refused=self.refused)
        extra = {**self.left, "$finish": word} if finish is Finish.OTHER or self.left else self.left
        yield ChoiceEnded(choice=self.index, finish=finish, extra=extra)

    def _text(self, kind: PartKind, text: Any, logprobs: Document | None) -> Iterator[Event]:
        if not isinstance(text, str):
            raise Undecodable(f"a stream chunk's {kind.value} must be a string")
        self.refused |= kind is PartKind.REFUSAL
        yield from self._open(kind)
        yield self._grown(DeltaKind.TEXT, text=text, logprobs=logprobs)

    def _open(self, kind: PartKind) -> Iterator[Event]:
        if self.open_text is not None and self.open_text[1] is kind:
            return
        yield from self._close_text()
        yield from self._close_calls()
        self.open_text = (self._next_part(), kind)
        yield PartStarted(choice=self.index, part=self.open_text[0], kind=kind)

    def _grown(
        self, kind: DeltaKind, *, text: str = "", logprobs: Document | None = None, citation: Document | None = None
    ) -> PartDelta:
        part = self.open_text[0] if self.open_text else 0
        return PartDelta(choice=self.index, part=part, kind=kind, text=text, logprobs=logprobs, citation=citation)

    def _whole(self, name: str, value: Any) -> Iterator[Event]:
        yield from self._close_text()
        yield from self._close_calls()
        part = self._next_part()
        whole = Native(owner=API.OPENAI_CHAT, kind=name, value={name: value})
        yield PartStarted(choice=self.index, part=part, kind=PartKind.WHOLE, whole=whole)
        yield PartEnded(choice=self.index, part=part)

    def _call(self, fields: Fields) -> Iterator[Event]:
        number, call_id, kind = fields.whole("index"), fields.text("id"), fields.text("type")
        inner = Fields(fields.take("function") or fields.take("custom") or {}, "a stream chunk's tool call")
        call = self._call_of(number, call_id)
        name, grown = inner.text("name"), inner.text("arguments") or inner.text("input") or ""
        if call.part is not None:
            if grown:
                yield self._arguments(call.part, grown)
            return
        call.id = call.id or call_id or ""
        call.held += grown
        if name:
            yield from self._close_text()
            call.part = self._next_part()
            yield PartStarted(
                choice=self.index,
                part=call.part,
                kind=PartKind.TOOL_CALL,
                tool_id=call.id,
                tool_name=name,
                custom=kind == "custom",
                signature=take_signature(fields),
                extra={field: value for field, value in fields.rest.items() if value is not None},
            )
            if call.held:
                yield self._arguments(call.part, call.held)

    def _call_of(self, number: int | None, call_id: str | None) -> _Call:
        """The call that a delta belongs to. Some servers number all calls 0, or none: then a new id is a new call."""
        if number is None:
            number = max(self.calls, default=0)
        call = self.calls.get(number)
        if call is not None and call_id and call.id and call.id != call_id:
            known = [key for key, each in self.calls.items() if each.id == call_id]
            number = known[0] if known else max(self.calls) + 1
            call = self.calls.get(number)
        if call is None:
            call = self.calls[number] = _Call()
        return call

    def _arguments(self, part: int, text: str) -> PartDelta:
        return PartDelta(choice=self.index, part=part, kind=DeltaKind.ARGUMENTS, text=text)

    def _close_text(self) -> Iterator[Event]:
        if self.open_text is not None:
            part, self.open_text = self.open_text[0], None
            yield PartEnded(choice=self.index, part=part)

    def _close_calls(self) -> Iterator[Event]:
        calls, self.calls = self.calls, {}
        for call in calls.values():
            if call.part is None:
                raise Undecodable("a stream chunk's tool call has no name")
            yield PartEnded(choice=self.index, part=call.part)

    def _next_part(self) -> int:
        self.parts += 1
        return self.parts - 1
