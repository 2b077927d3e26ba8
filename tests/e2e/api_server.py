"""The API server over one open connection, for what is timed: each kubectl spends a fifth of a second on itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import kopf

from tests.cluster.cluster import Cluster

Object = dict[str, Any]

_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServer:
    """Whoever the kubeconfig names, with all rights of theirs."""

    session: aiohttp.ClientSession
    connection: kopf.ConnectionInfo

    async def create_pod(self, pod: Mapping[str, Any], *, namespace: str, dry_run: bool = False) -> Object:
        """Make a pod, or only ask what would be stored."""
        query = {"dryRun": "All"} if dry_run else {}
        return await self._send("POST", f"/api/v1/namespaces/{namespace}/pods", pod, query=query)

    async def merge(self, path: str, patch: Mapping[str, Any]) -> Object:
        """A merge patch of the object at a path."""
        return await self._send("PATCH", path, patch, content_type="application/merge-patch+json")

    async def get(self, path: str, **query: str) -> Object:
        """What is at a path."""
        return await self._send("GET", path, None, query=query)

    async def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        async with self.session.request(
            method,
            str(self.connection.server).rstrip("/") + path,
            params=dict(query or {}),
            data=json.dumps(body) if body is not None else None,
            headers={**self.connection.as_http_headers(), "Content-Type": content_type},
        ) as response:
            answer: Object = await response.json(content_type=None)
            assert response.status < 300, f"{method} {path}: {response.status} {answer.get('message')}"
            return answer


@asynccontextmanager
async def connected(cluster: Cluster) -> AsyncIterator[ApiServer]:
    """Connections to a cluster's API server, kept open inside this block."""
    view = cluster.kubectl("config", "view", "--raw", "--minify", "--flatten")
    where, who = view["clusters"][0]["cluster"], view["users"][0]["user"]
    connection = kopf.ConnectionInfo(
        server=where["server"],
        ca_data=where.get("certificate-authority-data"),
        certificate_data=who.get("client-certificate-data"),
        private_key_data=who.get("client-key-data"),
        token=who.get("token"),
    )
    connector = aiohttp.TCPConnector(ssl=connection.as_ssl_context(), keepalive_timeout=60)
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield ApiServer(session=session, connection=connection)
