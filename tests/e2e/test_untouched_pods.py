"""A pod that does not ask for the proxy is none of our business: it is stored as it was submitted, whatever happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from llm_sidecar.contract.names import SIDECAR_CONTAINER
from tests.cluster import pods
from tests.cluster.commands import CommandFailed
from tests.e2e import resources
from tests.e2e.applications import INJECT, Applications

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.needs("helm")]

Team = Callable[[], Applications]

OUTSIDE: Final = "kube-system"
"""The webhook's configuration leaves this namespace out."""

SUBMITTED: Final = ("name", "labels", "annotations")
"""What the tests' pods say in their metadata. All else there is the API server's."""


def test_a_pod_without_an_annotation_of_ours_is_stored_byte_for_byte(team: Team) -> None:
    applications = team()
    submitted = _complete(applications, _pod_with_a_bit_of_everything(applications))

    assert _stored(applications, submitted) == _text(submitted)


def test_without_the_webhook_such_a_pod_is_stored_byte_for_byte_and_one_that_asks_is_refused(team: Team) -> None:
    applications = team()
    submitted = _complete(applications, _pod_with_a_bit_of_everything(applications))
    asking = {**submitted, "metadata": {**submitted["metadata"], "name": "asking", "annotations": INJECT}}

    with applications.release.scaled_to_zero("webhook"):
        assert _stored(applications, submitted) == _text(submitted)
        with pytest.raises(CommandFailed) as refused:
            _create(applications, applications.namespace, asking)
    assert "pods.llm-sidecar.io" in refused.value.output

    # The comparison sees what the webhook does: the same pod, asking, with the webhook back.
    stored = _stored(applications, asking)
    assert stored != _text(asking)
    assert SIDECAR_CONTAINER in stored


def _pod_with_a_bit_of_everything(applications: Applications) -> resources.Object:
    """Names near ours, a provider's variables, init containers and volumes; and never scheduled, so that nobody else
    changes it.
    """
    app = applications.waiting()
    app["env"] = [
        {"name": "OPENAI_API_KEY", "value": "of-the-application"},
        {"name": "OPENAI_BASE_URL", "value": "http://127.0.0.1:8000/v1"},
    ]
    first = applications.program("first", "none.py")
    pod = pods.pod("plain", resources.specification(app, first=[first], schedulerName="nobody"))
    pod["metadata"]["labels"]["llm-sidecar.example.com/team"] = "payments"
    pod["metadata"]["annotations"] = {"example.com/llm-sidecar.io": "true", "sidecar.example.com/inject": "false"}
    return pod


def _complete(applications: Applications, pod: resources.Object) -> resources.Object:
    """The pod with all of Kubernetes' own defaults written out, so that nothing is left for these to add."""
    stored = _create(applications, OUTSIDE, pod, "dryRun=All")
    metadata = {key: stored["metadata"][key] for key in SUBMITTED}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": stored["spec"]}


def _stored(applications: Applications, pod: resources.Object) -> str:
    """What the API server keeps of a pod, as it writes it. The pod is gone afterwards."""
    name = pod["metadata"]["name"]
    _create(applications, applications.namespace, pod)
    raw = applications.cluster.text("get", f"--raw={_path(applications.namespace)}/{name}")
    applications.text("delete", "pod", name, "--force", "--grace-period=0")
    return _text(json.loads(raw))


def _text(pod: resources.Object) -> str:
    """In the order of the API server's bytes, which `json` keeps."""
    metadata = {key: pod["metadata"].get(key) for key in SUBMITTED}
    return json.dumps({"metadata": metadata, "spec": pod["spec"]})


def _create(applications: Applications, namespace: str, pod: resources.Object, *options: str) -> Any:
    """Past kubectl's own ideas of a pod: the bytes are ours, and so is the answer."""
    path = _path(namespace) + "".join(f"?{option}" for option in options)
    return json.loads(applications.cluster.text("create", f"--raw={path}", "--filename=-", stdin=json.dumps(pod)))


def _path(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"
