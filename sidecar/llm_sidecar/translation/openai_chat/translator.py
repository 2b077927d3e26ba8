"""See `llm_sidecar.translation.base.Translator`."""

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
from llm_sidecar.translation.openai_chat import answers, requests, shape
from llm_sidecar.translation.openai_chat.stream_decoder import ChatStreamDecoder
from llm_sidecar.translation.openai_chat.stream_encoder import ChatStreamEncoder


class OpenAIChatTranslator:
    """`POST /v1/chat/completions`."""

    api: API = API.OPENAI_CHAT

    def decode_request(self, call: Call, document: Mapping[str, Any]) -> Conversation:
        """Raises `Undecodable`."""
        return requests.decode_request(document)

    def encode_request(self, conversation: Conversation, *, model: str, losses: Losses) -> EncodedRequest:
        """The request for `model`. Raises `Untranslatable`."""
        if conversation.api is not self.api:
            conversation = shape.shaped(conversation, losses)
        return requests.encode_request(conversation, model)

    def decode_answer(self, document: Mapping[str, Any]) -> Answer:
        """Raises `Undecodable`."""
        return answers.decode_answer(document)

    def encode_answer(self, answer: Answer, *, losses: Losses) -> Mapping[str, Any]:
        """The answer's document. Raises `Untranslatable`."""
        return answers.encode_answer(answer, losses)

    def stream_decoder(self, *, max_frame_bytes: int) -> StreamDecoder:
        """Reads one stream."""
        return ChatStreamDecoder(max_frame_bytes=max_frame_bytes)

    def stream_encoder(self, conversation: Conversation, *, losses: Losses) -> StreamEncoder:
        """Writes one stream; with the usage chunk if the application asked for it."""
        return ChatStreamEncoder(include_usage=requests.asks_for_usage(conversation), losses=losses)
