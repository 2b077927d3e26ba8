"""One call brought to a provider of another language, and its answer brought back.

To everything between here and the provider (attempt, observer, usage, failure), a translated call is a call in the
provider's own language. Only what reaches the application is translated back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, MalformedRequest, ParsedRequest
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.translation.answer import check_readable
from llm_sidecar.translation.losses import Losses, Undecodable, Untranslatable
from llm_sidecar.translation.registry import embedding_translator, translator
from llm_sidecar.translation.stream import TranslatingObserver

if TYPE_CHECKING:
    from llm_sidecar.formats.base import Format, StreamObserver
    from llm_sidecar.providers.base import Headers
    from llm_sidecar.translation.base import EncodedRequest
    from llm_sidecar.translation.conversation import Conversation
    from llm_sidecar.translation.embeddings import EmbeddingRequest

_HEADERS: Final[tuple[tuple[str, str], ...]] = (
    ("Content-Type", "application/json"),
    ("Accept", "*/*"),
    ("Accept-Encoding", "identity"),
    ("User-Agent", "llm-sidecar"),
)
"""Sent with a translated request: the application's own headers speak of another API."""


_MARKS: Final[Mapping[API, bytes]] = MappingProxyType(
    {API.ANTHROPIC_MESSAGES: b'"llm-sidecar:', API.OPENAI_RESPONSES: b"_llmsidecar_"}
)
"""What applications were given to keep for other providers bears these marks: `anthropic_messages/signatures.py`,
`openai_responses/marks.py`."""


def holds_foreign_marks(asked: ParsedRequest) -> bool:
    """True where a request may hold what only other providers can read, so that it cannot go as it came."""
    mark = _MARKS.get(asked.call.api)
    return mark is not None and mark in asked.body and asked.call.type is RequestType.GENERATION


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatedCall:
    """A call as the provider gets it."""

    wire: Format
    """The provider's language."""
    parsed: ParsedRequest
    """The request in that language."""
    encoded: EncodedRequest
    losses: Losses
    """What was left out so far: a stream may add to it until its end."""
    origin: Translations

    @property
    def headers(self) -> Headers:
        """To send."""
        return [*_HEADERS, *self.encoded.headers]

    @property
    def stream_headers(self) -> Headers:
        """Of the answer, where it is a stream."""
        is_array = self.origin.asked.call.stream_is_json_array
        return [("Content-Type", "application/json" if is_array else "text/event-stream; charset=utf-8")]

    def observe(self, *, max_frame_bytes: int) -> StreamObserver:
        """Follow the provider's stream, and relay it in the application's language."""
        conversation = self.origin.conversation
        return TranslatingObserver(
            self.wire.observe_stream(self.parsed, hide_usage=False, max_frame_bytes=max_frame_bytes),
            translator(self.wire.api).stream_decoder(max_frame_bytes=max_frame_bytes),
            translator(conversation.api).stream_encoder(conversation, losses=self.losses),
        )

    def answer(self, body: bytes) -> bytes:
        """A whole answer in the application's language. Raises `Undecodable`, `Untranslatable`."""
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Undecodable("the answer is not JSON") from error
        return orjson.dumps(self._answer(document))

    def _answer(self, document: Any) -> Mapping[str, Any]:
        origin = self.origin
        if origin.embeds:
            request = origin.embedding
            vectors = embedding_translator(self.wire.api).decode_answer(request, document)
            return embedding_translator(request.api).encode_answer(request, vectors, losses=self.losses)
        answer = translator(self.wire.api).decode_answer(document)
        check_readable(answer)
        return translator(origin.conversation.api).encode_answer(answer, losses=self.losses)


class Translations:
    """One request, decoded once, however many providers of other languages it is tried at."""

    __slots__ = ("_conversation", "_embedding", "asked", "embeds")

    def __init__(self, asked: ParsedRequest) -> None:
        self.asked = asked
        self._conversation: Conversation | None = None
        self._embedding: EmbeddingRequest | None = None
        self.embeds = asked.call.type is RequestType.EMBEDDINGS

    @property
    def conversation(self) -> Conversation:
        """The request to generate. Raises `Untranslatable`."""
        if self._conversation is None:
            asked = self.asked
            self._conversation = _decoded(lambda: translator(asked.call.api).decode_request(asked.call, asked.document))
        return self._conversation

    @property
    def embedding(self) -> EmbeddingRequest:
        """The request to embed. Raises `Untranslatable`."""
        if self._embedding is None:
            asked = self.asked
            self._embedding = _decoded(
                lambda: embedding_translator(asked.call.api).decode_request(asked.call, asked.document)
            )
        return self._embedding

    def to(self, api: API, *, model: str) -> TranslatedCall:
        """The request for a provider's model in its language. Raises `Untranslatable`."""
        losses = Losses()
        if self.embeds:
            encoded = embedding_translator(api).encode_request(self.embedding, model=model, losses=losses)
        else:
            encoded = translator(api).encode_request(self.conversation, model=model, losses=losses)
        asked = self.asked
        in_path = api is API.GEMINI  # tells model and stream in its path
        call = Call(
            api=api,
            type=asked.call.type,
            path=encoded.path,
            model=model if in_path else None,
            stream=asked.stream if in_path else None,
        )
        wire = FORMATS[api]
        try:
            parsed = wire.parse_request(call, orjson.dumps(encoded.document))
        except (MalformedRequest, orjson.JSONEncodeError) as error:  # nested too deep, or a number beyond 64 bits
            raise Untranslatable("a request that cannot be written in that language") from error
        return TranslatedCall(wire=wire, parsed=parsed, encoded=encoded, losses=losses, origin=self)


def _decoded(decode: Any) -> Any:
    """A request that its own language's reader cannot take is for a provider of that language to judge."""
    try:
        return decode()
    except Undecodable as error:
        raise Untranslatable(f"a request of which {error}") from error
