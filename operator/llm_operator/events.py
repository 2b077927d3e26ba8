"""Kubernetes Events as we write them: what `kubectl describe` shows below an object. Pure."""

from __future__ import annotations

from typing import Final

from llm_operator.kube import Document, Kind
from llm_operator.reconcile.objects import Key

MESSAGE_CHARACTERS: Final = 1024
"""More is refused."""


def event_document(
    kind: Kind,
    key: Key,
    *,
    uid: str,
    warns: bool,
    reason: str,
    message: str,
    now: str,
    name: str | None = None,
    component: str = "llm-sidecar-controller",
) -> Document:
    """An Event about an object. With a `name`, the second one of that name is refused: it was told already."""
    named = {"name": name} if name is not None else {"generateName": f"{key.name}."}
    return {
        "metadata": {**named, "namespace": key.namespace},
        "involvedObject": {
            "apiVersion": kind.api_version,
            "kind": kind.name,
            "namespace": key.namespace,
            "name": key.name,
            "uid": uid,
        },
        "type": "Warning" if warns else "Normal",
        "reason": reason,
        "message": message[:MESSAGE_CHARACTERS],
        "source": {"component": component},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
