"""The little of an API server that kopf needs to watch two kinds: discovery, lists and watches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

_KINDS = {
    "namespaces": "v1",
    "teamquotas": "llm-sidecar.io/v1alpha1",
    "customresourcedefinitions": "apiextensions.k8s.io/v1",
}
_VERBS = ["get", "list", "watch"]


class FakeApiServer:
    """Holds objects by kind; changes go to the watches that are open."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {plural: {} for plural in _KINDS}
        self.listing_allowed = asyncio.Event()
        self.listing_allowed.set()
        self.requests: list[tuple[str, str]] = []
        self._watches: dict[str, set[asyncio.Queue[dict[str, Any] | None]]] = {plural: set() for plural in _KINDS}
        self._version = 100

    def put(self, plural: str, name: str, *, namespace: str | None = None, **content: Any) -> None:
        """Create or change an object."""
        self._version += 1
        key = f"{namespace}/{name}"
        old = self.objects[plural].get(key)
        metadata = {
            "name": name,
            **({"namespace": namespace} if namespace else {}),
            "uid": old["metadata"]["uid"] if old else f"uid-{self._version}",
            "resourceVersion": str(self._version),
            **content.pop("metadata", {}),
        }
        document = {"metadata": metadata, **content}
        self.objects[plural][key] = document
        self._tell(plural, "MODIFIED" if old else "ADDED", document)

    def remove(self, plural: str, name: str, *, namespace: str | None = None) -> None:
        """Delete an object."""
        self._tell(plural, "DELETED", self.objects[plural].pop(f"{namespace}/{name}"))

    def _tell(self, plural: str, kind: str, document: dict[str, Any]) -> None:
        for queue in self._watches[plural]:
            queue.put_nowait({"type": kind, "object": document})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            for queue in (queue for queues in self._watches.values() for queue in queues):
                queue.put_nowait(None)
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        parts = request.path.strip("/").split("/")
        plural = parts[-1]
        if plural in _KINDS and request.method == "GET":
            return await (self._watch if "watch" in request.query else self._list)(request, plural)
        return web.json_response(_discovery(request.path))

    async def _list(self, _request: web.Request, plural: str) -> web.StreamResponse:
        await self.listing_allowed.wait()
        items = list(self.objects[plural].values())
        return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": items})

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        response = web.StreamResponse()
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._watches[plural].add(queue)
        await response.prepare(request)
        while (event := await queue.get()) is not None:
            await response.write(json.dumps(event).encode() + b"\n")
        return response


def _discovery(path: str) -> dict[str, Any]:
    if path == "/api":
        return {"versions": ["v1"]}
    if path == "/apis":
        versions = [version for version in _KINDS.values() if "/" in version]
        return {
            "groups": [
                {
                    "name": version.split("/")[0],
                    "preferredVersion": {"version": version.split("/")[1]},
                    "versions": [{"version": version.split("/")[1]}],
                }
                for version in versions
            ]
        }
    group_version = path.removeprefix("/apis/").removeprefix("/api/")
    return {
        "resources": [
            {
                "name": plural,
                "kind": plural.title(),
                "singularName": plural,
                "shortNames": [],
                "namespaced": plural == "teamquotas",
                "verbs": _VERBS,
            }
            for plural, version in _KINDS.items()
            if version == group_version
        ]
    }
