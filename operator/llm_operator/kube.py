"""The few calls that the controller makes to the API server, over one HTTP session.

kopf watches; this writes, and lists. No answer's text reaches an error here but the API server's own reason, because
an answer may quote what was sent, and what is sent may be a Secret.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import quote

import aiohttp
import kopf

from llm_sidecar.contract.names import GROUP_VERSION

Document = dict[str, Any]

FIELD_MANAGER: Final = "llm-sidecar-controller"
REQUEST_SECONDS: Final = 15
PAGE_ITEMS: Final = 500
WATCH_SECONDS: Final = 290
"""The API server ends a watch after this long; a watch without any word for longer is dead."""
_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, as paths of the API name it."""

    name: str
    api_version: str
    plural: str
    is_namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The path of one object, or of all of them."""
        root = "/api/v1" if self.api_version == "v1" else f"/apis/{self.api_version}"
        parts = [root]
        if self.is_namespaced and namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


LLM_PROVIDER: Final = Kind("LLMProvider", GROUP_VERSION, "llmproviders")
TEAM_QUOTA: Final = Kind("TeamQuota", GROUP_VERSION, "teamquotas")
NAMESPACE: Final = Kind("Namespace", "v1", "namespaces", is_namespaced=False)
SECRET: Final = Kind("Secret", "v1", "secrets")
POD: Final = Kind("Pod", "v1", "pods")
CONFIG_MAP: Final = Kind("ConfigMap", "v1", "configmaps")
EVENT: Final = Kind("Event", "v1", "events")


class ApiError(Exception):
    """The API server refused a call, or could not be reached (status 0)."""

    def __init__(self, status: int, reason: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"the API server answered {status} {reason}" if status else reason)
        self.status = status
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds

    @property
    def is_missing(self) -> bool:
        """There is no such object."""
        return self.status == 404

    @property
    def is_forbidden(self) -> bool:
        """The controller's account may not do this."""
        return self.status == 403


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects, and the version from which a watch goes on."""

    items: list[Document]
    version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. `type` is ADDED, MODIFIED or DELETED."""

    type: str
    document: Document


class Kube(Protocol):
    """What the controller needs of the API server. Each call raises `ApiError`."""

    async def list(self, kind: Kind, *, namespace: str | None = None, labels: str = "") -> Listing:
        """All objects of a kind, or those of one namespace, with these labels."""
        ...

    def watch(self, kind: Kind, *, namespace: str | None, labels: str, version: str) -> AsyncIterator[WatchEvent]:
        """Changes after a version, until the API server ends the stream."""
        ...

    async def get(self, kind: Kind, *, namespace: str | None, name: str) -> Document | None:
        """One object, or None."""
        ...

    async def exists(self, kind: Kind, *, namespace: str | None, name: str) -> bool:
        """Whether there is such an object. Of a Secret, nothing but its metadata is read."""
        ...

    async def create(self, kind: Kind, document: Document) -> None:
        """Make an object."""
        ...

    async def apply(self, kind: Kind, document: Document) -> None:
        """Server-side apply: make it so. Writes nothing where it is so already."""
        ...

    async def merge(
        self, kind: Kind, *, namespace: str, name: str, patch: Document, subresource: str | None = None
    ) -> None:
        """A merge patch of the object or of its subresource."""
        ...

    async def delete(self, kind: Kind, *, namespace: str, name: str) -> None:
        """Delete an object; one that is gone already is no error."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    verb: str
    kind: Kind
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes | None = field(repr=False)


class KubeClient:
    """`Kube` over HTTP. `login` is asked again when the API server no longer knows us: tokens are renewed on disk."""

    def __init__(
        self,
        login: Callable[[], kopf.ConnectionInfo],
        *,
        on_call: Callable[[str, str, int], None] = lambda _verb, _kind, _status: None,
    ) -> None:
        self._login = login
        self._on_call = on_call
        self._connection: kopf.ConnectionInfo | None = None
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def list(self, kind: Kind, *, namespace: str | None = None, labels: str = "") -> Listing:
        """See `Kube`."""
        items: list[Document] = []
        version, token = "", ""
        while True:
            query = {"limit": str(PAGE_ITEMS), "labelSelector": labels, "continue": token}
            page = await self._call("list", kind, kind.path(namespace), query=query)
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            version, token = metadata.get("resourceVersion", ""), metadata.get("continue", "")
            if not token:
                return Listing(items, version)

    async def watch(self, kind: Kind, *, namespace: str | None, labels: str, version: str) -> AsyncIterator[WatchEvent]:
        """See `Kube`."""
        query = {
            "watch": "true",
            "labelSelector": labels,
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        session, connection = self._ready()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=WATCH_SECONDS + 30)
        try:
            async with session.get(
                connection.server.rstrip("/") + kind.path(namespace),
                params={name: value for name, value in query.items() if value},
                headers=connection.as_http_headers(),
                timeout=timeout,
            ) as response:
                self._on_call("watch", kind.plural, response.status)
                if response.status >= 300:
                    raise await self._error(response)
                async for line in _lines(response.content):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(int(status.get("code") or 500), str(status.get("reason") or "Unknown"))
                    yield WatchEvent(event["type"], event["object"])
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(0, f"the watch broke off ({type(error).__name__})") from None

    async def get(self, kind: Kind, *, namespace: str | None, name: str) -> Document | None:
        """See `Kube`."""
        return await self._unless_missing("get", kind, kind.path(namespace, name))

    async def exists(self, kind: Kind, *, namespace: str | None, name: str) -> bool:
        """See `Kube`."""
        return await self._unless_missing("get", kind, kind.path(namespace, name), accept=_METADATA_ONLY) is not None

    async def create(self, kind: Kind, document: Document) -> None:
        """See `Kube`."""
        await self._call("create", kind, kind.path(document["metadata"].get("namespace")), body=document)

    async def apply(self, kind: Kind, document: Document) -> None:
        """See `Kube`."""
        metadata = document["metadata"]
        await self._call(
            "apply",
            kind,
            kind.path(metadata.get("namespace"), metadata["name"]),
            body={"apiVersion": kind.api_version, "kind": kind.name} | document,
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
            content_type="application/apply-patch+yaml",
        )

    async def merge(
        self, kind: Kind, *, namespace: str, name: str, patch: Document, subresource: str | None = None
    ) -> None:
        """See `Kube`."""
        await self._call(
            "patch",
            kind,
            kind.path(namespace, name, subresource),
            body=patch,
            query={"fieldManager": FIELD_MANAGER},
            content_type="application/merge-patch+json",
        )

    async def delete(self, kind: Kind, *, namespace: str, name: str) -> None:
        """See `Kube`."""
        await self._unless_missing("delete", kind, kind.path(namespace, name))

    async def _unless_missing(
        self, verb: str, kind: Kind, path: str, *, accept: str = "application/json"
    ) -> Document | None:
        try:
            return await self._call(verb, kind, path, accept=accept)
        except ApiError as error:
            if error.is_missing:
                return None
            raise

    async def _call(
        self,
        verb: str,
        kind: Kind,
        path: str,
        *,
        body: Document | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Document:
        headers = {"Accept": accept} | ({"Content-Type": content_type} if body is not None else {})
        call = _Call(
            verb=verb,
            kind=kind,
            path=path,
            query={name: value for name, value in (query or {}).items() if value},
            headers=headers,
            body=json.dumps(body).encode() if body is not None else None,
        )
        try:
            return await self._once(call)
        except ApiError as error:
            if error.status != 401:
                raise
        return await self._once(call)

    async def _once(self, call: _Call) -> Document:
        session, connection = self._ready()
        try:
            async with session.request(
                _METHODS[call.verb],
                str(connection.server).rstrip("/") + call.path,
                params=call.query,
                data=call.body,
                headers={**connection.as_http_headers(), **call.headers},
                timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            ) as response:
                self._on_call(call.verb, call.kind.plural, response.status)
                if response.status >= 300:
                    raise await self._error(response)
                document: Document = await response.json(content_type=None)
                return document
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self._on_call(call.verb, call.kind.plural, 0)
            raise ApiError(0, f"the API server could not be asked ({type(error).__name__})") from None

    async def _error(self, response: aiohttp.ClientResponse) -> ApiError:
        if response.status == 401:
            # The token that we hold has expired; the one on disk has been renewed.
            self._connection = None
        try:
            reason = str((await response.json(content_type=None)).get("reason") or response.reason)
        except (aiohttp.ClientError, ValueError, AttributeError):
            reason = str(response.reason)
        wait = response.headers.get("Retry-After", "")
        return ApiError(response.status, reason, retry_after_seconds=float(wait) if wait.isdigit() else None)

    def _ready(self) -> tuple[aiohttp.ClientSession, kopf.ConnectionInfo]:
        connection = self._connection = self._connection or self._login()
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=connection.as_ssl_context(), limit=64)
            self._session = aiohttp.ClientSession(connector=connector, proxy=connection.proxy_url)
        return self._session, connection


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    # An object may be longer than any line that aiohttp reads by itself.
    rest = bytearray()
    async for piece in stream.iter_any():
        rest += piece
        if b"\n" in piece:
            *lines, tail = bytes(rest).split(b"\n")
            rest = bytearray(tail)
            for line in lines:
                if line.strip():
                    yield line


_METHODS: Final = {
    "list": "GET",
    "get": "GET",
    "create": "POST",
    "apply": "PATCH",
    "patch": "PATCH",
    "delete": "DELETE",
}
