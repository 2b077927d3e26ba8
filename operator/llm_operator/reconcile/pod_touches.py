"""Pods whose configuration changed: each is touched, so that its kubelet looks at the Secret at once, and at a pace."""

from __future__ import annotations

import asyncio
from typing import Final

from llm_operator.reconcile.objects import Key
from llm_operator.reconcile.queue import WorkQueue
from llm_operator.reconcile.state import State, Surroundings

POD_WORKERS: Final = 8


class PodToucher:
    """A queue of its own: a thousand pods of one team hold up no other object."""

    def __init__(self, state: State, surroundings: Surroundings) -> None:
        self._state = state
        self._clock = surroundings.clock
        self._metrics = surroundings.metrics
        self._patches_per_second = surroundings.settings.pod_patches_per_second
        self._queue: WorkQueue[Key] = WorkQueue(self._clock)
        self._next_patch_at = 0.0

    def mark(self, key: Key) -> None:
        """Look at a pod: it may carry another hash than what is published."""
        self._queue.mark(key)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Work in this group, until it is cancelled."""
        for _ in range(POD_WORKERS):
            group.create_task(self._queue.work(self._touch))

    async def _touch(self, key: Key) -> None:
        self._metrics.queue_depth.labels("pods").set(len(self._queue))
        publisher = self._state.publisher
        pod = self._state.store.pods.get(key)
        wanted = publisher.hash_of(pod.claim) if pod is not None else None
        if pod is None or wanted is None or pod.config_hash == wanted:
            return
        now = self._clock()
        self._next_patch_at = max(now, self._next_patch_at) + 1 / self._patches_per_second
        await asyncio.sleep(self._next_patch_at - now)
        await publisher.touch(pod, publisher.hash_of(pod.claim) or wanted)
