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

ANNOTATION_PREFIX: Final = f"{API_GROUP}/"
"""Every annotation key that begins so is ours; one that we do not know is a mistake."""

INJECTED_LABEL: Final = f"{API_GROUP}/injected"
TEAM_LABEL: Final = f"{API_GROUP}/team"
TEAM_NAMESPACE_LABEL: Final = f"{API_GROUP}/team-namespace"
STATUS_ANNOTATION: Final = f"{API_GROUP}/status"
"""What the webhook did: JSON with version, Secret and ports."""
CONFIG_HASH_ANNOTATION: Final = f"{API_GROUP}/config-hash"
"""What the controller touches, so that the kubelet looks at the Secret at once."""

PURGE_CACHE_ANNOTATION: Final = f"{API_GROUP}/purge-cache"
"""On an LLMProvider or a TeamQuota: each new value has the controller purge its cached answers once."""

CREDENTIALS_LABEL: Final = f"{API_GROUP}/credentials"
"""On a Secret, with the value `true`: its owner lets the controller read it."""
CONFIG_SECRET_TYPE: Final = f"{API_GROUP}/config"
"""Type of the Secrets that carry config documents. Fixed at creation, so policies may rely on it."""

SIDECAR_CONTAINER: Final = "llm-sidecar"
CONFIG_VOLUME: Final = "llm-sidecar-config"
NO_TOKEN_VOLUME: Final = "llm-sidecar-no-token"  # noqa: S105 - a name, no token
"""An empty volume that lies over the ServiceAccount's token, so that the proxy holds none."""
STATE_VOLUME: Final = "llm-sidecar-state"
"""An empty volume for what the proxy must not forget when its container is restarted."""
STATE_DIRECTORY: Final = "/var/lib/llm-sidecar"
CONFIG_SECRET_PREFIX: Final = "llm-sidecar."  # noqa: S105 - a name, no secret
CONFIG_KEY: Final = "config.json"
"""Key of the config document in its Secret, and name of the file."""
CONFIG_DIRECTORY: Final = "/etc/llm-sidecar"
CONFIG_FILE: Final = f"{CONFIG_DIRECTORY}/{CONFIG_KEY}"
METRICS_PORT_NAME: Final = "llm-metrics"


def config_secret(team_namespace: str, team: str) -> str:
    """Name of the Secret that carries a team's config document, in the pod's namespace."""
    return f"{CONFIG_SECRET_PREFIX}{team_namespace}.{team}"


class PodAnnotation(StrEnum):
    """What a pod may say to the webhook."""

    INJECT = f"{API_GROUP}/inject"
    TEAM = f"{API_GROUP}/team"
    CONTAINERS = f"{API_GROUP}/containers"
    PORT = f"{API_GROUP}/port"
    ADMIN_PORT = f"{API_GROUP}/admin-port"
    CPU_REQUEST = f"{API_GROUP}/cpu-request"
    CPU_LIMIT = f"{API_GROUP}/cpu-limit"
    MEMORY_REQUEST = f"{API_GROUP}/memory-request"
    MEMORY_LIMIT = f"{API_GROUP}/memory-limit"
    LOG_LEVEL = f"{API_GROUP}/log-level"
    ENV = f"{API_GROUP}/env"


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
    COST_USD = "x-llm-sidecar-cost-usd"
    DROPPED = "x-llm-sidecar-dropped"
    """What could not be said to the provider that answered, and was harmless to leave out."""
    DOWNGRADED_FROM = "x-llm-sidecar-downgraded-from"
    """The model in whose stead a cheaper one answered, since a limit of the team is nearly used up."""
    OUTPUT_CLAMPED = "x-llm-sidecar-output-clamped"
    """The bound on output that the request was sent with, since it asked for more than its team allows, or for none."""
    REFUSED_BY = "x-llm-sidecar-refused-by"
