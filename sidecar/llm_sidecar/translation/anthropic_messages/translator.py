"""The translator itself: it only says which file does what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Call
from llm_sidecar.translation.answer import Answer
from llm_sidecar.translation.anthropic_messages import answers, foreign_requests, requests
from llm_sidecar.translation.anthropic_messages.stream_decoder import MessagesStreamDecoder
from llm_sidecar.translation.anthropic_messages.stream_encoder import MessagesStreamEncoder
from llm_sidecar.translation.base import EncodedRequest
from llm_sidecar.translation.conversation import Conversation
from llm_sidecar.translation.losses import Losses


class AnthropicTranslator:
    """`POST /v1/messages`; see `Translator`."""

    api: API = API.ANTHROPIC_MESSAGES

    def decode_request(self, call: Call, document: Mapping[str, Any]) -> Conversation:  # noqa: ARG002 - the protocol's
        """Read a request. Raises `Undecodable`."""
        return requests.decode(document)

    def encode_request(self, conversation: Conversation, *, model: str, losses: Losses) -> EncodedRequest:
        """Write a request for `model`."""
        if conversation.api is self.api:
            return requests.encode(conversation, model=model, losses=losses)
        return foreign_requests.encode(conversation, model=model, losses=losses)

    def decode_answer(self, document: Mapping[str, Any]) -> Answer:
        """Read an answer. Raises `Undecodable`."""
        return answers.decode(document)

    def encode_answer(self, answer: Answer, *, losses: Losses) -> Mapping[str, Any]:
        """Write an answer."""
        return answers.encode(answer, losses=losses)

    def stream_decoder(self, *, max_frame_bytes: int) -> MessagesStreamDecoder:
        """Read one stream."""
        return MessagesStreamDecoder(max_frame_bytes=max_frame_bytes)

    def stream_encoder(
        self,
        conversation: Conversation,  # noqa: ARG002 - the protocol's; streams of this API are all alike
        *,
        losses: Losses,
    ) -> MessagesStreamEncoder:
        """Write one stream."""
        return MessagesStreamEncoder(losses=losses)
