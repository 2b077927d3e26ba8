"""Keeping a stream while it is relayed, so that a whole answer can be made of it in the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from llm_sidecar.cache.streams.forms import assembled
from llm_sidecar.errors import Overloaded

if TYPE_CHECKING:
    from llm_sidecar.budget import Held
    from llm_sidecar.formats.base import Call, StreamError, StreamObserver, Usage

MAX_STREAM_BYTES: Final = 4 * 1024 * 1024
"""A stream is many times as large as the answer in it: chunks of a few letters tell their model, time and id anew."""


class RecordingObserver:
    """A `StreamObserver` that keeps what the provider sent, as long as there is room; else it only observes."""

    __slots__ = ("_bring_back", "_call", "_held", "_observer", "_pieces", "_size_bytes")

    def __init__(
        self, observer: StreamObserver, held: Held, *, call: Call, bring_back: Callable[[bytes], bytes | None] | None
    ) -> None:
        """`call`: as the provider got it. `bring_back`: turns its plain answer into the application's language."""
        self._observer = observer
        self._held = held
        self._call = call
        self._bring_back = bring_back
        self._pieces: list[bytes] | None = []
        self._size_bytes = 0

    @property
    def committed(self) -> bool:
        """See `StreamObserver`."""
        return self._observer.committed

    @property
    def ended(self) -> bool:
        """See `StreamObserver`."""
        return self._observer.ended

    @property
    def error(self) -> StreamError | None:
        """See `StreamObserver`."""
        return self._observer.error

    @property
    def usage(self) -> Usage | None:
        """See `StreamObserver`."""
        return self._observer.usage

    @property
    def content_bytes(self) -> int:
        """See `StreamObserver`."""
        return self._observer.content_bytes

    def feed(self, chunk: bytes) -> bytes:
        """See `StreamObserver`."""
        if self._pieces is not None:
            self._keep(self._pieces, chunk)
        return self._observer.feed(chunk)

    def finish(self) -> bytes:
        """See `StreamObserver`."""
        return self._observer.finish()

    def error_tail(self, status: int, code: str, message: str) -> bytes:
        """See `StreamObserver`."""
        return self._observer.error_tail(status, code, message)

    def _keep(self, pieces: list[bytes], chunk: bytes) -> None:
        self._size_bytes += len(chunk)
        try:
            if self._size_bytes <= MAX_STREAM_BYTES:
                self._held.take(len(chunk))
                pieces.append(chunk)
                return
        except Overloaded:  # what is only kept for later must not fail what is asked for now
            pass
        self._pieces = None

    @property
    def size_bytes(self) -> int:
        """Of the stream."""
        return self._size_bytes

    @property
    def is_whole(self) -> bool:
        """True where the stream came to its end, and all of it is here."""
        return self._pieces is not None and self._observer.ended and self._observer.error is None

    def plain_answer(self) -> bytes | None:
        """The plain answer that the stream was, in the application's language; None where not all is understood."""
        if not self.is_whole or self._pieces is None:
            return None
        answer = assembled(self._call, b"".join(self._pieces))
        return answer if answer is None or self._bring_back is None else self._bring_back(answer)
