"""How one vector lies in the store: as the numbers that it is, where that loses nothing. Pure.

As text a number takes up to 22 bytes; most providers' numbers are 32-bit ones, which take four.
"""

from __future__ import annotations

import sys
from array import array
from typing import Any, Literal

import orjson

Kind = Literal["f4", "f8", "json"]


def is_vector(value: object) -> bool:
    """Numbers and nothing else, or their bytes in base64."""
    if isinstance(value, list):
        return bool(value) and set(map(type, value)) <= {float, int}
    return isinstance(value, str) and bool(value)


def pack(value: Any) -> tuple[Kind, bytes]:
    """A vector, or whatever else a provider gives in its place, as bytes."""
    if isinstance(value, list) and value and all(type(number) is float for number in value):
        try:
            short = array("f", value)
        except OverflowError:
            short = array("f")
        if short.tolist() == value:
            return "f4", _little(short).tobytes()
        return "f8", _little(array("d", value)).tobytes()
    return "json", orjson.dumps(value)


def unpack(kind: str, packed: bytes) -> bytes:
    """The same as JSON, number for number. Raises `ValueError`."""
    if kind == "json":
        return packed
    if kind not in ("f4", "f8"):
        raise ValueError("a kind of vector that is not known here")
    numbers = array("f" if kind == "f4" else "d")
    numbers.frombytes(packed)
    return orjson.dumps(_little(numbers).tolist())


def _little(numbers: array[float]) -> array[float]:
    """Between this machine's order of bytes and the store's."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
