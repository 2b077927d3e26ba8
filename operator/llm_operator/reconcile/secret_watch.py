"""Following the labelled Secrets of the namespaces whose providers need them, and of no others.

kopf watches a kind in the whole cluster or not at all; Secrets are what an account should be able to read least of.
So each namespace has a small watch of its own, by the label, and the rights to it can be given namespace by namespace.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from llm_operator.kube import SECRET, ApiError, Kube
from llm_operator.reconcile.objects import Key, ObservedSecret, key_of
from llm_operator.reconcile.store import Change, Store
from llm_sidecar.contract.names import CREDENTIALS_LABEL

SELECTOR: Final = f"{CREDENTIALS_LABEL}=true"
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 60.0

_log: Final = logging.getLogger(__name__)


class SecretWatch:
    """One task per namespace. `on_change` is told of Secrets, `on_access` of namespaces that can(not) be read."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        *,
        on_change: Callable[[Change[ObservedSecret]], None],
        on_access: Callable[[str], None],
    ) -> None:
        self._kube = kube
        self._store = store
        self._on_change = on_change
        self._on_access = on_access
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, namespaces: Iterable[str]) -> None:
        """Follow exactly these namespaces."""
        wanted = set(namespaces)
        for namespace in self._tasks.keys() - wanted:
            self._tasks.pop(namespace).cancel()
            self._store.read.discard(namespace)
            self._store.unreadable.discard(namespace)
            for secret in [one for one in self._store.secrets.values() if one.key.namespace == namespace]:
                self._on_change(self._store.secrets.remove(secret.key))
        for namespace in sorted(wanted - self._tasks.keys()):
            self._tasks[namespace] = asyncio.create_task(self._follow(namespace))

    async def close(self) -> None:
        """Stop all."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, namespace: str) -> None:
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            try:
                version = await self._list(namespace)
                pause_seconds = FIRST_PAUSE_SECONDS
                await self._watch(namespace, version)
            except ApiError as error:
                if error.is_forbidden and namespace not in self._store.unreadable:
                    self._store.unreadable.add(namespace)
                    self._on_access(namespace)
                if error.status != 410:
                    _log.warning("Secrets of namespace %s: %s", namespace, error)
            except Exception as error:  # noqa: BLE001 - one namespace must not stop the others
                _log.warning("Secrets of namespace %s: %s", namespace, type(error).__name__)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, LONGEST_PAUSE_SECONDS)

    async def _list(self, namespace: str) -> str:
        listing = await self._kube.list(SECRET, namespace=namespace, labels=SELECTOR)
        changes = self._store.secrets.replace(listing.items, namespace=namespace)
        is_news = namespace not in self._store.read or namespace in self._store.unreadable
        self._store.unreadable.discard(namespace)
        self._store.read.add(namespace)
        if is_news:
            self._on_access(namespace)
        for change in changes:
            self._on_change(change)
        return listing.version

    async def _watch(self, namespace: str, version: str) -> None:
        async for event in self._kube.watch(SECRET, namespace=namespace, labels=SELECTOR, version=version):
            key: Key = key_of(event.document)
            # A Secret that loses the label is told of as deleted.
            gone = event.type == "DELETED"
            self._on_change(self._store.secrets.remove(key) if gone else self._store.secrets.put(event.document))
