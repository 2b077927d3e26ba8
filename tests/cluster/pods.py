"""Pods that the restricted profile admits, for a test's own programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

Manifest = dict[str, Any]

READY: Final = "/ready"
"""Made by a program below when it is ready."""

# As the first process of a container a shell ignores SIGTERM unless told otherwise, and the pod would take its whole
# grace period to end. `wait` returns on a signal, a foreground `sleep` would not.
UNTIL_TOLD: Final = "trap 'exit 0' TERM; sleep infinity & wait"
"""A shell's words for running until the pod is deleted."""


def container(name: str, *, image: str, command: Sequence[str] | None = None, **fields: Any) -> Manifest:
    """A container of the restricted profile."""
    words = {} if command is None else {"command": list(command)}
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **words,
        **fields,
    }


def shell(name: str, *, image: str, script: str, **fields: Any) -> Manifest:
    """A container that runs a shell's script."""
    return container(name, image=image, command=["sh", "-c", script], **fields)


def native_sidecar(name: str, *, image: str, script: str) -> Manifest:
    """A container that starts before the others, and is ready before they start."""
    return shell(
        name,
        image=image,
        script=script,
        restartPolicy="Always",
        startupProbe={
            "exec": {"command": ["test", "-e", f"/shared{READY}"]},
            "periodSeconds": 1,
            "failureThreshold": 30,
        },
        volumeMounts=[{"name": "shared", "mountPath": "/shared"}],
    )


def spec(*containers: Manifest, sidecars: Sequence[Manifest] = (), **fields: Any) -> Manifest:
    """A pod's specification, with an empty folder `shared` for those that mount it."""
    return {
        "terminationGracePeriodSeconds": 5,
        "initContainers": list(sidecars),
        "containers": list(containers),
        "volumes": [{"name": "shared", "emptyDir": {}}, *fields.pop("volumes", [])],
        **fields,
    }


def pod(name: str, specification: Manifest) -> Manifest:
    """A pod whose label `app` is its name."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": specification,
    }


def job(name: str, specification: Manifest) -> Manifest:
    """A Job that is tried once."""
    template = {"metadata": {"labels": {"app": name}}, "spec": {"restartPolicy": "Never", **specification}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": template},
    }
