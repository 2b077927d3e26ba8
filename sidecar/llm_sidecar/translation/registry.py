"""The translators, each imported when it is first needed: many pods never need any."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from llm_sidecar.contract.names import API

if TYPE_CHECKING:
    from llm_sidecar.translation.base import EmbeddingTranslator, Translator

_HERE: Final = "llm_sidecar.translation"
GENERATING: Final[Mapping[API, str]] = MappingProxyType(
    {
        API.OPENAI_CHAT: f"{_HERE}.openai_chat:OpenAIChatTranslator",
        API.OPENAI_RESPONSES: f"{_HERE}.openai_responses:OpenAIResponsesTranslator",
        API.ANTHROPIC_MESSAGES: f"{_HERE}.anthropic_messages:AnthropicTranslator",
        API.GEMINI: f"{_HERE}.gemini:GeminiTranslator",
    }
)
"""`module:class` by language."""
EMBEDDING: Final[Mapping[API, str]] = MappingProxyType(
    {
        API.OPENAI_EMBEDDINGS: f"{_HERE}.openai_embeddings:OpenAIEmbeddingsTranslator",
        API.GEMINI: f"{_HERE}.gemini_embeddings:GeminiEmbeddingsTranslator",
    }
)


@cache
def translator(api: API) -> Translator:
    """The translator of a language that generates. Raises `KeyError`."""
    made: Translator = pkgutil.resolve_name(GENERATING[api])()
    return made


@cache
def embedding_translator(api: API) -> EmbeddingTranslator:
    """The translator of a language that embeds. Raises `KeyError`."""
    made: EmbeddingTranslator = pkgutil.resolve_name(EMBEDDING[api])()
    return made


def load(languages: Iterable[API]) -> None:
    """Import these languages' translators now: it takes a tenth of a second, which no request should wait for."""
    for language in languages:
        if language in GENERATING:
            translator(language)
