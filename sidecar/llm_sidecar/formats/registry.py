"""The wire languages that this proxy speaks: the one place that names them all."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from llm_sidecar.contract.names import API
from llm_sidecar.formats.anthropic_messages import AnthropicMessages
from llm_sidecar.formats.base import Format
from llm_sidecar.formats.gemini import Gemini
from llm_sidecar.formats.openai_chat import OpenAIChat
from llm_sidecar.formats.openai_embeddings import OpenAIEmbeddings
from llm_sidecar.formats.openai_responses import OpenAIResponses
from llm_sidecar.formats.recognise import Family

_ALL: Final[tuple[Format, ...]] = (
    OpenAIChat(),
    OpenAIResponses(),
    OpenAIEmbeddings(),
    AnthropicMessages(),
    Gemini(),
)

FORMATS: Final[Mapping[API, Format]] = MappingProxyType({wire_format.api: wire_format for wire_format in _ALL})
"""One stateless instance for each API."""

FAMILY_FORMATS: Final[Mapping[Family, Format]] = MappingProxyType(
    {
        Family.OPENAI: FORMATS[API.OPENAI_CHAT],
        Family.ANTHROPIC: FORMATS[API.ANTHROPIC_MESSAGES],
        Family.GEMINI: FORMATS[API.GEMINI],
    }
)
"""Whose `error_body` answers where a request is no call of any API: unknown paths, passthrough, model lists."""
