"""A provider's stream in one language, followed as such and relayed in another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_sidecar.formats.base import FrameUnreadable
from llm_sidecar.translation.answer import MALFORMED_CALL, Finish
from llm_sidecar.translation.events import ChoiceEnded
from llm_sidecar.translation.losses import Undecodable

if TYPE_CHECKING:
    from llm_sidecar.formats.base import StreamError, StreamObserver, Usage
    from llm_sidecar.translation.base import StreamDecoder, StreamEncoder


class TranslatingObserver:
    """A `StreamObserver` whose bytes to relay are those of the application's language.

    What happens in the stream (first content, end, error, usage) is told by the provider's own observer: so a
    translated stream counts, fails and ends by the very same rules as one that passes.
    """

    __slots__ = ("_decoder", "_encoder", "_is_garbled", "_provider_side")

    def __init__(self, provider_side: StreamObserver, decoder: StreamDecoder, encoder: StreamEncoder) -> None:
        self._provider_side = provider_side
        self._decoder = decoder
        self._encoder = encoder
        self._is_garbled = False
        """It ended as the provider's language says, and its answer is none in any other."""

    @property
    def committed(self) -> bool:
        """See `StreamObserver`."""
        return self._provider_side.committed

    @property
    def ended(self) -> bool:
        """See `StreamObserver`."""
        return self._provider_side.ended and not self._is_garbled

    @property
    def error(self) -> StreamError | None:
        """See `StreamObserver`."""
        return self._provider_side.error

    @property
    def usage(self) -> Usage | None:
        """See `StreamObserver`."""
        return self._provider_side.usage

    @property
    def content_bytes(self) -> int:
        """See `StreamObserver`."""
        return self._provider_side.content_bytes

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; return those to relay now. Raises `FrameTooLarge`, `FrameUnreadable`."""
        try:
            frames = self._provider_side.feed(chunk)
        except FrameUnreadable as error:  # what came before it is still in the provider's language
            raise FrameUnreadable(str(error), readable=self._translated(error.readable, last=False)) from error
        return self._translated(frames, last=False)

    def finish(self) -> bytes:
        """The provider closed the stream. Raises `FrameUnreadable`."""
        return b"" if self._is_garbled else self._translated(self._provider_side.finish(), last=True)

    def error_tail(self, status: int, code: str, message: str) -> bytes:
        """What ends the stream relayed so far so that the SDK raises."""
        return self._encoder.error_tail(status, code, message)

    def _translated(self, frames: bytes, *, last: bool) -> bytes:
        try:
            events = self._decoder.feed(frames) if frames else []
            if last:
                events += self._decoder.finish()
        except Undecodable as error:
            raise FrameUnreadable(str(error)) from error
        for position, event in enumerate(events):
            if isinstance(event, ChoiceEnded) and event.finish is Finish.MALFORMED_CALL:
                self._is_garbled = True
                raise FrameUnreadable(MALFORMED_CALL, readable=self._encoder.encode(events[:position]))
        return self._encoder.encode(events) if events else b""
