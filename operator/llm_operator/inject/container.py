"""The parts that the proxy adds to a pod: its container, its volumes, its labels and annotations."""

from __future__ import annotations

import json
from typing import Any, Final

from llm_operator.inject.outcome import Inject
from llm_operator.inject.pod import Document
from llm_operator.inject.resources import sidecar_resources
from llm_sidecar.contract.names import (
    CONFIG_DIRECTORY,
    CONFIG_FILE,
    CONFIG_VOLUME,
    INJECTED_LABEL,
    METRICS_PORT_NAME,
    NO_TOKEN_VOLUME,
    SIDECAR_CONTAINER,
    STATE_DIRECTORY,
    STATE_VOLUME,
    TEAM_LABEL,
    TEAM_NAMESPACE_LABEL,
    TOKEN_VARIABLE,
)

SERVICE_ACCOUNT_DIRECTORY: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
STATE_SIZE: Final = "16Mi"
"""Twice what the proxy's journal takes at most."""
_UNPRIVILEGED_USER: Final = 65532
"""The image's own."""


def sidecar_container(pod: Document, decision: Inject, *, token: str) -> dict[str, Any]:
    """The proxy as a native sidecar: ready before the next container starts, ended after the app's last one."""
    options, settings = decision.options, decision.settings
    return {
        "name": SIDECAR_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "args": [
            "serve",
            *("--config", CONFIG_FILE),
            *("--state-dir", STATE_DIRECTORY),
            *("--port", str(options.port)),
            *("--admin-port", str(options.admin_port)),
            *("--log-level", options.log_level or settings.log_level),
        ],
        "env": [{"name": TOKEN_VARIABLE, "value": token}],
        # The proxy's own port is on loopback: nobody outside the pod has a use for its number.
        "ports": [{"name": METRICS_PORT_NAME, "containerPort": options.admin_port, "protocol": "TCP"}],
        "resources": sidecar_resources(pod, options=options, settings=settings),
        # The kubelet starts the next container only then; one that never gets ready does not hang for ever.
        "startupProbe": _probe("/readyz", options.admin_port, period_seconds=1, timeout_seconds=1, failures=60),
        # Only for a loop that hangs: a minute of silence, because a restart cuts the app's streams. No readiness
        # probe: whether the app gets traffic is not the proxy's to say.
        "livenessProbe": _probe("/healthz", options.admin_port, period_seconds=10, timeout_seconds=5, failures=6),
        "securityContext": _security_context(_user(pod, decision)),
        "volumeMounts": [
            {"name": CONFIG_VOLUME, "mountPath": CONFIG_DIRECTORY, "readOnly": True},
            # Else the API server mounts the app's token here: it leaves a container alone that has this path already.
            {"name": NO_TOKEN_VOLUME, "mountPath": SERVICE_ACCOUNT_DIRECTORY, "readOnly": True},
            {"name": STATE_VOLUME, "mountPath": STATE_DIRECTORY},
        ],
    }


def sidecar_volumes(decision: Inject) -> list[dict[str, Any]]:
    """The volumes of the proxy.

    The Secret is published once the pod exists. Not optional: the kubelet waits for it, and the proxy never starts
    without its configuration.
    """
    return [
        {"name": CONFIG_VOLUME, "secret": {"secretName": decision.team.secret}},
        {"name": NO_TOKEN_VOLUME, "emptyDir": {}},
        {"name": STATE_VOLUME, "emptyDir": {"sizeLimit": STATE_SIZE}},
    ]


def labels(decision: Inject) -> dict[str, str]:
    """The labels by which others find injected pods."""
    return {
        INJECTED_LABEL: "true",
        TEAM_LABEL: decision.team.name,
        TEAM_NAMESPACE_LABEL: decision.team.namespace,
    }


def status(decision: Inject) -> str:
    """The value of the `status` annotation."""
    options = decision.options
    told = {
        "version": decision.settings.version,
        "secret": decision.team.secret,
        "ports": {"proxy": options.port, "admin": options.admin_port},
    }
    return json.dumps(told, separators=(",", ":"))


def _probe(path: str, port: int, *, period_seconds: int, timeout_seconds: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period_seconds,
        "timeoutSeconds": timeout_seconds,
        "failureThreshold": failures,
    }


def _user(pod: Document, decision: Inject) -> int | None:
    """The user to name. A pod whose containers run as root unless they say otherwise would keep ours from starting."""
    if decision.settings.run_as_user is not None:
        return decision.settings.run_as_user
    return _UNPRIVILEGED_USER if (pod["spec"].get("securityContext") or {}).get("runAsUser") == 0 else None


def _security_context(run_as_user: int | None) -> dict[str, Any]:
    """All that the restricted PodSecurity profile asks for, whatever the pod says for its other containers."""
    user = {} if run_as_user is None else {"runAsUser": run_as_user}
    return {
        "runAsNonRoot": True,
        **user,
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
