"""The parts of a streamed answer as they grow: numbered, begun and ended as the grammar of events wants it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from llm_sidecar.translation.events import DeltaKind, Event, PartDelta, PartEnded, PartKind, PartStarted
from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.parts import Document, Part

Key = tuple[int, int]
"""Index of the item in the output, and of the content in its message; `WHOLE_ITEM` for an item that is one part."""
WHOLE_ITEM: Final = -1
_ENDED: Final = -1


@dataclass(slots=True)
class _Growing:
    number: int
    """Among the events; `_ENDED` once it has ended."""
    kind: PartKind
    has_text: bool = False
    paragraph: object = None
    """Which summary or text of a reasoning item came last."""


class GrowingParts:
    """All parts of one stream, by their place in the output."""

    __slots__ = ("_count", "_held", "_parts", "kinds")

    def __init__(self) -> None:
        self._count = 0
        self._parts: dict[Key, _Growing] = {}
        self._held: list[Part] = []
        self.kinds: set[PartKind] = set()
        """All that there were."""

    def __contains__(self, key: Key) -> bool:
        """True once the part has begun, also when it has ended."""
        return key in self._parts

    def has_ended(self, key: Key) -> bool:
        """True for a part that began and ended."""
        return key in self._parts and self._parts[key].number == _ENDED

    def has_text(self, key: Key) -> bool:
        """True if any of it came already."""
        return self._parts[key].has_text

    def begin(self, key: Key, kind: PartKind, **told: Any) -> Iterator[Event]:
        """Begin a part, unless it did. Only tool calls overlap, and only each other: what else would, ends first."""
        if key in self._parts:
            return
        for other, part in self._parts.items():
            if part.number != _ENDED and not kind is part.kind is PartKind.TOOL_CALL:
                yield from self.end(other)
        self._parts[key] = _Growing(self._count, kind)
        self._count += 1
        self.kinds.add(kind)
        yield PartStarted(part=self._parts[key].number, kind=kind, **told)

    def grow(
        self, key: Key, told: object, kind: DeltaKind, *, logprobs: Mapping[str, Any] | None = None
    ) -> Iterator[Event]:
        """A delta of text, arguments or signature."""
        if not isinstance(told, str):
            raise Undecodable("a stream's delta is not a string")
        part = self._growing(key)
        if kind is not DeltaKind.SIGNATURE:
            part.has_text = part.has_text or bool(told)
        if told or logprobs:
            yield PartDelta(part=part.number, kind=kind, text=told, logprobs=logprobs)

    def cite(self, key: Key, citation: Document) -> Iterator[Event]:
        """A citation of a text."""
        yield PartDelta(part=self._growing(key).number, kind=DeltaKind.CITATION, citation=citation)

    def think(self, key: Key, paragraph: object, told: object) -> Iterator[Event]:
        """A delta of thoughts. Paragraphs are kept apart by an empty line, as in a whole answer."""
        if not told:
            return
        part = self._growing(key)
        if part.has_text and part.paragraph != paragraph:
            yield PartDelta(part=part.number, kind=DeltaKind.TEXT, text="\n\n")
        part.paragraph = paragraph
        yield from self.grow(key, told, DeltaKind.TEXT)

    def complete(self, key: Key, told: object, kind: DeltaKind) -> Iterator[Event]:
        """Tell what no delta did, and end."""
        part = self._parts[key]
        if part.number != _ENDED and not part.has_text and told:
            yield from self.grow(key, told, kind)
        yield from self.end(key)

    def end(self, key: Key) -> Iterator[Event]:
        """End a part, unless it did."""
        part = self._parts[key]
        if part.number != _ENDED:
            yield PartEnded(part=part.number)
            part.number = _ENDED
            yield from self._tell_held()

    def end_all(self) -> Iterator[Event]:
        """End whatever has not ended."""
        for key in list(self._parts):
            yield from self.end(key)

    def whole(self, part: Part, key: Key | None = None) -> Iterator[Event]:
        """A part in one piece; told as soon as no other grows. `key`: its place, so that it is told once."""
        if key is not None:
            if key in self._parts:
                return
            self._parts[key] = _Growing(_ENDED, PartKind.WHOLE)
        self._held.append(part)
        yield from self._tell_held()

    def _growing(self, key: Key) -> _Growing:
        part = self._parts.get(key)
        if part is None or part.number == _ENDED:
            raise Undecodable("a stream goes on with a part that did not begin, or had ended")
        return part

    def _tell_held(self) -> Iterator[Event]:
        if self._held and all(part.number == _ENDED for part in self._parts.values()):
            for whole in self._held:
                yield PartStarted(part=self._count, kind=PartKind.WHOLE, whole=whole)
                yield PartEnded(part=self._count)
                self._count += 1
            self._held.clear()
