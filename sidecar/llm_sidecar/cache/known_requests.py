"""Requests that were answered from memory a moment ago: the same bytes need not be read and hashed a second time.

What a request means is told by its call, its body, its headers and its query alone; where these are equal, so is that.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from llm_sidecar.formats.parsed_size import estimated_parsed_bytes

if TYPE_CHECKING:
    from llm_sidecar.formats.base import Call, ParsedRequest
    from llm_sidecar.providers.base import Headers

MAX_REQUESTS: Final = 64
MAX_BODY_BYTES: Final = 4096
"""Reading a longer one is little beside sending it."""
MAX_HEADER_BYTES: Final = 4096
MAX_PARSED_BYTES: Final = 16 * 1024

KnownRequest = tuple["ParsedRequest", bytes]
"""A request as it was read, and the digest of its meaning (`key.py`)."""
_Key = tuple["Call", bytes, str, tuple[tuple[str, str], ...]]


class KnownRequests:
    """The last few, by what came over the wire. Of one configuration: another one may read them differently."""

    def __init__(self) -> None:
        self._requests: OrderedDict[_Key, KnownRequest] = OrderedDict()

    def find(self, call: Call, body: bytes, query: str, headers: Headers) -> KnownRequest | None:
        """What was made of the same request."""
        if not self._requests or len(body) > MAX_BODY_BYTES:
            return None
        return self._requests.get((call, body, query, tuple(headers)))

    def keep(self, request: ParsedRequest, digest: bytes, query: str, headers: Headers) -> None:
        """Remember one that is sent as it came, and forget the one that was learned first."""
        if len(request.body) > MAX_BODY_BYTES or estimated_parsed_bytes(request.body) > MAX_PARSED_BYTES:
            return
        if sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
            return
        self._requests[request.call, request.body, query, tuple(headers)] = request, digest
        if len(self._requests) > MAX_REQUESTS:
            self._requests.popitem(last=False)
