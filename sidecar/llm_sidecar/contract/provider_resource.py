"""`LLMProvider`: where requests may go, with which key, and which models are there."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from llm_sidecar.contract.allowed_namespaces import AllowedNamespaces
from llm_sidecar.contract.fields import (
    BaseURL,
    HeaderName,
    ModelName,
    ModelPattern,
    ProxyURL,
    SecretKeyReference,
    SecretReference,
    TimeoutSeconds,
    TTLSeconds,
)
from llm_sidecar.contract.names import API
from llm_sidecar.contract.rules import ContractModel, Rule, UniqueBy, matching

CREDENTIAL_HEADERS: Final = ("api-key", "authorization", "proxy-authorization", "x-api-key", "x-goog-api-key")
"""Headers that carry keys. A header's value in a manifest is readable by everyone who may read the resource."""


class StreamUsage(StrEnum):
    """Whether the proxy asks for token usage in streams whose API tells it only on request."""

    REQUEST = "Request"
    NEVER = "Never"


class Credentials(ContractModel):
    """The provider's API key."""

    secret_key_ref: SecretKeyReference = Field(description="Secret in the same namespace that holds the API key.")


class Authentication(ContractModel):
    """How the key is sent, where that differs from the type's own way."""

    header: HeaderName = Field(description="Header that carries the key, such as Authorization or api-key.")
    scheme: (
        Annotated[
            str,
            Field(min_length=1, max_length=64),
            matching(
                "[A-Za-z0-9._-]+",
                message="is not an authentication scheme",
                fix="use one word such as Bearer, or remove the field to send the key alone",
            ),
        ]
        | None
    ) = Field(default=None, description="Word before the key, such as Bearer. Without it the key stands alone.")


class Header(ContractModel):
    """A header for every request to this provider."""

    name: Annotated[
        HeaderName,
        Rule(
            "!(self.lowerAscii() in [" + ", ".join(f"'{name}'" for name in CREDENTIAL_HEADERS) + "])",
            lambda name: name.lower() not in CREDENTIAL_HEADERS,
            "is a header that carries keys, and values here are readable by all who can read this resource",
            "put the key into a Secret and name it in spec.credentials, and the header in spec.authentication",
        ),
    ] = Field(description="Header name, such as OpenAI-Project.")
    value: Annotated[
        str,
        Field(max_length=4096),
        matching(
            "(?:[!-~](?:[ -~]*[!-~])?)?",
            message="is not a valid header value: printable ASCII without spaces at its ends",
            fix="remove control and non-ASCII characters, and spaces at the ends",
        ),
    ] = Field(description="Header value. No secrets: it is readable by all who can read this resource.")


USDPerMillionTokens = Annotated[
    str,
    Field(min_length=1, max_length=20),
    matching(
        r"[0-9]{1,7}(?:[.][0-9]{1,9})?",
        message="is not an amount of US dollars",
        fix='write a decimal in quotes with at most 9 decimals, such as "0.25"',
    ),
]


class Pricing(ContractModel):
    """What a model's tokens cost, in US dollars per million. Decimal strings: no rounding on the way."""

    input_usd: USDPerMillionTokens = Field(alias="inputUSDPerMillionTokens", description="Input that was not cached.")
    cached_input_usd: USDPerMillionTokens | None = Field(
        default=None,
        alias="cachedInputUSDPerMillionTokens",
        description="Input that the provider read from its own cache. Default: as other input.",
    )
    cache_write_usd: USDPerMillionTokens | None = Field(
        default=None,
        alias="cacheWriteUSDPerMillionTokens",
        description="Input that the provider wrote into its cache. Default: as other input.",
    )
    output_usd: USDPerMillionTokens = Field(
        alias="outputUSDPerMillionTokens", description="Output, reasoning included."
    )


class Model(ContractModel):
    """A model of this provider, or all models whose names begin alike."""

    rules = (
        Rule(
            "!self.name.endsWith('*') || !has(self.aliases) || size(self.aliases) == 0",
            lambda model: not model.name.endswith("*") or not model.aliases,
            "a name that ends in * cannot have aliases: which of its models would they mean",
            "remove the aliases, or list the model by its exact name",
            "aliases",
        ),
        Rule(
            "!self.name.endsWith('*') || !has(self.failoverFor) || size(self.failoverFor) == 0",
            lambda model: not model.name.endswith("*") or not model.failover_for,
            "a name that ends in * cannot stand in for others: which of its models would answer",
            "remove failoverFor, or list the model by its exact name",
            "failoverFor",
        ),
        Rule(
            "!self.name.endsWith('*') || !has(self.downgradeFor) || size(self.downgradeFor) == 0",
            lambda model: not model.name.endswith("*") or not model.downgrade_for,
            "a name that ends in * cannot stand in for others: which of its models would answer",
            "remove downgradeFor, or list the model by its exact name",
            "downgradeFor",
        ),
    )

    name: ModelPattern = Field(description="Name at the provider. May end in *, which stands for any ending.")
    aliases: Annotated[tuple[ModelName, ...], Field(max_length=16), UniqueBy()] = Field(
        default=(), description="Other names that an application may ask for; the request then goes out with `name`."
    )
    failover_for: Annotated[tuple[ModelName, ...], Field(max_length=16), UniqueBy()] = Field(
        default=(),
        description="Models, by name or alias, for which this one may answer once all that serve them have failed.",
    )
    downgrade_for: Annotated[tuple[ModelName, ...], Field(max_length=16), UniqueBy()] = Field(
        default=(),
        description="Models, by name or alias, for which this one may answer where a team's limit says Downgrade.",
    )
    pricing: Pricing | None = Field(default=None, description="What its tokens cost.")
    context_window_tokens: Annotated[int, Field(strict=True, ge=1, le=100_000_000)] | None = Field(
        default=None,
        description="The most tokens, input and output together, that this model takes. A request that is larger by "
        "its size goes to another one.",
    )
    max_output_tokens: Annotated[int, Field(strict=True, ge=1, le=100_000_000)] | None = Field(
        default=None,
        description="The most tokens that this model can generate in one answer. Bounds what a token limit reserves "
        "for a request that sets no limit of its own.",
    )


class Timeouts(ContractModel):
    """How long to wait for this provider, in seconds."""

    connect_seconds: TimeoutSeconds = Field(default=5, description="To connect, TLS included, in seconds.")
    response_seconds: TimeoutSeconds = Field(
        default=600, description="For a whole plain (not streamed) answer, in seconds."
    )
    first_token_seconds: TimeoutSeconds = Field(
        default=300, description="For a stream's first content, in seconds. Reasoning models are silent for minutes."
    )
    idle_seconds: TimeoutSeconds = Field(
        default=120, description="Between two pieces of a stream that has begun, in seconds."
    )
    stream_seconds: TimeoutSeconds = Field(default=3600, description="For a whole stream, in seconds.")


class Retry(ContractModel):
    """How often, and how soon, the same provider is asked again before the next one is."""

    max_attempts: Annotated[int, Field(strict=True, ge=1, le=10)] = Field(
        default=3, description="Attempts at this provider for one request, the first included."
    )
    initial_backoff_milliseconds: Annotated[int, Field(strict=True, ge=1, le=60_000)] = Field(
        default=250,
        description="Upper bound of the random wait before the second attempt, in milliseconds; it doubles each time.",
    )
    max_backoff_seconds: Annotated[int, Field(strict=True, ge=1, le=300)] = Field(
        default=8,
        description="Upper bound of any wait, in seconds. A provider that asks for a longer one is left for the next.",
    )
    on_timeout: bool = Field(
        default=False,
        strict=True,
        description="Ask the same provider again after a time-out. It may be working on the first request still, and "
        "charge both.",
    )


class CircuitBreaker(ContractModel):
    """When a model of this provider is left alone for a while."""

    failure_threshold: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        default=5, description="Failures in a row, of one model, after which it is not asked."
    )
    open_seconds: Annotated[int, Field(strict=True, ge=1, le=3600)] = Field(
        default=30, description="For how long, in seconds. Then a single request tries."
    )


class HealthCheckMode(StrEnum):
    """How the controller learns whether a provider works."""

    MODELS = "Models"
    PASSIVE = "Passive"


class HealthCheck(ContractModel):
    """How the controller finds out whether this provider works. Nothing here spends a token."""

    interval_seconds: Annotated[int, Field(strict=True, ge=5, le=3600)] = Field(
        default=30, description="Between two probes, in seconds, give or take a tenth."
    )
    timeout_seconds: Annotated[int, Field(strict=True, ge=1, le=60)] = Field(
        default=5, description="How long a probe may take, in seconds."
    )
    mode: HealthCheckMode = Field(
        default=HealthCheckMode.MODELS,
        description="Models: the controller asks for the list of models. Passive: it asks nothing, and goes by what "
        "the proxies see.",
    )


class RateLimits(ContractModel):
    """What the provider grants the account. Shared by all proxies, so that they do not run into it together."""

    requests_per_minute: Annotated[int, Field(strict=True, ge=1, le=100_000_000)] | None = Field(
        default=None, description="Requests per minute. Left out: not counted."
    )
    tokens_per_minute: Annotated[int, Field(strict=True, ge=1, le=1_000_000_000_000)] | None = Field(
        default=None, description="Tokens per minute, input and output. Left out: not counted."
    )


class Egress(ContractModel):
    """The way out of the pod. The application's own proxy variables are never used."""

    proxy_url: ProxyURL | None = Field(
        default=None, alias="proxyURL", description="HTTP proxy to go through, such as http://proxy.example.com:3128."
    )
    ca_bundle_secret_ref: SecretKeyReference | None = Field(
        default=None,
        description="PEM certificates of the authorities to trust instead of the system's, in a Secret of the same "
        "namespace.",
    )
    client_certificate_secret_ref: SecretReference | None = Field(
        default=None,
        description="Certificate to present to the provider: a Secret of type kubernetes.io/tls in the same namespace.",
    )


class TTLByType(ContractModel):
    """How long answers are kept, in seconds. 0 means never."""

    generation: TTLSeconds = Field(default=3600, description="Generated answers, in seconds. 0 = never kept.")
    embeddings: TTLSeconds = Field(default=604800, description="Embeddings, in seconds. 0 = never kept.")
    token_count: TTLSeconds = Field(default=86400, description="Token counts, in seconds. 0 = never kept.")


class ProviderCache(ContractModel):
    """How long this provider's answers stay in the cache."""

    ttl_seconds: TTLByType = Field(default=TTLByType(), description="Seconds by type of request.")


class LLMProviderSpec(ContractModel):
    """Where requests may go, with which key, and which models are there."""

    rules = (
        Rule(
            "!has(self.authentication) || !has(self.headers) || "
            "!self.headers.exists(h, h.name.lowerAscii() == self.authentication.header.lowerAscii())",
            lambda spec: (
                spec.authentication is None
                or all(header.name.lower() != spec.authentication.header.lower() for header in spec.headers)
            ),
            "a header here has the name of authentication.header, which carries the key",
            "remove it from headers",
            "headers",
        ),
        Rule(
            "!has(self.headers) || "
            "self.headers.all(h, self.headers.exists_one(g, g.name.lowerAscii() == h.name.lowerAscii()))",
            lambda spec: len({header.name.lower() for header in spec.headers}) == len(spec.headers),
            "two headers have the same name (upper and lower case are equal)",
            "keep one of them",
            "headers",
        ),
        Rule(
            "!has(self.authentication) || has(self.credentials)",
            lambda spec: spec.authentication is None or spec.credentials is not None,
            "tells how to send a key, but there is no key",
            "add credentials.secretKeyRef, or remove authentication",
            "authentication",
        ),
    )

    type: Annotated[
        str,
        Field(min_length=1, max_length=63, pattern="^[A-Z][A-Za-z0-9]{0,62}$"),
    ] = Field(
        description="Kind of provider: OpenAI, Anthropic, Google, or another registered one. OpenAI fits every server "
        "that speaks its API, with baseURL."
    )
    base_url: BaseURL | None = Field(
        default=None,
        alias="baseURL",
        description="Exactly what the SDK's base_url would be, such as https://api.openai.com/v1. Default: by type.",
    )
    credentials: Credentials | None = Field(
        default=None, description="The provider's API key. Leave out for servers that want none."
    )
    authentication: Authentication | None = Field(default=None, description="How the key is sent. Default: by type.")
    headers: Annotated[tuple[Header, ...], Field(max_length=32)] = Field(
        default=(), description="Headers added to every request. Not secret."
    )
    apis: Annotated[tuple[API, ...], Field(min_length=1, max_length=16), UniqueBy()] | None = Field(
        default=None, description="APIs that this provider speaks. Default: by type."
    )
    passthrough_paths: Annotated[
        tuple[
            Annotated[
                str,
                Field(min_length=1, max_length=256),
                matching(
                    r"/[A-Za-z0-9._~!$&()+,;=:@%/-]*[*]?",
                    message="is not a path: it begins with /, has no query, and a * only at the end",
                    fix="write it like /v1/files or /v1/files/*",
                ),
            ],
            ...,
        ],
        Field(max_length=64),
        UniqueBy(),
    ] = Field(
        default=(),
        description="Paths to pass on as they are, such as /v1/files/*. They are neither cached nor counted in tokens, "
        "and with a shared key they open what other teams stored there.",
    )
    allowed_namespaces: AllowedNamespaces = Field(
        default=AllowedNamespaces(),
        description="Namespaces whose pods may use this provider, if it is a shared one or their TeamQuota names it.",
    )
    priority: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = Field(
        default=0, description="Lower goes first; equal ones share by weight."
    )
    weight: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        default=1, description="Share among providers of equal priority."
    )
    models: Annotated[tuple[Model, ...], Field(max_length=128), UniqueBy("name")] = Field(
        default=(), description="Models that are offered. The list answers an application that asks for models."
    )
    timeouts: Timeouts = Field(default=Timeouts(), description="How long to wait for this provider.")
    retry: Retry = Field(default=Retry(), description="How a failed attempt is repeated at this provider.")
    circuit_breaker: CircuitBreaker = Field(
        default=CircuitBreaker(), description="When failures keep requests away from this provider."
    )
    health_check: HealthCheck = Field(
        default=HealthCheck(), description="How the controller finds out whether this provider works."
    )
    rate_limits: RateLimits = Field(
        default=RateLimits(), description="What the provider grants per minute. Needs the shared store."
    )
    stream_usage: StreamUsage = Field(
        default=StreamUsage.REQUEST,
        description="Request: ask for token usage in streams. Never: for servers that refuse to be asked.",
    )
    egress: Egress = Field(default=Egress(), description="The way out: proxy, trusted authorities, client certificate.")
    cache: ProviderCache = Field(default=ProviderCache(), description="How long answers stay in the cache.")
