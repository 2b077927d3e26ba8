"""Which headers travel: from the application to a provider, and from a provider to the application. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llm_sidecar.providers.base import Headers

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Of one connection only (RFC 9110, section 7.6.1)."""

NEVER_SENT: Final = HOP_BY_HOP | {
    # Framing and encoding are ours: identity, or a provider's usage would hide in gzip.
    "accept-encoding",
    "content-length",
    "expect",
    "host",
    # Who the application claims to be. A key shared by teams must not be pointed at another organisation.
    "api-key",
    "authorization",
    "cookie",
    "openai-organization",
    "openai-project",
    "x-api-key",
    "x-goog-api-key",
    "x-goog-user-project",
    # Where it runs.
    "forwarded",
    "origin",
    "referer",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
}
"""Request headers that stop here."""

NEVER_RETURNED: Final = HOP_BY_HOP | {
    "content-encoding",  # undone by then
    "content-length",  # counted again
    "set-cookie",  # a cookie would follow one pod's requests with everybody's key
    "alt-svc",
    "strict-transport-security",
}
"""Answer headers that stop here."""

OWN_PREFIX: Final = "x-llm-sidecar-"


def to_provider(headers: Iterable[tuple[str, str]]) -> Headers:
    """The application's headers that a provider may see, and the request for identity encoding."""
    kept: Headers = []
    connection_names: frozenset[str] = frozenset()
    for name, value in headers:
        lower = name.lower()
        if lower in NEVER_SENT or lower.startswith(OWN_PREFIX):
            if lower == "connection" and value.lower() not in {"keep-alive", "close"}:
                connection_names |= _names(value)
            continue
        kept.append((name, value))
    if connection_names:
        kept = [(name, value) for name, value in kept if name.lower() not in connection_names]
    kept.append(("Accept-Encoding", "identity"))
    return kept


def _names(connection: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in connection.split(","))


def to_application(headers: Iterable[tuple[str, str]]) -> Headers:
    """A provider's headers that the application may see."""
    kept: Headers = []
    for name, value in headers:
        lower = name.lower()
        if lower not in NEVER_RETURNED and not lower.startswith(OWN_PREFIX):
            kept.append((name, value))
    return kept
