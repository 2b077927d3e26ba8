"""How much memory a body will take once it is parsed, told before it is.

Three bytes (`[],`) become seventy, and one emoji makes each character of its string four bytes wide: a bound on bodies
alone is none on memory. All that looks at single bytes is a method of `bytes`.
"""

from __future__ import annotations

import re
from typing import Final

_WINDOW_BYTES: Final = 64 * 1024
# Measured with CPython 3.11 to 3.13 on 64 bits, and rounded up: headers of the garbage collector, growth of tables.
_LIST_BYTES: Final = 72
_DICT_BYTES: Final = 184
_MEMBERS_WITHIN: Final = 4
"""For which a dict's own size is enough."""
_MEMBER_BYTES: Final = 40
_KEY_BYTES: Final = 16
"""Less than other strings: the parser keeps one object for the same short key in many objects."""
_SLOT_BYTES: Final = 8
_NUMBER_BYTES: Final = 32
_STRING_BYTES: Final = 58
# First bytes of characters beyond the basic plane: they stand nowhere else in UTF-8.
_FOUR_BYTES: Final = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")
_ESCAPED_SURROGATE: Final = re.compile(rb"\\u[dD][89abAB]")


def estimated_parsed_bytes(body: bytes, *, enough_bytes: int | None = None) -> int:
    """About what `orjson.loads` would allocate; of bytes that are no JSON, some number.

    With `enough_bytes`, counting ends soon after the estimate has passed it.
    """
    count = _Count()
    position = 0
    while position < len(body):
        window = body[position : position + _WINDOW_BYTES]
        if window.endswith(b"\\") and (len(window) - len(window.rstrip(b"\\"))) % 2:  # an escape must not be cut
            window = body[position : position + len(window) + 1]
        position += len(window)
        count.read(window)
        if enough_bytes is not None and count.total_bytes > enough_bytes:
            break
    return count.total_bytes


class _Count:
    """What has been seen so far. A string may go on from window to window."""

    __slots__ = ("_open_characters", "_open_width", "_within_string", "total_bytes")

    def __init__(self) -> None:
        self.total_bytes = 0
        self._within_string = False
        self._open_characters = 0
        self._open_width = 1

    def read(self, window: bytes) -> None:
        """Count the next piece of the body. No escape may be cut by its ends."""
        if b"\\" in window:
            # One byte for two of the body: escaped quotes are out of the way, the length stays about the same.
            window = window.replace(b"\\\\", b"_").replace(b'\\"', b"_")
        parts = window.split(b'"')
        began_within = self._within_string
        self._within_string = began_within == (len(parts) % 2 == 1)
        self._read_structure(b"".join(parts[began_within::2]), len(parts) // 2)
        texts = parts[not began_within :: 2]
        if texts and began_within:
            self._continue_string(texts[0])
            del texts[0]
        if self._within_string and not (began_within and len(parts) == 1):
            self._begin_string(texts.pop())
        self.total_bytes += _text_bytes(window, texts)

    def _read_structure(self, outside: bytes, strings: int) -> None:
        lists, dicts = outside.count(b"["), outside.count(b"{")
        commas, members = outside.count(b","), outside.count(b":")
        texts = max(0, strings - members)
        # Values are one more than commas in each container, which is a value itself: what is no string is a scalar.
        scalars = max(0, commas - texts)
        self.total_bytes += (
            lists * _LIST_BYTES
            + dicts * _DICT_BYTES
            + max(0, members - dicts * _MEMBERS_WITHIN) * _MEMBER_BYTES
            + members * _KEY_BYTES
            + max(0, commas - max(0, members - dicts)) * _SLOT_BYTES
            + scalars * _NUMBER_BYTES
            + texts * _STRING_BYTES
        )

    def _begin_string(self, text: bytes) -> None:
        self._open_characters, self._open_width = 0, 1
        self._continue_string(text)

    def _continue_string(self, text: bytes) -> None:
        """Add to a string: where a wider character comes, all before it become as wide."""
        characters, width = _measure(text)
        wider = max(width, self._open_width)
        before = self._open_characters * self._open_width
        self._open_characters += characters
        self._open_width = wider
        self.total_bytes += self._open_characters * wider - before


def _text_bytes(window: bytes, texts: list[bytes]) -> int:
    if window.isascii() and b"\\" not in window:
        return sum(map(len, texts))
    return sum(characters * width for characters, width in map(_measure, texts))


def _measure(text: bytes) -> tuple[int, int]:
    """How many characters a piece of a string has, and how many bytes the widest of them takes."""
    escapes = text.count(b"\\u") if b"\\" in text else 0
    if escapes:
        width = 4 if _ESCAPED_SURROGATE.search(text) else 2
    elif text.isascii():
        return len(text), 1
    else:
        width = 2
    if not text.isascii() and any(first in text for first in _FOUR_BYTES):
        width = 4
    return len(text.decode(errors="replace")) - 5 * escapes, width
