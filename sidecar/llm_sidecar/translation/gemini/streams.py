"""Gemini's streams, read into events.

The end is that of the connection, behind the finish reason of every candidate: this API has no other marker, and may
tell something behind a finish reason. So choices end with the stream. Whatever accompanies a candidate beside its
content (grounding, ratings) comes with `ChoiceEnded`, as it was told last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.formats.fields import load_mapping
from llm_sidecar.formats.gemini import read_error
from llm_sidecar.formats.sse import FrameSplitter, each_frame, read_frame
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
from llm_sidecar.translation.gemini.answers import BLOCKED, FINISH, decode_finish, is_blocked, told_usage, usual_word
from llm_sidecar.translation.gemini.parts import AnswerIds, decode_part
from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.parts import Document, Part, Text, Thinking, ToolCall
from llm_sidecar.translation.spelling import SpelledFields

ORIGIN: Final = "$api"
"""In `Started.extra`: the `extra` of all these events is this API's own."""


@dataclass(slots=True, kw_only=True)
class _Choice:
    """How far one candidate is."""

    index: int
    ids: AnswerIds
    parts: int = 0
    """So many have begun; the last of them is `growing`, or none."""
    growing: PartKind | None = None
    calls_tools: bool = False
    reason: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class GeminiStreamDecoder:
    """See `StreamDecoder`."""

    __slots__ = ("_answer_id", "_blocked", "_choices", "_failed", "_splitter", "_started", "_usage")

    def __init__(self, *, max_frame_bytes: int) -> None:
        self._splitter = FrameSplitter(max_frame_bytes=max_frame_bytes)
        self._choices: dict[int, _Choice] = {}
        self._answer_id = ""
        self._started = self._failed = False
        self._blocked: Document | None = None
        self._usage: ToldUsage | None = None

    def feed(self, chunk: bytes) -> list[Event]:
        """See `StreamDecoder`."""
        events: list[Event] = []
        for _, data in each_frame(self._splitter.push(chunk)):
            if data and not self._failed:
                document = load_mapping(data)
                if document is None:
                    raise Undecodable("a frame of its stream is not a JSON object")
                events += self._read(document)
        return events

    def finish(self) -> list[Event]:
        """See `StreamDecoder`."""
        events: list[Event] = []
        document = load_mapping(read_frame(self._splitter.rest())[1])
        if document is not None and not self._failed:
            events += self._read(document)
        if not self._failed:
            events += self._last()
        return events

    def _last(self) -> Iterator[Event]:
        choices = self._choices.values()
        if any(choice.reason is None for choice in choices) or not (choices or self._blocked):
            return
        for choice in choices:
            yield from _end(choice)
            yield _ended(choice)
        if self._blocked is not None:
            yield ChoiceEnded(finish=Finish.SAFETY, extra={BLOCKED: True, "promptFeedback": self._blocked})
        if self._usage is not None:
            yield UsageTold(usage=self._usage)
        yield Ended()

    def _read(self, document: dict[str, Any]) -> Iterator[Event]:
        if document.get("error"):
            error = read_error(document["error"])
            self._failed = True
            yield Failed(status=error.status, code=error.code, message=error.message)
            return
        fields = SpelledFields(document, "chunk")
        usage = told_usage(fields.object("usageMetadata"))
        if not self._started:
            yield self._start(fields, usage)
        for candidate in fields.repeated("candidates"):
            yield from self._candidate(candidate)
        if is_blocked(document) and not self._choices:
            self._blocked = document["promptFeedback"]
        if usage is not None and usage != self._usage:
            self._usage = usage
            yield UsageTold(usage=usage)

    def _start(self, fields: SpelledFields, usage: ToldUsage | None) -> Started:
        self._started = True
        self._answer_id = fields.text("responseId") or ""
        model = fields.text("modelVersion") or ""
        return Started(api=API.GEMINI, id=self._answer_id, model=model, usage=usage, extra={ORIGIN: API.GEMINI})

    def _candidate(self, candidate: Any) -> Iterator[Event]:
        fields = SpelledFields(candidate, "candidates")
        choice = self._choice(fields.whole("index") or 0)
        content = fields.container("content")
        content.text("role")
        logprobs = fields.object("logprobsResult")
        for part in content.repeated("parts"):
            yield from _part(choice, decode_part(part, "candidates.content.parts", choice.ids), logprobs)
        choice.reason = fields.text("finishReason") or choice.reason
        choice.extra |= {name: value for name, value in fields.extra.items() if not name.startswith("$")}

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            ids = AnswerIds(f"{self._answer_id}_{index}" if index else self._answer_id)
            choice = self._choices[index] = _Choice(index=index, ids=ids)
        return choice


def _part(choice: _Choice, part: Part, logprobs: Mapping[str, Any] | None) -> Iterator[Event]:
    if isinstance(part, Text | Thinking):
        if not part.text and part.signature is None:
            return
        yield from _grow(choice, part, logprobs)
        return
    yield from _end(choice)
    number = choice.parts
    choice.parts += 1
    if not isinstance(part, ToolCall):
        yield PartStarted(choice=choice.index, part=number, kind=PartKind.WHOLE, whole=part)
        yield PartEnded(choice=choice.index, part=number)
        return
    choice.calls_tools = True
    yield PartStarted(
        choice=choice.index,
        part=number,
        kind=PartKind.TOOL_CALL,
        tool_id=part.id,
        tool_name=part.name,
        signature=part.signature,
        extra=part.extra,
    )
    arguments = part.arguments_text()
    yield PartDelta(choice=choice.index, part=number, kind=DeltaKind.ARGUMENTS, text=arguments)
    yield PartEnded(choice=choice.index, part=number)


def _grow(choice: _Choice, part: Text | Thinking, logprobs: Mapping[str, Any] | None) -> Iterator[Event]:
    kind = PartKind.TEXT if isinstance(part, Text) else PartKind.THINKING
    if choice.growing is not kind:
        yield from _end(choice)
        extra = {name: value for name, value in part.extra.items() if not name.startswith("$")}
        yield PartStarted(choice=choice.index, part=choice.parts, kind=kind, extra=extra)
        choice.parts += 1
        choice.growing = kind
    number = choice.parts - 1
    if part.text:
        yield PartDelta(choice=choice.index, part=number, kind=DeltaKind.TEXT, text=part.text, logprobs=logprobs)
    if part.signature is not None:
        yield PartDelta(choice=choice.index, part=number, kind=DeltaKind.SIGNATURE, text=part.signature)
        # It signs what came so far: what follows is another part.
        yield from _end(choice)


def _end(choice: _Choice) -> Iterator[Event]:
    if choice.growing is not None:
        choice.growing = None
        yield PartEnded(choice=choice.index, part=choice.parts - 1)


def _ended(choice: _Choice) -> ChoiceEnded:
    reason = choice.reason or ""
    finish = decode_finish(reason, calls_tools=choice.calls_tools)
    own_word: Document = {FINISH: reason} if usual_word(finish) != reason else {}
    return ChoiceEnded(choice=choice.index, finish=finish, extra={**choice.extra, **own_word})
