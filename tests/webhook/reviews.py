"""AdmissionReviews as an API server sends them, and what stands in for its knowledge of the cluster."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from llm_operator.admission import Admission
from llm_operator.inject import InjectionSettings
from llm_operator.webhook_metrics import WebhookMetrics
from tests.golden.injection import SETTINGS, TOKEN, load_cluster

NOW: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
UID: Final = "705ab4f5-6393-11e8-b7cc-42010a800002"


def pod(**annotations: str) -> dict[str, Any]:
    """A pod that asks for the proxy. Annotations: `log_level` stands for `llm-sidecar.io/log-level`."""
    given = {"inject": "true", **annotations}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "app-5d8f-",
            "annotations": {f"llm-sidecar.io/{key.replace('_', '-')}": value for key, value in given.items()},
        },
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    }


def workload(kind: str, template: Mapping[str, Any], **annotations: str) -> dict[str, Any]:
    """A workload with the pod's template. Annotations of its own as for `pod()`."""
    inner = {"template": {"metadata": template["metadata"], "spec": template["spec"]}}
    spec = {"jobTemplate": {"spec": inner}} if kind == "CronJob" else inner
    own = {f"llm-sidecar.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {"kind": kind, "metadata": {"name": "app", "annotations": own}, "spec": spec}


def review(document: Any, **overrides: Any) -> dict[str, Any]:
    """The review of an object, in all its length."""
    kind = document.get("kind", "Pod") if isinstance(document, dict) else "Pod"
    request = {
        "uid": UID,
        "kind": {"group": "" if kind == "Pod" else "apps", "version": "v1", "kind": kind},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": kind},
        "requestResource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "payments",
        "operation": "CREATE",
        "userInfo": {
            "username": "system:serviceaccount:kube-system:replicaset-controller",
            "groups": ["system:serviceaccounts", "system:authenticated"],
        },
        "object": document,
        "oldObject": None,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        **overrides,
    }
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def wire_review(document: Any, **overrides: Any) -> bytes:
    return json.dumps(review(document, **overrides)).encode()


def make_admission(metrics: WebhookMetrics | None = None, **overrides: Any) -> Admission:
    arguments: dict[str, Any] = {
        "teams": load_cluster(),
        "settings": InjectionSettings(**SETTINGS),
        "metrics": metrics or WebhookMetrics(),
        "token": lambda: TOKEN,
        **overrides,
    }
    return Admission(**arguments)


def patch_of(response: Mapping[str, Any]) -> bytes:
    """The bytes of the answer's JSON Patch."""
    assert response["patchType"] == "JSONPatch"
    return base64.b64decode(response["patch"], validate=True)
