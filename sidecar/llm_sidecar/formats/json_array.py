"""A JSON array that arrives in pieces: Gemini's stream for clients that did not ask for events.

Only whole elements are relayed, each with the comma before it and never with the one behind it, so that at every
moment the array can still be closed, with an error as its last element.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, ClassVar, Final

from llm_sidecar.formats.base import FrameTooLarge, FrameUnreadable, StreamError, Usage
from llm_sidecar.formats.fields import load_mapping

# Everything up to the next bracket, or to a string that is not finished yet.
_NO_BRACKET: Final = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
_REST_OF_STRING: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_OPENING: Final = frozenset(b"[{")
_QUOTE: Final = 0x22
_ARRAY_DEPTH: Final = 1


class ArrayPosition(Enum):
    """How far an array was relayed."""

    BEFORE_FIRST = "before the first element"
    INSIDE = "behind an element"
    CLOSED = "behind the closing bracket"


class JsonArrayObserver:
    """The part of a stream observer that cuts a JSON array into elements; a format says what an element means."""

    __slots__ = (
        "_buffer",
        "_depth",
        "_element_start",
        "_in_string",
        "_max_frame_bytes",
        "_opaque",
        "_scanned",
        "committed",
        "content_bytes",
        "ended",
        "error",
        "position",
        "usage",
    )

    _content: ClassVar[re.Pattern[bytes]]

    def __init__(self, *, max_frame_bytes: int) -> None:
        self.committed = False
        self.ended = False
        self.error: StreamError | None = None
        self.usage: Usage | None = None
        self.content_bytes = 0
        self.position = ArrayPosition.BEFORE_FIRST
        self._max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._scanned = 0
        self._depth = 0
        self._in_string = False
        self._element_start: int | None = None
        self._opaque = False

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; return those to relay now. Raises `FrameTooLarge`, `FrameUnreadable`."""
        if self._relays_all():
            return chunk
        self._buffer += chunk
        cut = self._scan()
        if self._relays_all():
            cut = len(self._buffer)
        block = bytes(self._buffer[:cut])
        del self._buffer[:cut]
        self._scanned = max(0, self._scanned - cut)
        if self._element_start is not None:
            self._element_start -= cut
        # Never together with a block: that would be lost, and the array could not be closed validly any more.
        if not block and len(self._buffer) > self._max_frame_bytes:
            raise FrameTooLarge(f"a single element of the stream is larger than {self._max_frame_bytes} bytes")
        return block

    def finish(self) -> bytes:
        """The provider closed the stream: an unfinished element is dropped, a comma behind the last one too."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return b"" if rest.strip() else rest

    def _scan(self) -> int:
        """Read on from where the last read ended; return the end of the last whole element, 0 if there is none."""
        cut = 0
        while self._scanned < len(self._buffer):
            if self._in_string:
                if not self._leave_string():
                    break
                continue
            skipped = _NO_BRACKET.match(self._buffer, self._scanned)
            position = self._scanned if skipped is None else skipped.end()
            if self._depth == 0 and self._is_no_array(position):
                self._opaque = True
                break
            self._scanned = position
            if position == len(self._buffer):
                break
            self._scanned += 1
            cut = self._step(self._buffer[position], position, relayable=cut) or cut
            if self._relays_all():
                break
        return cut

    def _relays_all(self) -> bool:
        """Behind the closing bracket, or in something that is no array, there is nothing left to hold back."""
        return self._opaque or self.position is ArrayPosition.CLOSED

    def _leave_string(self) -> bool:
        rest = _REST_OF_STRING.match(self._buffer, self._scanned)
        end = self._scanned if rest is None else rest.end()
        # A backslash at the very end waits for what it escapes.
        self._scanned = end
        if end == len(self._buffer) or self._buffer[end] != _QUOTE:
            return False
        self._scanned += 1
        self._in_string = False
        return True

    def _is_no_array(self, position: int) -> bool:
        """Outside of the array, only space may stand before its opening bracket."""
        return bool(self._buffer[self._scanned : position].strip()) or self._buffer[position : position + 1] not in b"["

    def _step(self, symbol: int, start: int, *, relayable: int) -> int:
        """Take one structural symbol; return where an element ends with it, else 0. Raises `FrameUnreadable`."""
        if symbol == _QUOTE:
            self._in_string = True
            return 0
        if symbol in _OPENING:
            if self._depth == _ARRAY_DEPTH:
                self._element_start = start
            self._depth += 1
            return 0
        self._depth -= 1
        if self._depth == 0:
            self.position = ArrayPosition.CLOSED
            self._on_close()
            return 0
        if self._depth > _ARRAY_DEPTH or self._element_start is None:
            return 0
        element = bytes(self._buffer[self._element_start : start + 1])
        document = load_mapping(element)
        if document is None:  # relayed, nothing behind it could make a valid array of it, not even an error
            readable = bytes(self._buffer[:relayable])
            raise FrameUnreadable("an element of its stream is not a JSON object", readable=readable)
        self._take(element, document)
        self._element_start = None
        return start + 1

    def _take(self, element: bytes, document: dict[str, Any]) -> None:
        self.position = ArrayPosition.INSIDE
        for content in self._content.findall(element):
            self.content_bytes += len(content)
        self._read(b"", document)

    def _on_close(self) -> None:
        """The array is closed."""

    def _read(self, event: bytes, document: dict[str, Any]) -> bool:
        raise NotImplementedError
