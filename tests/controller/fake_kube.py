"""An API server in memory, as far as `Kube` goes: versions, generations, merge and apply patches, watches, failures.

It dies on demand: at the n-th call, before or after its effect, which is how a process dies that was killed.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

from llm_operator.kube import (
    CONFIG_MAP,
    EVENT,
    LLM_PROVIDER,
    NAMESPACE,
    POD,
    SECRET,
    TEAM_QUOTA,
    ApiError,
    Document,
    Kind,
    Listing,
    WatchEvent,
)
from llm_sidecar.contract.names import CONFIG_SECRET_TYPE

Name = tuple[str, str]
Heard = Callable[[Kind, str | None, Document], None]


class Killed(BaseException):
    """The process that made the call is no more. Not an Exception: nothing may survive it."""


class FakeKube:
    """See the module. `put` and `drop` are what users and other controllers do."""

    def __init__(self, seed: int = 0) -> None:
        self.objects: dict[str, dict[Name, Document]] = {
            kind.plural: {} for kind in (LLM_PROVIDER, TEAM_QUOTA, NAMESPACE, SECRET, POD, CONFIG_MAP, EVENT)
        }
        self.calls: list[tuple[str, str, str]] = []
        """Verb, kind and name of each call that came in."""
        self.writes: list[tuple[str, str]] = []
        """Kind and name of each call that changed something."""
        self.failures: Callable[[str, Kind, str], ApiError | None] = lambda _verb, _kind, _name: None
        self.die_at: int | None = None
        self.die_after_the_effect = False
        self._random = random.Random(seed)
        self._version = 0
        self._listeners: list[Heard] = []
        self._watches: list[tuple[Kind, str | None, str, asyncio.Queue[WatchEvent]]] = []

    # --- what users do

    def put(self, kind: Kind, document: Document) -> None:
        """Create or replace an object, its status aside."""
        metadata = document["metadata"]
        name = (metadata.get("namespace", ""), metadata["name"])
        before = self.objects[kind.plural].get(name)
        after = copy.deepcopy(document)
        if before is not None and "status" in before and kind != POD:
            after["status"] = before["status"]
        self._store(kind, name, after)

    def drop(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete an object."""
        document = self.objects[kind.plural].pop((namespace, name))
        self._tell(kind, "DELETED", document, before=document)

    def get_now(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """An object as it is."""
        return copy.deepcopy(self.objects[kind.plural].get((namespace, name)))

    def listen(self, heard: Heard | None) -> None:
        """What kopf does: tell of changes, each object's in their order, different objects' in any."""
        self._listeners = [] if heard is None else [heard]
        self._watches.clear()

    # --- what `Kube` does

    async def list(self, kind: Kind, *, namespace: str | None = None, labels: str = "") -> Listing:
        await self._called("list", kind, namespace or "")
        found = [
            copy.deepcopy(one)
            for (home, _), one in sorted(self.objects[kind.plural].items())
            if namespace in {None, home} and _has(one, labels)
        ]
        await asyncio.sleep(self._random.random() / 100)
        return Listing(found, str(self._version))

    async def watch(self, kind: Kind, *, namespace: str | None, labels: str, version: str) -> AsyncIterator[WatchEvent]:
        await self._called("watch", kind, namespace or "")
        if int(version) < self._version and self._random.random() < 0.5:
            raise ApiError(410, "Expired")
        events: asyncio.Queue[WatchEvent] = asyncio.Queue()
        self._watches.append((kind, namespace, labels, events))
        for one in self.objects[kind.plural].values():
            metadata = one["metadata"]
            is_newer = int(metadata["resourceVersion"]) > int(version)
            if is_newer and namespace in {None, metadata.get("namespace")} and _has(one, labels):
                yield WatchEvent("MODIFIED", copy.deepcopy(one))
        while True:
            yield await events.get()

    async def get(self, kind: Kind, *, namespace: str | None, name: str) -> Document | None:
        await self._called("get", kind, name)
        return self.get_now(kind, namespace or "", name)

    async def exists(self, kind: Kind, *, namespace: str | None, name: str) -> bool:
        await self._called("get", kind, name)
        return (namespace or "", name) in self.objects[kind.plural]

    async def create(self, kind: Kind, document: Document) -> None:
        metadata = document["metadata"]
        name = metadata.get("name") or f"{metadata['generateName']}{len(self.objects[kind.plural])}"
        await self._called("create", kind, name)
        key = (metadata.get("namespace", ""), name)
        if key in self.objects[kind.plural]:
            raise ApiError(409, "AlreadyExists")
        await self._effect(kind, key, copy.deepcopy(document) | {"metadata": metadata | {"name": name}})

    async def apply(self, kind: Kind, document: Document) -> None:
        metadata = document["metadata"]
        await self._called("apply", kind, metadata["name"])
        key = (metadata["namespace"], metadata["name"])
        namespace = self.objects[NAMESPACE.plural].get(("", metadata["namespace"]))
        if namespace is None:
            raise ApiError(404, "NotFound")
        before = self.objects[kind.plural].get(key)
        if before is not None and before.get("type") != document.get("type"):
            raise ApiError(422, "Invalid")
        await self._effect(kind, key, _merged(before or {}, document))

    async def merge(
        self, kind: Kind, *, namespace: str, name: str, patch: Document, subresource: str | None = None
    ) -> None:
        await self._called("patch", kind, name)
        before = self.objects[kind.plural].get((namespace, name))
        if before is None:
            raise ApiError(404, "NotFound")
        assert (subresource == "status") == ("status" in patch)
        uid = patch.get("metadata", {}).get("uid")
        if uid is not None and uid != before["metadata"]["uid"]:
            raise ApiError(409, "Conflict")
        await self._effect(kind, (namespace, name), _merged(before, patch))

    async def delete(self, kind: Kind, *, namespace: str, name: str) -> None:
        await self._called("delete", kind, name)
        if (namespace, name) in self.objects[kind.plural]:
            self.writes.append((kind.plural, name))
            self.drop(kind, namespace, name)
        await self._died_after()

    # --- inside

    async def _called(self, verb: str, kind: Kind, name: str) -> None:
        self.calls.append((verb, kind.plural, name))
        await asyncio.sleep(self._random.random() / 100)
        if self.die_at is not None:
            self.die_at -= 1
            if self.die_at == 0 and not self.die_after_the_effect:
                raise Killed
        if (error := self.failures(verb, kind, name)) is not None:
            raise error

    async def _died_after(self) -> None:
        if self.die_at == 0:
            raise Killed
        await asyncio.sleep(self._random.random() / 100)

    async def _effect(self, kind: Kind, name: Name, document: Document) -> None:
        if self._store(kind, name, document):
            self.writes.append((kind.plural, name[1]))
        await self._died_after()

    def _store(self, kind: Kind, name: Name, document: Document) -> bool:
        before = self.objects[kind.plural].get(name)
        metadata = dict(document["metadata"])
        old = before["metadata"] if before is not None else {}
        self._version += 1
        metadata["uid"] = old.get("uid") or f"uid-{self._version}"
        has_new_spec = before is None or before.get("spec") != document.get("spec")
        metadata["generation"] = old.get("generation", 0) + 1 if has_new_spec else old["generation"]
        metadata["resourceVersion"] = old.get("resourceVersion", "0")
        after = document | {"metadata": metadata}
        if before == after:
            return False
        metadata["resourceVersion"] = str(self._version)
        self.objects[kind.plural][name] = after
        self._tell(kind, "ADDED" if before is None else "MODIFIED", after, before=before)
        return True

    def _tell(self, kind: Kind, event: str, document: Document, *, before: Document | None) -> None:
        copied = copy.deepcopy(document)
        for watched, namespace, labels, events in self._watches:
            if watched == kind and namespace in {None, document["metadata"].get("namespace")}:
                if event != "DELETED" and _has(document, labels):
                    events.put_nowait(WatchEvent(event, copied))
                elif before is not None and _has(before, labels):
                    events.put_nowait(WatchEvent("DELETED", copied))
        if kind not in {LLM_PROVIDER, TEAM_QUOTA, NAMESPACE, POD}:
            return
        for heard in self._listeners:
            # By the object's name: its own events keep their order.
            name = (kind.plural, document["metadata"]["name"])
            delay = random.Random(str(name)).random() / 20
            asyncio.get_running_loop().call_later(delay, self._deliver, heard, kind, event, copied)

    def _deliver(self, heard: Heard, kind: Kind, event: str, document: Document) -> None:
        if heard in self._listeners:
            heard(kind, event, document)


def _has(document: Document, selector: str) -> bool:
    labels = document["metadata"].get("labels") or {}
    pairs = [part.split("=") for part in selector.split(",") if part]
    return all(labels.get(key) == value for key, value in pairs)


def _merged(before: Any, patch: Any) -> Any:
    if not isinstance(patch, dict) or not isinstance(before, dict):
        return copy.deepcopy(patch)
    result = dict(before)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key, {}), value) if isinstance(value, dict) else copy.deepcopy(value)
    return result


def published(kube: FakeKube) -> dict[Name, Document]:
    """The Secrets of ours."""
    return {name: one for name, one in kube.objects[SECRET.plural].items() if one.get("type") == CONFIG_SECRET_TYPE}


def just_now() -> datetime:
    """A wall clock that stands still."""
    return datetime(2026, 11, 22, tzinfo=UTC)
