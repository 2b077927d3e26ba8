"""kopf's part: it watches, and hands on what it hears. It writes nothing: no finalizer, no annotation, no event.

It gets a thread and a loop of its own, because it takes the loop that it runs in for its own: it handles the signals,
and when it ends it cancels every task that it finds.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import kopf

from llm_operator.kube import LLM_PROVIDER, NAMESPACE, POD, TEAM_QUOTA, Document, Kind
from llm_operator.reconcile.loop import POD_SELECTOR

Heard = Callable[[Kind, str | None, Document], None]

WATCHED: Final = (LLM_PROVIDER, TEAM_QUOTA, NAMESPACE, POD)
CONNECT_SECONDS: Final = 10.0


def login() -> kopf.ConnectionInfo:
    """The cluster that we run in, or that of KUBECONFIG. Raises `kopf.LoginError`."""
    settings = kopf.OperatorSettings()
    found = kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)
    if found is None:
        raise kopf.LoginError("there is neither a ServiceAccount's token nor a KUBECONFIG. Fix: run it in a cluster")
    return found


def watch_cluster(heard: Heard, stop: threading.Event) -> None:
    """Watch until `stop` is set. `heard` is called in this thread. Raises what ends kopf."""
    asyncio.run(_operate(heard, stop))


async def _operate(heard: Heard, stop: threading.Event) -> None:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    # The four kinds are there, or the first listing would have failed: no need to watch the CRDs for them.
    settings.scanning.disabled = True
    settings.watching.connect_timeout = CONNECT_SECONDS
    settings.watching.label_selectors["", "v1", POD.plural] = POD_SELECTOR
    # Else kopf asks for the user's name, and a container's numeric user has none.
    identity: Any = "llm-operator"
    try:
        await kopf.operator(
            registry=_registry(heard),
            settings=settings,
            identity=identity,
            clusterwide=True,
            standalone=True,
            stop_flag=stop,
        )
    finally:
        # kopf waits for it in a thread, which would keep this loop from closing.
        stop.set()


def _registry(heard: Heard) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    for kind in WATCHED:
        _listen(registry, kind, heard)

    @kopf.on.login(registry=registry)
    async def on_login(**_: Any) -> kopf.ConnectionInfo:
        return login()

    return registry


def _listen(registry: kopf.OperatorRegistry, kind: Kind, heard: Heard) -> None:
    group, _, version = kind.api_version.rpartition("/")

    @kopf.on.event(group=group, version=version, plural=kind.plural, registry=registry, id=f"on-{kind.plural}")
    async def on_event(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
        heard(kind, type, _plain(body))


def _plain(value: Any) -> Any:
    """Kopf's views as dicts and lists: they are read in another thread, later."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
