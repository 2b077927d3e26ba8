"""Which endpoint a path means, also where three APIs share it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from llm_sidecar.simulate.errors import Family

if TYPE_CHECKING:
    from collections.abc import Mapping


class Endpoint(StrEnum):
    """What can be asked of the simulator; the value is the `api` of the request log."""

    CHAT = "openai.chat"
    RESPONSES = "openai.responses"
    RESPONSE = "openai.response"
    INPUT_TOKENS = "openai.input_tokens"
    EMBEDDINGS = "openai.embeddings"
    MODERATIONS = "openai.moderations"
    TRANSCRIPTIONS = "openai.transcriptions"
    FILE_CONTENT = "openai.file_content"
    MESSAGES = "anthropic.messages"
    COUNT_TOKENS = "anthropic.count_tokens"
    GENERATE = "gemini.generateContent"
    STREAM_GENERATE = "gemini.streamGenerateContent"
    GEMINI_COUNT = "gemini.countTokens"
    EMBED = "gemini.embedContent"
    BATCH_EMBED = "gemini.batchEmbedContents"
    MODELS = "models"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint, and what its path names."""

    family: Family
    endpoint: Endpoint | None
    """None where the provider knows no such path."""
    methods: tuple[str, ...] = ("POST",)
    name: str = ""
    """Of the model, response or file in the path."""
    version: str = "v1"


_FIXED: Final = {
    "chat/completions": (Family.OPENAI, Endpoint.CHAT),
    "responses": (Family.OPENAI, Endpoint.RESPONSES),
    "responses/input_tokens": (Family.OPENAI, Endpoint.INPUT_TOKENS),
    "embeddings": (Family.OPENAI, Endpoint.EMBEDDINGS),
    "moderations": (Family.OPENAI, Endpoint.MODERATIONS),
    "audio/transcriptions": (Family.OPENAI, Endpoint.TRANSCRIPTIONS),
    "messages": (Family.ANTHROPIC, Endpoint.MESSAGES),
    "messages/count_tokens": (Family.ANTHROPIC, Endpoint.COUNT_TOKENS),
}
_VERBS: Final = {
    endpoint.value.removeprefix("gemini."): endpoint for endpoint in Endpoint if endpoint.startswith("gemini.")
}
# Whatever stands before the version is ignored: OpenAI-compatible servers live under prefixes such as `/openai/v1`.
_VERSIONED: Final = re.compile(r"(?:/[^/]+)*?/(v1beta|v1)/(.+?)/?$")


def family_of(version: str, headers: Mapping[str, str]) -> Family:
    """Tell whose `models` list is asked for."""
    if "anthropic-version" in headers:
        return Family.ANTHROPIC
    return Family.GEMINI if version == "v1beta" or "x-goog-api-key" in headers else Family.OPENAI


def match(path: str, headers: Mapping[str, str], *, has_query_key: bool = False) -> Route:
    """Find the route of a path, or the family in whose words to say that there is none."""
    found = _VERSIONED.match(path)
    if found is None:
        return Route(Family.OPENAI, None)
    version, rest = found[1], found[2]
    family = Family.GEMINI if has_query_key else family_of(version, headers)
    if rest in _FIXED:
        return Route(*_FIXED[rest], version=version)
    first, _, name = rest.partition("/")
    if first == "models":
        model, colon, verb = name.rpartition(":")
        if colon and verb in _VERBS:
            return Route(Family.GEMINI, _VERBS[verb], name=model, version=version)
        endpoint = Endpoint.MODEL if name else Endpoint.MODELS
        return Route(family, endpoint, ("GET",), name, version)
    if first == "responses" and name and "/" not in name:
        return Route(Family.OPENAI, Endpoint.RESPONSE, ("GET", "DELETE"), name, version)
    if first == "files" and name.endswith("/content"):
        return Route(Family.OPENAI, Endpoint.FILE_CONTENT, ("GET",), name.removesuffix("/content"), version)
    return Route(Family.ANTHROPIC if first == "messages" else family, None, version=version)
