"""See the package's docstring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Call
from llm_sidecar.translation.answer import Answer
from llm_sidecar.translation.base import EncodedRequest, StreamDecoder, StreamEncoder
from llm_sidecar.translation.conversation import Conversation
from llm_sidecar.translation.gemini.answers import decode_answer, encode_answer
from llm_sidecar.translation.gemini.request_encoding import encode_request
from llm_sidecar.translation.gemini.requests import JSON_ARRAY, decode_request
from llm_sidecar.translation.gemini.stream_encoding import GeminiStreamEncoder
from llm_sidecar.translation.gemini.streams import GeminiStreamDecoder
from llm_sidecar.translation.losses import Losses


class GeminiTranslator:
    """`POST /v1[beta]/models/M:generateContent` and `:streamGenerateContent`."""

    api: API = API.GEMINI

    def decode_request(self, call: Call, document: Mapping[str, Any]) -> Conversation:
        """See `Translator`, here and below."""
        return decode_request(call, document)

    def encode_request(self, conversation: Conversation, *, model: str, losses: Losses) -> EncodedRequest:
        """The request for `model`, which also decides what can be said: older ones refuse what newer ones know."""
        return encode_request(conversation, model=model, losses=losses)

    def decode_answer(self, document: Mapping[str, Any]) -> Answer:
        """A whole answer."""
        return decode_answer(document)

    def encode_answer(self, answer: Answer, *, losses: Losses) -> Mapping[str, Any]:
        """The answer's document."""
        return encode_answer(answer, losses=losses)

    def stream_decoder(self, *, max_frame_bytes: int) -> StreamDecoder:
        """Reads events; see `GeminiStreamDecoder`."""
        return GeminiStreamDecoder(max_frame_bytes=max_frame_bytes)

    def stream_encoder(self, conversation: Conversation, *, losses: Losses) -> StreamEncoder:
        """Writes events, or a JSON array for an application that did not ask for events."""
        return GeminiStreamEncoder(json_array=bool(conversation.extra.get(JSON_ARRAY)), losses=losses)
