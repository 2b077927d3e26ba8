"""Field types that both resources use, with their bounds: the API server charges CEL for the largest possible value."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from llm_sidecar.contract.rules import ContractModel, Rule, matching

MAX_SAFE_INTEGER: Final = 2**53
"""Largest integer that every JSON reader keeps exact."""

MAX_TTL_SECONDS: Final = 366 * 24 * 3600
"""No answer is kept for longer, whatever is configured."""

LABEL_PATTERN: Final = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
"""What Kubernetes lets a label value of ours be: names of resources become label values."""

# A host is a DNS name, an IPv4 address or an IPv6 address in brackets; who knows more is the resolver.
_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_PORT: Final = (
    "(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9][0-9]|6[0-4][0-9][0-9][0-9]|[1-5][0-9][0-9][0-9][0-9]|[1-9][0-9]{0,3})"
)
ORIGIN_PATTERN: Final = f"https?://{_HOST}(?::{_PORT})?"
_PATH: Final = r"(?:/[A-Za-z0-9._~!$&()*+,;=:@%/-]*)?"

HOP_BY_HOP_HEADERS: Final = (
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
"""Headers that belong to one connection or describe the body's framing: only the HTTP client may set them."""

_HEADER_NAME: Final = "[!#$%&*+.^_`|~0-9A-Za-z-]+"

BaseURL = Annotated[
    str,
    Field(min_length=1, max_length=2048),
    matching(
        ORIGIN_PATTERN + _PATH,
        message="must be an http or https URL without user name, query and fragment",
        fix="give what the SDK's base_url would be, such as https://api.openai.com/v1",
    ),
]
ProxyURL = Annotated[
    str,
    Field(min_length=1, max_length=2048),
    matching(
        ORIGIN_PATTERN + "/?",
        message="must be the http or https URL of a proxy, without user name and path",
        fix="write it like http://proxy.example.com:3128",
    ),
]
HeaderName = Annotated[
    str,
    Field(min_length=1, max_length=128),
    matching(
        _HEADER_NAME,
        message="is not a valid HTTP header name",
        fix="use letters, digits and hyphens only",
    ),
    Rule(
        "!(self.lowerAscii() in [" + ", ".join(f"'{name}'" for name in HOP_BY_HOP_HEADERS) + "])",
        lambda name: name.lower() not in HOP_BY_HOP_HEADERS,
        "is a header that only the HTTP connection itself may set",
        "remove it",
    ),
]
ModelPattern = Annotated[
    str,
    Field(min_length=1, max_length=128),
    matching(
        "[!-)+-~]*[*]?",
        message="is not a model name: printable ASCII without spaces, and a * only at the end",
        fix="write a name, or a prefix followed by *",
    ),
]
ModelName = Annotated[
    str,
    Field(min_length=1, max_length=128),
    matching(
        "[!-)+-~]+",
        message="is not a model name: printable ASCII without spaces and without *",
        fix="write the exact name",
    ),
]
ResourceName = Annotated[str, Field(min_length=1, max_length=63, pattern=LABEL_PATTERN)]
SecretName = Annotated[
    str, Field(min_length=1, max_length=253, pattern="^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", description="Secret's name.")
]
SecretKey = Annotated[
    str, Field(min_length=1, max_length=253, pattern="^[-._a-zA-Z0-9]+$", description="Key in the Secret's data.")
]
TTLSeconds = Annotated[int, Field(strict=True, ge=0, le=MAX_TTL_SECONDS)]
TimeoutSeconds = Annotated[int, Field(strict=True, ge=1, le=24 * 3600)]


class SecretKeyReference(ContractModel):
    """One key of a Secret in the same namespace."""

    name: SecretName
    key: SecretKey


class SecretReference(ContractModel):
    """A Secret in the same namespace."""

    name: SecretName
