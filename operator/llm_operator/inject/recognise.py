"""Is the proxy in this pod the one that we made? Asked when the webhook is called again, or a pod is submitted again.

A pod is its author's text: one that merely looks injected could run a program of theirs beside our keys. So the
container must be as we make it, but for what the API server fills in and what well-known webhooks add to every
container of a pod. Neither can make the proxy run other code.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from llm_operator.inject.container import SERVICE_ACCOUNT_DIRECTORY, sidecar_container, sidecar_volumes
from llm_operator.inject.outcome import Inject
from llm_operator.inject.pod import Document, volumes_of
from llm_sidecar.contract.names import CONFIG_VOLUME, NO_TOKEN_VOLUME, STATE_VOLUME, TOKEN_VARIABLE

_TOKEN: Final = re.compile("[A-Za-z0-9_-]{24,128}")

_NOT_COMPARED: Final = frozenset(
    {
        "imagePullPolicy",  # the admission plugin AlwaysPullImages
        "resizePolicy",
        "resources",  # LimitRanger, autoscalers
        "terminationMessagePath",
        "terminationMessagePolicy",
    }
)
"""What others fill in, and what lets nobody do anything."""

_TOLERATED_VARIABLE: Final = re.compile(
    # Cloud identity webhooks, Datadog's, managed control planes, cluster-wide proxies: the proxy reads none of them.
    "(?:AWS|AZURE|DD|KUBERNETES)_[A-Z0-9_]+|(?i:https?_proxy|all_proxy|no_proxy)"
)
_TOLERATED_MOUNTS: Final = "/var/run/secrets/"
"""Where identity webhooks mount tokens; the proxy reads nothing there."""

_TOLERATED_SECURITY: Final = frozenset({"runAsUser", "runAsGroup", "seLinuxOptions"})
"""What OpenShift assigns."""


def made_token(container: Document) -> str | None:
    """The token in the environment of the proxy's container."""
    values = [entry.get("value") for entry in container.get("env") or () if entry["name"] == TOKEN_VARIABLE]
    return values[0] if len(values) == 1 and values[0] and _TOKEN.fullmatch(values[0]) else None


def difference(pod: Document, container: Document, *, decision: Inject, token: str) -> str | None:
    """The first field that is not as we make it."""
    made = sidecar_container(pod, decision, token=token)
    for field in sorted(made.keys() | container.keys()):
        if field not in _NOT_COMPARED and not _AS_MADE.get(field, _equal)(container.get(field), made.get(field)):
            return field
    return _volume_difference(pod, decision)


def _volume_difference(pod: Document, decision: Inject) -> str | None:
    for made in sidecar_volumes(decision):
        found = [volume for volume in volumes_of(pod) if volume["name"] == made["name"]]
        if len(found) != 1 or not _volume_as_made(found[0], made):
            return f"volume {made['name']}"
    return None


def _volume_as_made(found: Document, made: Document) -> bool:
    if made["name"] != CONFIG_VOLUME:
        return dict(found) == made
    secret = found.get("secret")
    if found.keys() != made.keys() or not isinstance(secret, Mapping):
        return False
    return {**made["secret"], "defaultMode": 0o644} in (dict(secret), {**secret, "defaultMode": 0o644})


def _equal(found: Any, made: Any) -> bool:
    return bool(found == made or (made is None and found in (None, False, "", [], {})))


def _probe_as_made(found: Any, made: Any) -> bool:
    """Meshes rewrite HTTP probes. A probe that runs a program would run it beside our keys."""
    return isinstance(found, dict) and made is not None and "exec" not in found


def _ports_as_made(found: Any, made: Any) -> bool:
    return isinstance(found, list) and all(port in found for port in made)


def _environment_as_made(found: Any, made: Any) -> bool:
    entries: list[dict[str, Any]] = found or []
    others = [entry for entry in entries if entry["name"] != TOKEN_VARIABLE]
    return [entry for entry in entries if entry["name"] == TOKEN_VARIABLE] == made and all(
        _TOLERATED_VARIABLE.fullmatch(entry["name"]) for entry in others
    )


def _mounts_as_made(found: Any, made: Any) -> bool:
    mounts: list[dict[str, Any]] = found or []
    return all(mounts.count(mount) == 1 for mount in made) and all(
        _is_tolerated_mount(mount) for mount in mounts if mount not in made
    )


def _is_tolerated_mount(mount: Document) -> bool:
    path = mount.get("mountPath")
    return (
        isinstance(path, str)
        and path == posixpath.normpath(path)
        and path.startswith(_TOLERATED_MOUNTS)
        and not f"{path}/".startswith(f"{SERVICE_ACCOUNT_DIRECTORY}/")
        and not f"{SERVICE_ACCOUNT_DIRECTORY}/".startswith(f"{path}/")
        and mount.get("readOnly") is True
        and mount["name"] not in {CONFIG_VOLUME, NO_TOKEN_VOLUME, STATE_VOLUME}
    )


def _security_as_made(found: Any, made: Any) -> bool:
    if not isinstance(found, dict):
        return False
    return all(found.get(key) == value for key, value in made.items()) and _are_tolerated(found.keys() - made.keys())


def _are_tolerated(fields: Iterable[str]) -> bool:
    return set(fields) <= _TOLERATED_SECURITY


_AS_MADE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "env": _environment_as_made,
    "livenessProbe": _probe_as_made,
    "ports": _ports_as_made,
    "securityContext": _security_as_made,
    "startupProbe": _probe_as_made,
    "volumeMounts": _mounts_as_made,
}
