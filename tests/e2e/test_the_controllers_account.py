"""What somebody could do with the controller's token: by the Roles and policies that Helm installed, not much."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llm_sidecar.contract.names import CONFIG_HASH_ANNOTATION, SIDECAR_CONTAINER, config_secret
from tests.cluster import pods
from tests.e2e import resources
from tests.e2e.applications import Applications

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.needs("helm")]

Team = Callable[[], Applications]

CALL_API = (resources.PROGRAMS / "call_api.py").read_text(encoding="utf-8")


def _call(applications: Applications, method: str, path: str, body: Any = None) -> tuple[int, str]:
    """With the very token, from the controller's own container; status and answer. Paths begin below the namespace."""
    release = applications.release
    [controller] = release.pods("controller")
    command = ("python", "-c", CALL_API, method, f"/api/v1/namespaces/{applications.namespace}{path}")
    printed = release.cluster.text(
        *("exec", "--stdin", f"--namespace={release.namespace}", controller["metadata"]["name"], "--", *command),
        stdin=json.dumps(body) if body is not None else "",
    )
    status, _, answer = printed.partition(" ")
    return int(status), answer


@pytest.mark.parametrize(
    ("containers", "name"),
    [("containers", "app"), ("initContainers", SIDECAR_CONTAINER)],
    ids=["of the application", "of the proxy"],
)
def test_it_changes_the_annotation_of_a_running_pod_and_no_image(team: Team, containers: str, name: str) -> None:
    applications = team()
    applications.deploy("app", applications.waiting())
    pod = applications.pod_of("app")
    before = applications.pod(pod)["spec"]

    # Another tag of the same image: for the proxy, no other policy than the one about the controller objects to it.
    [image] = [one["image"] for one in before[containers] if one["name"] == name]
    changed = {containers: [{"name": name, "image": f"{image.rpartition(':')[0]}:other"}]}
    refused = _call(applications, "PATCH", f"/pods/{pod}", {"spec": changed})
    annotations = {"annotations": {CONFIG_HASH_ANNOTATION: "written by hand"}}
    accepted, _ = _call(applications, "PATCH", f"/pods/{pod}", {"metadata": annotations})

    assert refused[0] == 403
    assert "may change nothing of a pod but its annotation" in refused[1]
    assert accepted == 200
    assert applications.pod(pod)["spec"] == before


def test_it_reads_no_secret_of_an_application_and_makes_no_pod(team: Team) -> None:
    """Not even a Secret that it wrote: the keys of all teams would be in them."""
    applications = team()
    applications.deploy("app", applications.waiting())
    pod = applications.pod_of("app")
    secret = config_secret(applications.namespace, "default")
    assert applications.cluster.kubectl("get", "secret", secret, f"--namespace={applications.namespace}")

    calls: list[tuple[str, str, Any]] = [
        ("GET", f"/secrets/{secret}", None),
        ("GET", "/secrets", None),
        ("DELETE", f"/pods/{pod}", None),
        ("POST", f"/pods/{pod}/exec?command=id", None),
        ("POST", "/pods", pods.pod("thief", resources.specification(applications.waiting()))),
        ("POST", "/serviceaccounts/default/token", {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}),
    ]
    for method, path, body in calls:
        status, answer = _call(applications, method, path, body)
        assert status == 403, f"{method} {path}: {status} {answer}"
