"""Undoing a compression that nobody asked for, a bounded piece at a time: a few bytes may unpack to gigabytes."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE_BYTES: Final = 256 * 1024

_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class Undecodable(ValueError):
    """Not what its content-encoding says."""


class Decoder:
    """Takes compressed bytes, gives plain ones."""

    __slots__ = ("_begin", "_has_more", "_inflating", "_pending")

    def __init__(self, begin: Callable[[bytes], zlib._Decompress]) -> None:
        self._begin = begin
        self._inflating: zlib._Decompress | None = None
        self._pending = b""
        self._has_more = False

    def feed(self, data: bytes) -> None:
        """Take the next compressed bytes."""
        self._pending += data

    def read(self) -> bytes:
        """Plain bytes; empty where more must be fed first. Raises `Undecodable`."""
        while self._pending or self._has_more:
            if self._inflating is None:
                self._inflating = self._begin(self._pending)
            inflating = self._inflating
            try:
                plain = inflating.decompress(self._pending, PIECE_BYTES)
            except zlib.error as error:
                raise Undecodable from error
            self._pending = inflating.unconsumed_tail
            self._has_more = len(plain) == PIECE_BYTES and not inflating.eof  # in zlib's window, all input taken
            if inflating.eof:  # gzip may be several members, one behind the other
                self._pending, self._inflating = inflating.unused_data, None
            if plain:
                return plain
        return b""

    def finish(self) -> None:
        """There is no more. Raises `Undecodable` where the compressed bytes broke off."""
        if self._inflating is not None:
            raise Undecodable


def decoder_for(encoding: str) -> Decoder | None:
    """The decoder for a content-encoding; None for one that is no compression. Raises `Undecodable`."""
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return Decoder(lambda _data: zlib.decompressobj(_GZIP_WINDOW))
        case "deflate":
            return Decoder(_begin_deflate)
        case _:
            raise Undecodable


def _begin_deflate(data: bytes) -> zlib._Decompress:
    # The name means zlib's format; some servers send the bare one all the same. The low four bits tell.
    return zlib.decompressobj(zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS)
