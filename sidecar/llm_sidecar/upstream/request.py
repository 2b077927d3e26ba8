"""A request as bytes. Pure. Whatever could be taken for a line break is refused, never quoted and never repaired."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from llm_sidecar.providers.base import TransportError
from llm_sidecar.upstream.failures import NOT_A_HEADER, NOT_A_URL

if TYPE_CHECKING:
    from llm_sidecar.providers.base import Headers

KNOWN_NAMES: Final = 4096
"""How many different header names are remembered as well-formed."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN_IN_URL: Final = re.compile(r"[\x00-\x20\x7f]")
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_METHODS_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class Origin:
    """Whom a connection leads to."""

    scheme: str
    host: str
    port: int

    @property
    def is_tls(self) -> bool:
        """True where the connection is encrypted."""
        return self.scheme == "https"

    @property
    def bracketed_host(self) -> str:
        """The host as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def authority(self) -> str:
        """Host and port, as a Host header says them."""
        if self.port == _DEFAULT_PORTS[self.scheme]:
            return self.bracketed_host
        return f"{self.bracketed_host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """Where one method and URL lead, and the beginning of every request there."""

    origin: Origin
    request_line: str
    host_line: str
    announces_empty_body: bool
    expects_body: bool
    """Whether the answer's body follows the answer's head."""


def target(method: str, url: str, *, through_proxy: bool) -> Target:
    """Read a URL. A proxy wants it whole, where it is not only a tunnel. Raises `TransportError`."""
    if not _TOKEN.fullmatch(method) or _FORBIDDEN_IN_URL.search(url):
        raise TransportError("connection", NOT_A_URL)
    url = quote(url, safe=_PRINTABLE, errors="surrogateescape")  # what is not ASCII; nothing else changes
    origin, path = _split(url)
    if through_proxy and not origin.is_tls:
        path = f"http://{origin.authority}{path}"
    return Target(
        origin=origin,
        request_line=f"{method} {path} HTTP/1.1\r\n",
        host_line=f"Host: {origin.authority}\r\n",
        announces_empty_body=method in _METHODS_WITH_BODY,
        expects_body=method != "HEAD",
    )


def origin_of(url: str) -> Origin:
    """The origin of a URL. Raises `TransportError`."""
    return _split(url)[0]


def _split(url: str) -> tuple[Origin, str]:
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise TransportError("connection", NOT_A_URL) from None
    if not parts.hostname or "@" in parts.netloc or "%" in parts.netloc:
        raise TransportError("connection", NOT_A_URL)
    query = f"?{parts.query}" if parts.query else ""
    return Origin(parts.scheme, parts.hostname, port), (parts.path or "/") + query


class HeadWriter:
    """Writes heads of requests, and remembers which header names were found well-formed."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}

    def head(self, to: Target, headers: Headers, *, length: int | None, streamed: bool = False) -> bytes:
        """The head of a request whose body is `length` bytes, or `streamed`. Raises `TransportError`."""
        kinds = self._kinds
        special = ""
        lines = []
        for name, value in headers:
            kind = kinds.get(name)
            if kind is None:
                kind = self._learn(name)
            if kind:
                special += kind
                if kind == "transfer-encoding " or (kind == "content-length " and not streamed):
                    continue  # framing is ours; only who streams a body may know its length better
            lines.append(f"{name}: {value}\r\n")
        text = "".join(lines)
        if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
            raise TransportError("connection", NOT_A_HEADER)
        host = "" if "host " in special else to.host_line
        return f"{to.request_line}{host}{text}{_framing(to, length, streamed, special)}\r\n".encode(
            "utf-8", "surrogateescape"
        )

    def _learn(self, name: str) -> str:
        if not _TOKEN.fullmatch(name):
            raise TransportError("connection", NOT_A_HEADER)
        lower = name.lower()
        kind = f"{lower} " if lower in {"host", "content-length", "transfer-encoding"} else ""
        if len(self._kinds) >= KNOWN_NAMES:
            self._kinds.clear()
        self._kinds[name] = kind
        return kind


def _framing(to: Target, length: int | None, streamed: bool, special: str) -> str:  # noqa: FBT001 - private
    if streamed:
        return "" if "content-length " in special else "Transfer-Encoding: chunked\r\n"
    if length or to.announces_empty_body:
        return f"Content-Length: {length or 0}\r\n"
    return ""


def declared_length(headers: Headers) -> int | None:
    """The Content-Length among the headers, for a body that is streamed. Raises `TransportError`."""
    values = {value for name, value in headers if name.lower() == "content-length"}
    if not values:
        return None
    value = values.pop()
    if values or not (value.isascii() and value.isdigit()):
        raise TransportError("connection", NOT_A_HEADER)
    return int(value)
