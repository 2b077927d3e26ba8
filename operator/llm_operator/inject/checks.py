"""What a pod may not have if it wants the proxy: one small check each, all of them asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from llm_operator.inject.container import labels
from llm_operator.inject.options import Options
from llm_operator.inject.outcome import Inject
from llm_operator.inject.pod import Document, containers_of, labels_of, volumes_of
from llm_operator.inject.reasons import Problem, RefuseReason
from llm_sidecar.contract.names import (
    CONFIG_SECRET_PREFIX,
    CONFIG_VOLUME,
    INJECTED_LABEL,
    NO_TOKEN_VOLUME,
    SIDECAR_CONTAINER,
    STATE_VOLUME,
)
from llm_sidecar.contract.violations import nearest

OUR_VOLUMES: Final = (CONFIG_VOLUME, NO_TOKEN_VOLUME, STATE_VOLUME)


def problems_of(pod: Document, options: Options) -> Iterator[Problem]:
    """Everything about the pod that does not depend on its team."""
    for check in _CHECKS:
        yield from check(pod, options)


def label_problems(pod: Document, decision: Inject) -> Iterator[Problem]:
    """Labels of ours that say something else.

    Replaced, they might no longer match the selector of the pod's ReplicaSet, which would make pods without end.
    """
    given = labels_of(pod)
    for key, value in labels(decision).items():
        if key != INJECTED_LABEL and given.get(key, value) != value:
            yield Problem(RefuseReason.NAME_TAKEN, f"label {key}")


def _windows(pod: Document, _options: Options) -> Iterator[Problem]:
    spec = pod["spec"]
    names = (spec.get("os") or {}).get("name"), (spec.get("nodeSelector") or {}).get("kubernetes.io/os")
    if "windows" in names:
        yield Problem(RefuseReason.WINDOWS)


def _host_network(pod: Document, _options: Options) -> Iterator[Problem]:
    if pod["spec"].get("hostNetwork"):
        yield Problem(RefuseReason.HOST_NETWORK)


def _shared_processes(pod: Document, _options: Options) -> Iterator[Problem]:
    for field in ("shareProcessNamespace", "hostPID"):
        if pod["spec"].get(field):
            yield Problem(RefuseReason.SHARED_PROCESS_NAMESPACE, f"spec.{field}")


def _unknown_containers(pod: Document, options: Options) -> Iterator[Problem]:
    known = [container["name"] for _, _, container in containers_of(pod, "initContainers", "containers")]
    known = [name for name in known if name != SIDECAR_CONTAINER]
    for name in options.containers or ():
        if name not in known:
            meant = nearest(name, known)
            yield Problem(RefuseReason.UNKNOWN_CONTAINER, f"{name}; did you mean {meant}?" if meant else name)


def _port_clash(pod: Document, options: Options) -> Iterator[Problem]:
    for _, _, container in containers_of(pod):
        if container["name"] == SIDECAR_CONTAINER:
            continue
        for port in container.get("ports") or ():
            number = port.get("containerPort")
            if number in (options.port, options.admin_port) and port.get("protocol", "TCP") in ("TCP", None):
                yield Problem(RefuseReason.PORT_CLASH, f"container {container['name']}, port {number}")


def _mounts_of_our_volumes(pod: Document, _options: Options) -> Iterator[Problem]:
    for _, _, container in containers_of(pod):
        if container["name"] == SIDECAR_CONTAINER:
            continue
        for field in ("volumeMounts", "volumeDevices"):
            for mount in container.get(field) or ():
                if mount["name"] in OUR_VOLUMES:
                    yield Problem(
                        RefuseReason.CONFIG_USED, f"container {container['name']} mounts volume {mount['name']}"
                    )


def _uses_of_our_secrets(pod: Document, _options: Options) -> Iterator[Problem]:
    """Any reference to a Secret of ours, whatever field holds it: volume types that name a Secret are many."""
    # The volume that is ours is compared as a whole later on.
    spec = {**pod["spec"], "volumes": [one for one in volumes_of(pod) if one["name"] != CONFIG_VOLUME]}
    # A queue instead of recursion: documents may be nested deeper than Python's stack.
    remaining: deque[tuple[Any, str, str]] = deque([(spec, "spec", "")])
    while remaining:
        value, path, owner = remaining.popleft()
        if isinstance(value, list):
            remaining += [(item, f"{path}[{position}]", owner) for position, item in enumerate(value)]
        elif isinstance(value, dict):
            remaining += [(item, f"{path}.{key}", key) for key, item in value.items() if isinstance(item, dict | list)]
            if any(_names_our_secret(key, item, owner) for key, item in value.items()):
                yield Problem(
                    RefuseReason.CONFIG_USED, f"{path[:120]} refers to a Secret called {CONFIG_SECRET_PREFIX}…"
                )


def _names_our_secret(key: str, value: Any, owner: str) -> bool:
    return (
        isinstance(value, str)
        and value.startswith(CONFIG_SECRET_PREFIX)
        and ("secret" in key.lower() or (key == "name" and "secret" in owner.lower()))
    )


_CHECKS: Final[tuple[Callable[[Document, Options], Iterator[Problem]], ...]] = (
    _windows,
    _host_network,
    _shared_processes,
    _mounts_of_our_volumes,
    _uses_of_our_secrets,
    _unknown_containers,
    _port_clash,
)
