"""Names that users, charts and both halves of the product rely on: change one nowhere but here."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

API_GROUP: Final = "llm-sidecar.io"
API_VERSION: Final = "v1alpha1"
GROUP_VERSION: Final = f"{API_GROUP}/{API_VERSION}"

PROXY_PORT: Final = 9797
ADMIN_PORT: Final = 9798
OWN_PATH_PREFIX: Final = "/_llm-sidecar/"

TOKEN_VARIABLE: Final = "LLM_SIDECAR_TOKEN"  # noqa: S105 - a name, no token
"""Environment variable of the proxy process that holds the pod's token."""

FROM_ENV_ANNOTATION: Final = f"{API_GROUP}/from-env"
"""On a Secret in a local manifest: the environment variable that holds its values (one per key, see docs)."""

DEFAULT_TEAM: Final = "default"


class API(StrEnum):
    """A wire language. One value, one file in `llm_sidecar.formats`."""

    OPENAI_CHAT = "OpenAIChat"
    OPENAI_RESPONSES = "OpenAIResponses"
    OPENAI_EMBEDDINGS = "OpenAIEmbeddings"
    ANTHROPIC_MESSAGES = "AnthropicMessages"
    GEMINI = "Gemini"


class RequestType(StrEnum):
    """What a request asks for: the label `type` of metrics and the keys of `cache.ttlSeconds`."""

    GENERATION = "generation"
    EMBEDDINGS = "embeddings"
    TOKEN_COUNT = "tokenCount"  # noqa: S105 - a kind of request, no secret
    MODELS = "models"
    PASSTHROUGH = "passthrough"


class ResponseHeader(StrEnum):
    """Headers that the proxy adds to what the application receives."""

    REQUEST_ID = "x-llm-sidecar-request-id"
    PROVIDER = "x-llm-sidecar-provider"
    MODEL = "x-llm-sidecar-model"
    CACHE = "x-llm-sidecar-cache"
    ATTEMPTS = "x-llm-sidecar-attempts"
    QUOTA_REMAINING = "x-llm-sidecar-quota-remaining"
    REFUSED_BY = "x-llm-sidecar-refused-by"
