"""What the webhook knows of the cluster: TeamQuotas, and the labels of namespaces. Read by kopf's watches, written
nowhere.

The answers come from another thread than the events; each is one look into a dict, which needs no lock. A deletion
that happens while a watch is broken for longer than the API server remembers is not heard of until the process
starts anew. That is no hole: whoever may claim a team is asked again by the controller, before it publishes anything.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import kopf

from llm_sidecar.contract.names import API_GROUP, API_VERSION

_NO_LABELS: Mapping[str, str] = {}


@dataclass(slots=True)
class Known:
    """A `TeamLookup` that watches fill."""

    complete: bool = False
    """True once all that exists has been listed. Before, a pod would be refused for a team that is only not known yet.
    """
    _quotas: dict[tuple[str, str], tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    _labels: dict[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)

    def team_quota(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """The TeamQuota, or None where there is none."""
        found = self._quotas.get((namespace, name))
        return found[1] if found else None

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        """The labels of a namespace; none where it is unknown."""
        found = self._labels.get(namespace)
        return found[1] if found else _NO_LABELS

    def put_quota(self, body: Mapping[str, Any]) -> None:
        """A TeamQuota is there, or has changed."""
        metadata = body["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        document = {"metadata": {"namespace": namespace, "name": name}, "spec": _plain(body.get("spec") or {})}
        self._quotas[namespace, name] = metadata["uid"], document

    def drop_quota(self, body: Mapping[str, Any]) -> None:
        """A TeamQuota is gone."""
        metadata = body["metadata"]
        _drop(self._quotas, (metadata["namespace"], metadata["name"]), metadata["uid"])

    def put_namespace(self, body: Mapping[str, Any]) -> None:
        """A namespace is there, or has changed."""
        metadata = body["metadata"]
        self._labels[metadata["name"]] = metadata["uid"], dict(metadata.get("labels") or {})

    def drop_namespace(self, body: Mapping[str, Any]) -> None:
        """A namespace is gone."""
        metadata = body["metadata"]
        _drop(self._labels, metadata["name"], metadata["uid"])


def watch_cluster(known: Known, stop: threading.Event) -> None:
    """Watch until `stop` is set. Raises what ends kopf: no credentials, no permission to list."""
    # It warns that it gets no signals in a thread: they are ours here.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
    asyncio.run(_operate(known, stop))


async def _operate(known: Known, stop: threading.Event) -> None:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    # The chart brings the CRDs first; to watch for later ones needs a permission that the webhook does not have.
    settings.scanning.disabled = True
    # Else kopf asks for the user's name, and a container's numeric user has none.
    identity: Any = "llm-operator"
    try:
        await kopf.operator(
            registry=_registry(known),
            settings=settings,
            identity=identity,
            clusterwide=True,
            standalone=True,
            stop_flag=stop,
        )
    finally:
        # kopf waits for it in a thread, which would keep this loop from closing.
        stop.set()


def _registry(known: Known) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    quotas: dict[str, Any] = {"group": API_GROUP, "version": API_VERSION, "plural": "teamquotas", "registry": registry}
    namespaces: dict[str, Any] = {"group": "", "version": "v1", "plural": "namespaces", "registry": registry}

    # kopf hands an object to its indices first, and to event handlers only once every index has been listed.
    @kopf.index(id="index-quota", **quotas)
    async def index_quota(body: kopf.Body, **_: Any) -> None:
        known.put_quota(body)

    @kopf.index(id="index-namespace", **namespaces)
    async def index_namespace(body: kopf.Body, **_: Any) -> None:
        known.put_namespace(body)

    @kopf.on.event(id="quota", **quotas)
    async def on_quota(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
        if type == "DELETED":
            known.drop_quota(body)

    @kopf.on.event(id="namespace", **namespaces)
    async def on_namespace(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
        # There is always a namespace, so that this is always called.
        known.complete = True
        if type == "DELETED":
            known.drop_namespace(body)

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    return registry


def _drop(found: dict[Any, tuple[str, Any]], key: Any, uid: str) -> None:
    # Events of two objects, one made after the other under the same name, may come in any order.
    if key in found and found[key][0] == uid:
        del found[key]


def _plain(value: Any) -> Any:
    """Kopf's views as dicts and lists: they are read from another thread, later."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
