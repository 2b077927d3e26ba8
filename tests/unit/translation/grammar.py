"""What `events.py` promises of every decoder, checked; and a stream's content put together, to compare two streams."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from llm_sidecar.translation.answer import Finish
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


@dataclass
class GrownPart:
    """A part of a streamed answer, put together."""

    kind: PartKind
    tool_id: str = ""
    tool_name: str = ""
    text: str = ""
    signature: str = ""
    citations: int = 0


@dataclass
class GrownChoice:
    """A choice of a streamed answer, put together."""

    parts: list[GrownPart] = field(default_factory=list)
    finish: Finish | None = None


def check_grammar(events: Iterable[Event], *, is_whole: bool = True) -> None:
    """Assert the order that encoders rely on. `is_whole`: up to the terminal marker."""
    walk = _Walk()
    for event in events:
        walk.take(event)
    assert not is_whole or isinstance(walk.last, Ended | Failed), "the stream has no end"


def assembled(events: Iterable[Event]) -> dict[int, GrownChoice]:
    """The content, by choice."""
    choices: dict[int, GrownChoice] = {}
    for event in events:
        if isinstance(event, PartStarted):
            part = GrownPart(
                kind=event.kind,
                tool_id=event.tool_id,
                tool_name=event.tool_name,
                signature=event.signature or "",
            )
            choices.setdefault(event.choice, GrownChoice()).parts.append(part)
        elif isinstance(event, PartDelta):
            part = choices[event.choice].parts[event.part]
            part.text += event.text if event.kind in (DeltaKind.TEXT, DeltaKind.ARGUMENTS) else ""
            part.signature += event.text if event.kind is DeltaKind.SIGNATURE else ""
            part.citations += event.kind is DeltaKind.CITATION
        elif isinstance(event, ChoiceEnded):
            choices.setdefault(event.choice, GrownChoice()).finish = event.finish
    return choices


_FITTING = {
    PartKind.TEXT: {DeltaKind.TEXT, DeltaKind.SIGNATURE, DeltaKind.CITATION},
    PartKind.REFUSAL: {DeltaKind.TEXT},
    PartKind.THINKING: {DeltaKind.TEXT, DeltaKind.SIGNATURE},
    PartKind.TOOL_CALL: {DeltaKind.ARGUMENTS, DeltaKind.SIGNATURE},
    PartKind.WHOLE: set[DeltaKind](),
}


class _Walk:
    def __init__(self) -> None:
        self.last: Event | None = None
        self._open: dict[tuple[int, int], PartKind] = {}
        self._begun: dict[int, int] = {}
        self._ended: set[int] = set()

    def take(self, event: Event) -> None:
        assert not isinstance(self.last, Ended | Failed), "something comes behind the end"
        assert isinstance(event, Failed) or (self.last is None) == isinstance(event, Started), "no beginning, or two"
        if isinstance(event, PartStarted):
            self._begin(event)
        elif isinstance(event, PartDelta):
            assert event.kind in _FITTING[self._open[event.choice, event.part]]
        elif isinstance(event, PartEnded):
            del self._open[event.choice, event.part]
        elif isinstance(event, ChoiceEnded):
            assert event.choice not in self._ended
            assert not [key for key in self._open if key[0] == event.choice], "a choice ended before its parts"
            self._ended.add(event.choice)
        elif isinstance(event, Ended):
            assert not self._open
            assert set(self._begun) <= self._ended, "a choice has no end"
        elif isinstance(event, UsageTold):
            assert event.usage.buckets is not None
        self.last = event

    def _begin(self, event: PartStarted) -> None:
        assert event.choice not in self._ended
        assert event.part == self._begun.get(event.choice, 0), "parts are numbered in order of their beginning"
        others = {kind for key, kind in self._open.items() if key[0] == event.choice}
        assert others <= {PartKind.TOOL_CALL}, "parts overlap"
        assert not others or event.kind is PartKind.TOOL_CALL, "parts overlap"
        assert (event.kind is PartKind.WHOLE) == (event.whole is not None)
        self._begun[event.choice] = event.part + 1
        self._open[event.choice, event.part] = event.kind
