"""Writes a resource's conditions where they changed, and an Event where the summary did."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from llm_operator.events import event_document
from llm_operator.kube import EVENT, ApiError, Kind
from llm_operator.reconcile.objects import ObservedResource
from llm_operator.reconcile.state import Surroundings
from llm_operator.status import Condition, Truth, merged, status_document, transition


class StatusWriter:
    """See the module."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._kube = surroundings.kube
        self._timestamp = surroundings.timestamp

    async def write(
        self,
        kind: Kind,
        observed: ObservedResource[Any],
        conditions: tuple[Condition, ...],
        *,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the status say so, `figures` with it: see `status_document`. Raises `ApiError`."""
        previous, key = observed.status, observed.key
        status = status_document(
            conditions, generation=observed.generation, previous=previous, now=self._timestamp(), figures=figures
        )
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
        observed.document["status"] = merged(previous, status)
        if transition(conditions[-1], previous):
            await self.tell(kind, observed, conditions[-1])

    async def tell(self, kind: Kind, observed: ObservedResource[Any], condition: Condition) -> None:
        """An Event, for those who `kubectl describe`. One that is lost is no loss."""
        event = event_document(
            kind,
            observed.key,
            uid=observed.uid,
            warns=condition.truth is Truth.FALSE,
            reason=str(condition.reason),
            message=condition.message,
            now=self._timestamp(),
        )
        with contextlib.suppress(ApiError):
            await self._kube.create(EVENT, event)
