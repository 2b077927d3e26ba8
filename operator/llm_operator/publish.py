"""Publishing: the Secret of a claim, the pods that mount it, and the list of what was published.

The list (names alone, in a ConfigMap of the operator's namespace) is written before a Secret is, so that no Secret is
ever left over unknown: the controller needs no right to list the Secrets of a cluster.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from llm_operator.inject.outcome import Team
from llm_operator.kube import CONFIG_MAP, POD, SECRET, ApiError, Kube
from llm_operator.reconcile.metrics import ControllerMetrics
from llm_operator.reconcile.objects import Claim, ObservedPod
from llm_operator.render import Rendering
from llm_operator.settings import Settings
from llm_sidecar.contract.names import (
    CONFIG_HASH_ANNOTATION,
    CONFIG_KEY,
    CONFIG_SECRET_TYPE,
    TEAM_LABEL,
    TEAM_NAMESPACE_LABEL,
)

LEDGER_NAME: Final = "llm-sidecar-published"
MANAGED_BY_LABELS: Final = {"app.kubernetes.io/managed-by": "llm-sidecar"}
REAFFIRM_SECONDS: Final = 1800
"""After this long a Secret is applied again, though nothing changed: somebody may have changed or deleted it."""
RECHECK_SECONDS: Final = 30
"""The same where a new pod waits for it."""


@dataclass(frozen=True, slots=True)
class Published:
    """What this process last applied for a claim."""

    hash: str
    at: float


class Publisher:
    """Writes what claims need. One call at a time for one claim."""

    def __init__(
        self, kube: Kube, settings: Settings, *, clock: Callable[[], float], metrics: ControllerMetrics
    ) -> None:
        self._kube = kube
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._ledger: set[Claim] = set()
        self._published: dict[Claim, Published] = {}

    @property
    def claims(self) -> frozenset[Claim]:
        """Every claim that has a Secret, or may have one."""
        return frozenset(self._ledger)

    def hash_of(self, claim: Claim) -> str | None:
        """What the pods of a claim should have; None before this process has applied it."""
        published = self._published.get(claim)
        return published.hash if published is not None else None

    async def load(self) -> None:
        """Read the list. Raises `ApiError`."""
        document = await self._kube.get(CONFIG_MAP, namespace=self._settings.namespace, name=LEDGER_NAME)
        names = (document or {}).get("data") or {}
        self._ledger |= {claim for name in names if (claim := _claim_of(name)) is not None}
        self._metrics.published.set(len(self._ledger))

    async def publish(self, claim: Claim, rendering: Rendering, *, is_awaited: bool) -> bool:
        """Make the Secret so; True where it may have changed. `is_awaited`: a pod without it is there."""
        before = self._published.get(claim)
        patience = RECHECK_SECONDS if is_awaited else REAFFIRM_SECONDS
        if before is not None and before.hash == rendering.hash and self._clock() - before.at < patience:
            return False
        await self._remember(claim)
        await self._kube.apply(SECRET, secret_document(claim, rendering))
        self._published[claim] = Published(rendering.hash, self._clock())
        self._metrics.secret_writes.inc()
        return before is None or before.hash != rendering.hash

    async def remove(self, claim: Claim) -> None:
        """Delete a Secret that nobody uses any more."""
        await self._kube.delete(SECRET, namespace=claim.namespace, name=claim.team.secret)
        await self.forget(claim)

    async def forget(self, claim: Claim) -> None:
        """The Secret is gone, or about to go with its namespace."""
        self._published.pop(claim, None)
        if claim in self._ledger:
            patch = {"data": {_name_of(claim): None}}
            await self._kube.merge(CONFIG_MAP, namespace=self._settings.namespace, name=LEDGER_NAME, patch=patch)
            self._ledger.discard(claim)
            self._metrics.published.set(len(self._ledger))

    async def touch(self, pod: ObservedPod, wanted: str) -> None:
        """Write the hash on a pod, so that its kubelet looks at the Secret at once. A pod that is gone is no error."""
        patch = {"metadata": {"uid": pod.uid, "annotations": {CONFIG_HASH_ANNOTATION: wanted}}}
        try:
            await self._kube.merge(POD, namespace=pod.key.namespace, name=pod.key.name, patch=patch)
        except ApiError as error:
            # 409: another pod has this name by now.
            if error.status not in {404, 409}:
                raise

    async def _remember(self, claim: Claim) -> None:
        if claim in self._ledger:
            return
        namespace, data = self._settings.namespace, {_name_of(claim): ""}
        try:
            await self._kube.merge(CONFIG_MAP, namespace=namespace, name=LEDGER_NAME, patch={"data": data})
        except ApiError as error:
            if not error.is_missing:
                raise
            metadata = {"namespace": namespace, "name": LEDGER_NAME, "labels": MANAGED_BY_LABELS}
            await self._kube.create(CONFIG_MAP, {"metadata": metadata, "data": data})
        self._ledger.add(claim)
        self._metrics.published.set(len(self._ledger))


def secret_document(claim: Claim, rendering: Rendering) -> dict[str, Any]:
    """The Secret of a claim, as it is applied."""
    labels = {TEAM_NAMESPACE_LABEL: claim.team.namespace, TEAM_LABEL: claim.team.name}
    return {
        "metadata": {
            "namespace": claim.namespace,
            "name": claim.team.secret,
            "labels": MANAGED_BY_LABELS | labels,
            "annotations": {CONFIG_HASH_ANNOTATION: rendering.hash},
        },
        "type": CONFIG_SECRET_TYPE,
        "data": {CONFIG_KEY: base64.b64encode(rendering.raw).decode()},
    }


def _name_of(claim: Claim) -> str:
    # None of the three can hold a dot.
    return f"{claim.namespace}.{claim.team.namespace}.{claim.team.name}"


def _claim_of(name: str) -> Claim | None:
    parts = name.split(".")
    return Claim(parts[0], Team(parts[1], parts[2])) if len(parts) == 3 and all(parts) else None
