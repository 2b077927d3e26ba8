"""Writes a resource's conditions where they changed, and an Event where the summary did."""

from __future__ import annotations

import contextlib
from typing import Any

from llm_operator.kube import EVENT, ApiError, Kind
from llm_operator.reconcile.objects import ObservedResource
from llm_operator.reconcile.state import Surroundings
from llm_operator.status import Condition, Truth, status_document, transition


class StatusWriter:
    """See the module."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._kube = surroundings.kube
        self._timestamp = surroundings.timestamp

    async def write(self, kind: Kind, observed: ObservedResource[Any], conditions: tuple[Condition, ...]) -> None:
        """Make the status say so. Raises `ApiError`."""
        previous, key = observed.status, observed.key
        status = status_document(conditions, generation=observed.generation, previous=previous, now=self._timestamp())
        if status is None:
            return
        try:
            await self._kube.merge(
                kind, namespace=key.namespace, name=key.name, patch={"status": status}, subresource="status"
            )
        except ApiError as error:
            if error.is_missing:
                return
            raise
        # The event that tells of it is still to come; until then this is what is there.
        observed.document["status"] = status
        if transition(conditions[-1], previous):
            await self.tell(kind, observed, conditions[-1])

    async def tell(self, kind: Kind, observed: ObservedResource[Any], condition: Condition) -> None:
        """An Event, for those who `kubectl describe`. One that is lost is no loss."""
        now, key = self._timestamp(), observed.key
        event = {
            "metadata": {"generateName": f"{key.name}.", "namespace": key.namespace},
            "involvedObject": {
                "apiVersion": kind.api_version,
                "kind": kind.name,
                "namespace": key.namespace,
                "name": key.name,
                "uid": observed.uid,
            },
            "type": "Warning" if condition.truth is Truth.FALSE else "Normal",
            "reason": str(condition.reason),
            "message": condition.message[:1024],
            "source": {"component": "llm-sidecar-controller"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        with contextlib.suppress(ApiError):
            await self._kube.create(EVENT, event)
