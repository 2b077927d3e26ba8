"""Injected pods without a kubelet's work: asked for and not made, or made and held back from every node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from llm_sidecar.contract.names import CONFIG_HASH_ANNOTATION, INJECTED_LABEL, SIDECAR_CONTAINER, config_secret
from tests.cluster import pods
from tests.e2e import resources
from tests.e2e.api_server import ApiServer
from tests.e2e.applications import INJECT
from tests.e2e.release import Release

PODS_PER_SECOND: Final = 20
_GATE: Final = "llm-sidecar.test/simulated"
TEAM: Final = "default"

Placed = tuple[str, resources.Object]
"""A namespace, and a manifest for it."""


def simulated(name: str, *, annotations: Mapping[str, str] = INJECT) -> resources.Object:
    """A pod that no scheduler gives to a node."""
    pod = pods.pod(name, pods.spec(pods.container("app", image="simulated"), schedulingGates=[{"name": _GATE}]))
    pod["metadata"]["annotations"] = dict(annotations)
    return pod


def is_injected(pod: Mapping[str, Any]) -> bool:
    """Whether it was given the proxy."""
    return any(one["name"] == SIDECAR_CONTAINER for one in pod["spec"].get("initContainers", ()))


async def submit(
    api: ApiServer, manifests: Sequence[Placed], *, dry_run: bool
) -> tuple[list[Mapping[str, Any]], list[float]]:
    """Submit pods at `PODS_PER_SECOND`, however long each takes; returns what was stored, and after how long."""
    began = time.perf_counter()

    async def one(number: int, namespace: str, manifest: resources.Object) -> tuple[Mapping[str, Any], float]:
        await asyncio.sleep(max(0.0, began + number / PODS_PER_SECOND - time.perf_counter()))
        sent = time.perf_counter()
        stored = await api.create_pod(manifest, namespace=namespace, dry_run=dry_run)
        return stored, time.perf_counter() - sent

    answers = await asyncio.gather(*(one(number, *manifest) for number, manifest in enumerate(manifests)))
    return [stored for stored, _ in answers], [seconds for _, seconds in answers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Simulated pods in namespaces of their own, each with a team."""

    release: Release
    namespaces: tuple[str, ...]
    pods_each: int

    def manifests(self) -> list[Placed]:
        """All pods, one namespace after the other in turns."""
        return [
            (namespace, simulated(f"simulated-{number}"))
            for number in range(self.pods_each)
            for namespace in self.namespaces
        ]

    async def is_told(self, api: ApiServer) -> bool:
        """Whether every pod carries the hash of what is published for its team."""
        return all([await self._is_told(api, namespace) for namespace in self.namespaces])

    async def is_told_anew(self, api: ApiServer, before: Mapping[str, str | None], teams: int) -> bool:
        """Whether so many teams have another configuration than before, and every pod carries its hash."""
        now = await self.hashes(api)
        changed = sum(now[namespace] != before[namespace] for namespace in self.namespaces)
        return changed == teams and await self.is_told(api)

    async def hashes(self, api: ApiServer) -> dict[str, str | None]:
        """What is published for each namespace's team."""
        return {namespace: await self._published(api, namespace) for namespace in self.namespaces}

    async def _is_told(self, api: ApiServer, namespace: str) -> bool:
        published = await self._published(api, namespace)
        found = await api.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"{INJECTED_LABEL}=true")
        told = [one["metadata"]["annotations"].get(CONFIG_HASH_ANNOTATION) for one in found["items"]]
        return published is not None and told == [published] * self.pods_each

    async def _published(self, api: ApiServer, namespace: str) -> str | None:
        wanted = config_secret(namespace, TEAM)
        found = await api.get(f"/api/v1/namespaces/{namespace}/secrets", fieldSelector=f"metadata.name={wanted}")
        return next((one["metadata"]["annotations"][CONFIG_HASH_ANNOTATION] for one in found["items"]), None)


@contextmanager
def crowd(release: Release, *, namespaces: int, pods_each: int) -> Iterator[Crowd]:
    """Namespaces with a team each, ready for their pods."""
    with ExitStack() as stack:
        names = tuple(stack.enter_context(release.cluster.namespace("e2e-crowd")) for _ in range(namespaces))
        for name in names:
            release.cluster.apply(resources.team_quota(TEAM), namespace=name)
        yield Crowd(release=release, namespaces=names, pods_each=pods_each)
