"""A provider is a place: a URL, a way to authenticate, the formats that it speaks. One short file each.

Everything that providers share stands here, so that a new one which speaks a known format only says how it differs.
The transport is handed in: this package opens no sockets, which lets the operator use it for key validation alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final, Literal, Protocol

from llm_sidecar.contract.names import API
from llm_sidecar.formats.told_error import FailureKind, ToldError

Headers = list[tuple[str, str]]

KEY_CHECK_SECONDS: Final = 10.0
"""A list of models takes a second. One who checks many keys in turn must not wait for the one that never answers."""
KEY_CHECK_BYTES: Final = 64 * 1024
"""How much of its answer is read: an error's reason stands well before."""


@dataclass(frozen=True, slots=True)
class Authentication:
    """How a key travels: `header: scheme key`, or the bare key where there is no scheme."""

    header: str
    scheme: str | None = None

    def headers(self, key: str | None) -> Headers:
        """The header to send; none without a key."""
        if key is None:
            return []
        return [(self.header, f"{self.scheme} {key}" if self.scheme else key)]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `response` bounds a whole plain answer, `stream` a whole stream."""

    connect: float = 5
    response: float = 600
    first_token: float = 300
    idle: float = 120
    stream: float = 3600


class SecretText:
    """A string that shows itself to nobody but the one who asks for it by name."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretText) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "SecretText(…)"


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One LLMProvider as its provider class needs it. The key stays out of `repr`."""

    name: str
    """The label under which metrics, headers and errors name it."""
    base_url: str | None = None
    key: SecretText | None = None
    authentication: Authentication | None = None
    headers: tuple[tuple[str, str], ...] = ()
    apis: tuple[API, ...] = ()
    timeouts: Timeouts = Timeouts()


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """A request as it leaves for a provider: `path` is appended to the base URL, `query` includes no key."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes | AsyncIterable[bytes] | None


class ProviderResponse(Protocol):
    """An answer whose body has not been read yet. Must be closed."""

    status: int
    headers: Headers

    def header(self, name: str) -> str | None:
        """One header's value; `name` in lower case."""
        ...

    @property
    def exhausted(self) -> bool:
        """True once it is known that `read_some` has nothing more to give. May stay False until it says so itself."""
        ...

    async def read_some(self) -> bytes:
        """What has arrived, at least one byte; empty at the end. Raises `TransportError`."""
        ...

    def close(self) -> None:
        """Done: a connection whose answer was read whole is kept for the next request, any other is cut at once."""
        ...


TransportFailure = Literal["connection", "timeout", "disconnected", "garbled"]


class TransportError(Exception):
    """The provider could not be reached, or stopped in the middle. Says what kind, never an address."""

    def __init__(self, failure: TransportFailure, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure
        self.detail = detail


class Transport(Protocol):
    """How requests reach a provider (see `llm_sidecar.upstream`)."""

    async def send(
        self, method: str, url: str, headers: Headers, body: bytes | AsyncIterable[bytes] | None, connect_seconds: float
    ) -> ProviderResponse:
        """Send and wait for the answer's head. Raises `TransportError`."""
        ...


FailureReason = FailureKind
"""The name under which packages outside this one know `FailureKind`."""


_TRANSPORT_REASONS: Final[Mapping[TransportFailure, FailureReason]] = MappingProxyType(
    {
        "connection": FailureReason.CONNECTION,
        "timeout": FailureReason.TIMEOUT,
        "disconnected": FailureReason.DISCONNECTED,
        "garbled": FailureReason.GARBLED_ANSWER,
    }
)


def failure_reason(error: TransportError) -> FailureReason:
    """Why an attempt did not give an answer, where the transport failed."""
    return _TRANSPORT_REASONS[error.failure]


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """Outcome of `validate_key`: `accepted` is None where the provider could not be asked."""

    accepted: bool | None
    reason: str


class Provider:
    """What all providers do alike. Subclasses set the class attributes and override where they differ."""

    type: ClassVar[str]
    default_base_url: ClassVar[str]
    default_authentication: ClassVar[Authentication]
    default_apis: ClassVar[tuple[API, ...]]
    client_path_prefix: ClassVar[str] = ""
    """What this family's SDKs hold in their base URL, so that it is no part of the path that we append."""
    key_check_path: ClassVar[str] = "/models"
    """A GET that needs a valid key and spends nothing."""
    key_check_headers: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init__(self, settings: ProviderSettings, transport: Transport) -> None:
        self.name = settings.name
        self.base_url = (settings.base_url or self.default_base_url).rstrip("/")
        self.apis = settings.apis or self.default_apis
        self.timeouts = settings.timeouts
        authentication = settings.authentication or self.default_authentication
        key = settings.key.reveal() if settings.key else None
        self._own_headers: Headers = [*authentication.headers(key), *settings.headers]
        self.identity = (self.name, self.type, self.base_url, settings.headers)
        """What tells this place from another, as far as answers go; no secret is in it."""
        self._own_header_names = frozenset(name.lower() for name, _ in self._own_headers)
        self._transport = transport

    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        """Send one request here, with this provider's URL, key and headers. Raises `TransportError`."""
        own = self._own_header_names
        headers = [(name, value) for name, value in request.headers if name.lower() not in own]
        headers += self._own_headers
        url = f"{self.base_url}{request.path}?{request.query}" if request.query else self.base_url + request.path
        return await self._transport.send(request.method, url, headers, request.body, self.timeouts.connect)

    async def validate_key(self) -> KeyCheck:
        """Ask the provider, without spending a token, whether it takes the key."""
        request = ProviderRequest("GET", self.key_check_path, "", list(self.key_check_headers.items()), None)
        try:
            async with asyncio.timeout(KEY_CHECK_SECONDS):
                status, body = await self._ask_briefly(request)
        except TransportError as error:
            return KeyCheck(accepted=None, reason=f"the provider could not be asked: {error.detail}")
        except TimeoutError:
            detail = f"no answer within {KEY_CHECK_SECONDS:g} s"
            return KeyCheck(accepted=None, reason=f"the provider could not be asked: {detail}")
        if self.rejects_key(status, body):
            return KeyCheck(accepted=False, reason=f"the provider refused the key with status {status}")
        if status >= 300:
            return KeyCheck(accepted=None, reason=f"the provider answered {status} when asked for its models")
        return KeyCheck(accepted=True, reason="the provider accepted the key")

    async def _ask_briefly(self, request: ProviderRequest) -> tuple[int, bytes]:
        response = await self.complete(request)
        try:
            body = bytearray()
            while len(body) < KEY_CHECK_BYTES and (piece := await response.read_some()):
                body += piece
            return response.status, bytes(body[:KEY_CHECK_BYTES])
        finally:
            response.close()

    def rejects_key(self, status: int, body: bytes) -> bool:
        """True where an error answer is about our key or account, not about the application's request."""
        del body
        return status in {401, 402, 403}

    def failure_kind(self, error: ToldError) -> FailureKind:
        """What an error means here, as its language has read it. Override where this place says it otherwise."""
        return error.kind
