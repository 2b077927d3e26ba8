"""Connections to providers: a small HTTP/1.1 client, made for passing bytes on.

Behind `Transport` (see `providers.base`): no redirects, no cookies, no environment proxies, no header that the caller
did not give, and every failure as a `TransportError` that names no address. A general client costs three times the CPU
of all that the sidecar does itself; this one does what providers need and refuses the rest.

`request` and `answer` are pure; `connection` carries their bytes; `dialer` makes connections; `pool` keeps them.
"""

from __future__ import annotations

from llm_sidecar.upstream.egress import Egress, InvalidEgress, tls_context
from llm_sidecar.upstream.pool import PooledTransport

__all__ = ["Egress", "InvalidEgress", "PooledTransport", "tls_context"]
