"""What a wire language's translator does. See the package's docstring for the way through it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Call
from llm_sidecar.translation.answer import Answer
from llm_sidecar.translation.conversation import Conversation
from llm_sidecar.translation.embeddings import EmbeddingAnswer, EmbeddingRequest
from llm_sidecar.translation.events import Event
from llm_sidecar.translation.losses import Losses


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRequest:
    """A request as a provider of this language takes it."""

    path: str
    """As `Call.path`: what is appended to the base URL."""
    document: Mapping[str, Any]
    query: str = ""
    """Without the `?`."""
    headers: tuple[tuple[str, str], ...] = ()
    """What this language needs beside the provider's key: its version, say, or a beta that a field belongs to."""


class StreamDecoder(Protocol):
    """Reads one provider stream. Pure; keeps at most `max_frame_bytes` of an unfinished frame."""

    def feed(self, chunk: bytes) -> list[Event]:
        """Events of the frames that are complete now, however the bytes are cut.

        Raises `FrameTooLarge`, and `Undecodable` for a frame that is not of this language.
        """
        ...

    def finish(self) -> list[Event]:
        """The provider closed the stream: events of a last frame that is whole but for its empty line."""
        ...


class StreamEncoder(Protocol):
    """Writes one stream for an application."""

    def encode(self, events: Iterable[Event]) -> bytes:
        """The frames for these events; may be empty. What cannot be said goes into the losses given at its making."""
        ...

    def error_tail(self, status: int, code: str, message: str) -> bytes:
        """What ends the stream written so far so that the SDK raises."""
        ...


class Translator(Protocol):
    """One wire language that generates. Stateless: one instance serves all requests.

    Encoders raise `Untranslatable` for what this language cannot say and must, and note the harmless rest in `losses`.
    """

    api: API

    def decode_request(self, call: Call, document: Mapping[str, Any]) -> Conversation:
        """Raises `Undecodable`."""
        ...

    def encode_request(self, conversation: Conversation, *, model: str, losses: Losses) -> EncodedRequest:
        """The request for `model`. Streams always ask for their usage."""
        ...

    def decode_answer(self, document: Mapping[str, Any]) -> Answer:
        """Raises `Undecodable`."""
        ...

    def encode_answer(self, answer: Answer, *, losses: Losses) -> Mapping[str, Any]:
        """The answer's document."""
        ...

    def stream_decoder(self, *, max_frame_bytes: int) -> StreamDecoder:
        """Reads one stream."""
        ...

    def stream_encoder(self, conversation: Conversation, *, losses: Losses) -> StreamEncoder:
        """Writes one stream, as the application asked for it in `conversation` (usage or not; SSE or JSON array)."""
        ...


class EmbeddingTranslator(Protocol):
    """One wire language that embeds."""

    api: API

    def decode_request(self, call: Call, document: Mapping[str, Any]) -> EmbeddingRequest:
        """Raises `Undecodable`."""
        ...

    def encode_request(self, request: EmbeddingRequest, *, model: str, losses: Losses) -> EncodedRequest:
        """The request for `model`."""
        ...

    def decode_answer(self, request: EmbeddingRequest, document: Mapping[str, Any]) -> EmbeddingAnswer:
        """Raises `Undecodable`."""
        ...

    def encode_answer(self, request: EmbeddingRequest, answer: EmbeddingAnswer, *, losses: Losses) -> Mapping[str, Any]:
        """The answer's document, in the form that `request` asked for."""
        ...
