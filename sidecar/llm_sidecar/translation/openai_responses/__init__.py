"""OpenAI's Responses API. Decoding and encoding again gives the same document, without any default put in.

What came from another provider by way of us (see `marks.py`) goes on the way back to OpenAI, which would not know it:
reasoning, images, signatures of tool calls, ids of items.
"""

# ruff: noqa: ARG002 - an implementation keeps the signature of its protocol

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Call
from llm_sidecar.translation.answer import Answer
from llm_sidecar.translation.base import EncodedRequest, StreamDecoder, StreamEncoder
from llm_sidecar.translation.conversation import Conversation
from llm_sidecar.translation.losses import Losses
from llm_sidecar.translation.openai_responses import answers, requests
from llm_sidecar.translation.openai_responses.foreign_requests import encode_foreign
from llm_sidecar.translation.openai_responses.stream_decoder import ResponsesStreamDecoder
from llm_sidecar.translation.openai_responses.stream_encoder import ResponsesStreamEncoder


class OpenAIResponsesTranslator:
    """See `Translator`."""

    api: API = API.OPENAI_RESPONSES

    def decode_request(self, call: Call, document: Mapping[str, Any]) -> Conversation:
        """Raises `Undecodable`."""
        return requests.decode_request(document)

    def encode_request(self, conversation: Conversation, *, model: str, losses: Losses) -> EncodedRequest:
        """The request for `model`. Raises `Untranslatable`."""
        encode = requests.encode_own if conversation.api is self.api else encode_foreign
        return EncodedRequest(path="/responses", document=encode(conversation, model=model, losses=losses))

    def decode_answer(self, document: Mapping[str, Any]) -> Answer:
        """Raises `Undecodable`."""
        return answers.decode_answer(document)

    def encode_answer(self, answer: Answer, *, losses: Losses) -> Mapping[str, Any]:
        """The answer's document. Raises `Untranslatable`."""
        return answers.encode_answer(answer, losses)

    def stream_decoder(self, *, max_frame_bytes: int) -> StreamDecoder:
        """Reads one stream."""
        return ResponsesStreamDecoder(max_frame_bytes=max_frame_bytes)

    def stream_encoder(self, conversation: Conversation, *, losses: Losses) -> StreamEncoder:
        """Writes one stream."""
        return ResponsesStreamEncoder(conversation, losses=losses)
