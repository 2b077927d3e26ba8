"""Pods as raw dicts: their shape is checked once, so that everything after may read without asking.

No client's types: a field that this version has never heard of must survive (others' webhooks once lost
`restartPolicy` of native sidecars that way).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

Document = Mapping[str, Any]

CONTAINER_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")

_TEXTS: Final = {"*": str}
_CONTAINER: Final = {
    "name": str,
    "env": [{"name": str, "value": str, "valueFrom": {}}],
    "envFrom": [{}],
    "volumeMounts": [{"name": str}],
    "volumeDevices": [{"name": str}],
    "ports": [{}],
    "resources": {"requests": {}, "limits": {}},
}
_POD: Final = {
    "metadata": {"annotations": _TEXTS, "labels": _TEXTS},
    "spec": {
        **{name: [_CONTAINER] for name in CONTAINER_LISTS},
        "volumes": [{"name": str}],
        "securityContext": {},
        "os": {"name": str},
        "nodeSelector": _TEXTS,
        "resources": {"requests": {}, "limits": {}},
    },
}


def malformed_field(pod: Document) -> str | None:
    """The first field that is not of its type, with what it should be; None for a pod that can be read."""
    found = _misfit(pod, _POD, "")
    if found is None and not isinstance(pod.get("spec"), dict):
        return "spec must be an object"
    return found


def annotations_of(pod: Document) -> dict[str, Any]:
    """The annotations; none where they are no object."""
    metadata = pod.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    return annotations if isinstance(annotations, dict) else {}


def labels_of(pod: Document) -> dict[str, str]:
    """The labels."""
    return (pod.get("metadata") or {}).get("labels") or {}


def containers_of(pod: Document, *lists: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Each container with its list's name and its position; of all lists where none is named."""
    for name in lists or CONTAINER_LISTS:
        for position, container in enumerate(pod["spec"].get(name) or ()):
            yield name, position, container


def volumes_of(pod: Document) -> list[dict[str, Any]]:
    """The volumes."""
    return pod["spec"].get("volumes") or []


def is_native_sidecar(container: Document) -> bool:
    """True for an init container that goes on running beside the app."""
    return bool(container.get("restartPolicy") == "Always")


def _misfit(value: Any, shape: Any, path: str) -> str | None:
    if value is None:
        return None
    if shape is str:
        return None if isinstance(value, str) else f"{path} must be text"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{path} must be a list"
        return next(filter(None, (_item_misfit(item, shape[0], f"{path}[{i}]") for i, item in enumerate(value))), None)
    if not isinstance(value, dict):
        return f"{path or 'the pod'} must be an object"
    fields = dict.fromkeys(value, shape["*"]) if "*" in shape else shape
    prefix = f"{path}." if path else ""
    return next(filter(None, (_misfit(value.get(name), fields[name], f"{prefix}{name}") for name in fields)), None)


def _item_misfit(item: Any, shape: Any, path: str) -> str | None:
    if not isinstance(item, dict):
        return f"{path} must be an object"
    if "name" in shape and not item.get("name"):
        return f"{path}.name must be text"
    return _misfit(item, shape, path)
