"""What goes wrong between us and a provider, in words that name no address, no URL and no key."""

from __future__ import annotations

import ssl
from typing import Final

from llm_sidecar.providers.base import TransportError

TOO_SLOW: Final = "connecting took longer than timeouts.connectSeconds"
TLS: Final = "TLS failed: check baseURL's certificate and egress.caBundleSecretRef"
PROXY: Final = "the egress proxy could not be used: check egress.proxyURL"
UNKNOWN_HOST: Final = "the host name of baseURL was not found"
REFUSED: Final = "the connection was refused or could not be made"
NOT_A_URL: Final = "baseURL is not a URL that can be called"
NOT_A_HEADER: Final = "a header of the request cannot be sent: a line break, a NUL or a name that is none"
CLOSED_EARLY: Final = "the provider closed the connection in the middle"
BROKEN: Final = "the connection broke"
GIVEN_UP: Final = "the connection was given up"
NOT_HTTP: Final = "the provider's answer is not valid HTTP"
BODY_BROKE_OFF: Final = "the request's body broke off"


def connection_lost(error: Exception | None) -> TransportError:
    """The failure of an exchange whose connection ended under it."""
    if isinstance(error, ssl.SSLError):  # also a server that only now tells that it wants a client certificate
        return TransportError("connection", TLS)
    if error is None or isinstance(error, ConnectionError):
        return TransportError("disconnected", CLOSED_EARLY)
    return TransportError("disconnected", BROKEN)


def garbled() -> TransportError:
    """The failure of an answer that breaks the rules."""
    return TransportError("garbled", NOT_HTTP)


def proxy_refused(status: int) -> TransportError:
    """The failure of a request that the egress proxy did not let through."""
    return TransportError("connection", f"the egress proxy refused with status {status}: check egress.proxyURL")
