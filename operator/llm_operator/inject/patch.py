"""From a pod and a decision to the operations of a JSON Patch: additions only, but where the app's own value changes.

Lists are never replaced as a whole: an API server or a webhook that knows a field which we do not must find it again.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final

from llm_operator.inject.container import labels, sidecar_container, sidecar_volumes, status
from llm_operator.inject.environment import (
    Operation,
    environment_operations,
    environment_warnings,
    sdk_environments,
)
from llm_operator.inject.outcome import Inject
from llm_operator.inject.pod import Document, annotations_of, containers_of, is_native_sidecar, labels_of, volumes_of
from llm_operator.inject.resources import resource_warnings
from llm_sidecar.contract.names import SIDECAR_CONTAINER, STATUS_ANNOTATION

DEFAULT_CONTAINER_ANNOTATION: Final = "kubectl.kubernetes.io/default-container"

_MESH_PROXIES: Final = frozenset({"istio-proxy", "linkerd-proxy"})
_MESH_CONTAINERS: Final = _MESH_PROXIES | {
    "istio-init",
    "istio-validation",
    "linkerd-init",
    "linkerd-network-validator",
}

_NOT_MADE_YET: Final = "\0"
"""What no variable can hold: stands for a token that is not made yet."""


def new_token() -> str:
    """A token for one pod: what its containers present to the proxy as their API key."""
    return secrets.token_urlsafe(32)


def inject(pod: Document, decision: Inject, *, token: str) -> list[Operation]:
    """What gives the pod its proxy; empty where it has all of it.

    `token` serves a pod that has none yet. Paths count on the order: environment first, by the positions that the
    containers have in `pod`, and the proxy's container, which moves others, after it.
    """
    token = decision.kept_token or token
    return [
        *_environment(pod, decision, token),
        *_container(pod, decision, token),
        *_volumes(pod, decision),
        *_metadata(pod, decision),
    ]


def warnings_for(pod: Document, decision: Inject) -> tuple[str, ...]:
    """What the pod's owner should know about it, though it gets the proxy."""
    options = decision.options
    sdks = sdk_environments(port=options.port, token=decision.kept_token or _NOT_MADE_YET)
    return (
        *(
            warning
            for _, container in _served_containers(pod, decision)
            for warning in environment_warnings(container, sdks=sdks, policy=options.env)
        ),
        *resource_warnings(pod, options=options),
        *_early_containers(pod),
    )


def wire(operations: list[Operation]) -> bytes:
    """The patch as it goes to the API server."""
    return json.dumps(operations, separators=(",", ":")).encode()


def _environment(pod: Document, decision: Inject, token: str) -> Iterator[Operation]:
    sdks = sdk_environments(port=decision.options.port, token=token)
    for path, container in _served_containers(pod, decision):
        yield from environment_operations(container, path=path, sdks=sdks, policy=decision.options.env)


def _container(pod: Document, decision: Inject, token: str) -> Iterator[Operation]:
    if _has_sidecar(pod):
        return
    container = sidecar_container(pod, decision, token=token)
    if pod["spec"].get("initContainers"):
        yield {"op": "add", "path": f"/spec/initContainers/{_position(pod)}", "value": container}
    else:
        yield {"op": "add", "path": "/spec/initContainers", "value": [container]}


def _volumes(pod: Document, decision: Inject) -> Iterator[Operation]:
    present = {volume["name"] for volume in volumes_of(pod)}
    missing = [volume for volume in sidecar_volumes(decision) if volume["name"] not in present]
    if present:
        yield from ({"op": "add", "path": "/spec/volumes/-", "value": volume} for volume in missing)
    elif missing:
        yield {"op": "add", "path": "/spec/volumes", "value": missing}


def _metadata(pod: Document, decision: Inject) -> Iterator[Operation]:
    yield from _entries("/metadata/labels", labels_of(pod), labels(decision))
    annotations = {STATUS_ANNOTATION: status(decision)}
    app = next(
        (one["name"] for _, _, one in containers_of(pod, "containers") if one["name"] not in _MESH_PROXIES), None
    )
    if app is not None and DEFAULT_CONTAINER_ANNOTATION not in annotations_of(pod):
        annotations[DEFAULT_CONTAINER_ANNOTATION] = app
    yield from _entries("/metadata/annotations", annotations_of(pod), annotations)


def _entries(path: str, present: Mapping[str, Any], wanted: Mapping[str, str]) -> Iterator[Operation]:
    if not present:
        yield {"op": "add", "path": path, "value": dict(wanted)}
        return
    for key, value in wanted.items():
        if present.get(key) != value:
            yield {"op": "add", "path": f"{path}/{key.replace('~', '~0').replace('/', '~1')}", "value": value}


def _has_sidecar(pod: Document) -> bool:
    return any(one["name"] == SIDECAR_CONTAINER for _, _, one in containers_of(pod, "initContainers"))


def _position(pod: Document) -> int:
    """Where the proxy is, or belongs, among the init containers: first, but after what sets up a mesh.

    Behind a native mesh proxy wherever that is, because its calls go through it.
    """
    initial: list[dict[str, Any]] = pod["spec"].get("initContainers") or []
    names = [container["name"] for container in initial]
    if SIDECAR_CONTAINER in names:
        return names.index(SIDECAR_CONTAINER)
    leading = next((at for at, name in enumerate(names) if name not in _MESH_CONTAINERS), len(names))
    native = [at for at, one in enumerate(initial) if one["name"] in _MESH_PROXIES and is_native_sidecar(one)]
    return max(leading, *(at + 1 for at in native), 0)


def _served_containers(pod: Document, decision: Inject) -> Iterator[tuple[str, dict[str, Any]]]:
    """Containers that start once the proxy is ready, each with its path. A mesh's own have no calls to make."""
    chosen = decision.options.containers
    for list_name, position, container in containers_of(pod, "initContainers", "containers"):
        name = container["name"]
        early = list_name == "initContainers" and position < _position(pod)
        wanted = name not in _MESH_CONTAINERS if chosen is None else name in chosen
        if wanted and not early and name != SIDECAR_CONTAINER:
            yield f"/spec/{list_name}/{position}", container


def _early_containers(pod: Document) -> Iterator[str]:
    for _, position, container in containers_of(pod, "initContainers"):
        if position < _position(pod) and container["name"] not in _MESH_CONTAINERS:
            yield (
                f"init container {container['name']} runs before the mesh's proxy, and so before llm-sidecar: "
                "it cannot use the proxy"
            )
