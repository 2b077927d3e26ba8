"""aiohttp without its client's trust in the system's authorities.

Importing aiohttp loads all their certificates, for a client that the proxy does not use (its own is `upstream/`): that
costs memory and some 50 ms in every pod. Import this before anything else imports aiohttp, in the proxy's own process
only: a client of aiohttp's would then trust nobody by default, and fail.
"""

from __future__ import annotations

import ssl
from typing import Any


def _nothing_trusted(*_arguments: Any, **_named: Any) -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


_create_default_context = ssl.create_default_context
ssl.create_default_context = _nothing_trusted
try:
    import aiohttp
finally:
    ssl.create_default_context = _create_default_context

__all__ = ["aiohttp"]
