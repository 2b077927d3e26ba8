"""The chart's admission policies on a real API server: what they let through, and what they refuse, by which words.

They are installed under names of their own and bound to one namespace, so that whatever else runs on the cluster is
not judged by them twice.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from llm_sidecar.contract.names import CONFIG_SECRET_TYPE
from tests.chart.rendering import Chart
from tests.cluster.cluster import Cluster
from tests.cluster.commands import CommandFailed

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.needs("helm")]

PODS: Final = Path(__file__).parent / "pods"
RELEASE: Final = f"policy-test-{secrets.token_hex(3)}"
CONTROLLER: Final = f"system:serviceaccount:llm-system:{RELEASE}-controller"
HASH: Final = "llm-sidecar.io/config-hash"
POLICIES: Final = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def _files(folder: str) -> list[Path]:
    return sorted((PODS / folder).glob("*.yaml"))


@pytest.fixture(scope="module")
def place(cluster: Cluster, chart: Chart) -> Iterator[str]:
    """A namespace in which the policies hold."""
    with cluster.namespace("policies") as namespace:
        objects = [one for one in chart.render(set=[f"fullnameOverride={RELEASE}"]) if one["kind"] in POLICIES]
        for one in objects:
            if one["kind"] == "ValidatingAdmissionPolicyBinding":
                only = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
                one["spec"]["matchResources"] = only
        cluster.apply(objects)
        try:
            probes = ((_thief(), False), (_secret("any"), True), (_pod("probe"), True))
            cluster.wait_until(
                lambda: all(_is_refused(cluster, namespace, probe, by_controller=by) for probe, by in probes),
                what="the API server enforces the policies",
            )
            yield namespace
        finally:
            for one in objects:
                cluster.text("delete", one["kind"], one["metadata"]["name"], "--ignore-not-found")


@pytest.fixture
def injected(cluster: Cluster, place: str) -> Iterator[str]:
    """A pod with the proxy that is never scheduled; its name."""
    manifest = yaml.safe_load((PODS / "accepted" / "injected.yaml").read_text(encoding="utf-8"))
    manifest["spec"]["schedulerName"] = "nobody"
    cluster.apply(manifest, namespace=place)
    yield manifest["metadata"]["name"]
    cluster.text("delete", "pod", manifest["metadata"]["name"], f"--namespace={place}", "--force", "--grace-period=0")


def test_the_api_server_finds_no_type_error_in_the_policies(cluster: Cluster, place: str) -> None:
    for policy in cluster.kubectl("get", "validatingadmissionpolicies")["items"]:
        if policy["metadata"]["name"].startswith(RELEASE):
            checked = policy.get("status", {}).get("typeChecking", {})
            assert checked.get("expressionWarnings", []) == []


@pytest.mark.parametrize("path", _files("accepted"), ids=lambda path: path.stem)
def test_an_accepted_pod_is_accepted(cluster: Cluster, place: str, path: Path) -> None:
    assert "created" in _create(cluster, place, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", _files("refused"), ids=lambda path: path.stem)
def test_a_refused_pod_is_refused_with_the_fix(cluster: Cluster, place: str, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    expected = text.partition("# expect: ")[2].partition("\n")[0]

    with pytest.raises(CommandFailed) as failure:
        _create(cluster, place, text)

    assert expected
    assert expected in failure.value.output


@pytest.mark.parametrize(
    ("image", "said"),
    [("llm-sidecar:0.2.0", None), ("thief:1", "only the proxy's own image")],
    ids=["of the same repository", "of another one"],
)
def test_a_running_proxys_image_is_changed_within_its_repository_only(
    cluster: Cluster, place: str, injected: str, image: str, said: str | None
) -> None:
    patch = {"spec": {"initContainers": [{"name": "llm-sidecar", "image": image}]}}

    _expect(said, lambda: _patch(cluster, place, "pod", injected, patch, kind="strategic"))


def test_everything_else_of_an_injected_pod_may_be_changed(cluster: Cluster, place: str, injected: str) -> None:
    """Also the annotation that asked for the proxy: the pod has it already."""
    patch: dict[str, Any] = {"metadata": {"labels": {"a": "b"}, "annotations": {"llm-sidecar.io/inject": None}}}
    _patch(cluster, place, "pod", injected, patch)
    _patch(
        cluster, place, "pod", injected, {"spec": {"containers": [{"name": "app", "image": "other"}]}}, kind="strategic"
    )


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({}, None),
        ({"targetContainerName": "app"}, None),
        ({"targetContainerName": "llm-sidecar"}, "target another container"),
        (
            {"volumeMounts": [{"name": "llm-sidecar-config", "mountPath": "/mine"}]},
            "only the container llm-sidecar may mount it",
        ),
        ({"envFrom": [{"secretRef": {"name": "llm-sidecar.payments.payments"}}]}, "remove it from env and envFrom"),
    ],
    ids=["plain", "beside the app", "beside the proxy", "mounts the configuration", "reads it into variables"],
)
def test_an_ephemeral_container_does_not_come_at_the_configuration(
    cluster: Cluster, place: str, injected: str, extra: dict[str, Any], said: str | None
) -> None:
    pod = cluster.kubectl("get", "pod", injected, f"--namespace={place}")
    pod["spec"]["ephemeralContainers"] = [{"name": "debugger", "image": "busybox", **extra}]
    path = f"/api/v1/namespaces/{place}/pods/{injected}/ephemeralcontainers"

    _expect(said, lambda: cluster.text("replace", f"--raw={path}", "--filename=-", stdin=json.dumps(pod)))


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"metadata": {"annotations": {HASH: "new"}}}, None),
        ({"metadata": {"annotations": {HASH: None}}}, None),
        ({"metadata": {"annotations": {"other": "new"}}}, "no annotation of a pod but"),
        ({"metadata": {"annotations": {"llm-sidecar.io/inject": "false"}}}, "no annotation of a pod but"),
        ({"metadata": {"annotations": {"llm-sidecar.io/inject": None}}}, "no annotation of a pod but"),
        ({"metadata": {"labels": {"a": "b"}}}, "nothing of a pod but"),
        ({"metadata": {"finalizers": ["example.com/hold"]}}, "nothing of a pod but"),
        ({"spec": {"containers": [{"name": "app", "image": "other"}]}}, "nothing of a pod but"),
        ({"spec": {"initContainers": [{"name": "llm-sidecar", "image": "llm-sidecar:9"}]}}, "nothing of a pod but"),
        ({"spec": {"activeDeadlineSeconds": 1}}, "nothing of a pod but"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_the_controller_changes_one_annotation_of_a_pod_and_nothing_else(
    cluster: Cluster, place: str, injected: str, patch: dict[str, Any], said: str | None
) -> None:
    _expect(said, lambda: _patch(cluster, place, "pod", injected, patch, kind="strategic", by_controller=True))


def test_the_controller_annotates_a_pod_that_has_no_annotations(cluster: Cluster, place: str) -> None:
    manifest = _pod("bare")
    manifest["spec"]["schedulerName"] = "nobody"
    cluster.apply(manifest, namespace=place)

    _patch(cluster, place, "pod", "bare", {"metadata": {"annotations": {HASH: "a"}}}, by_controller=True)


def test_the_controller_neither_makes_nor_deletes_pods(cluster: Cluster, place: str, injected: str) -> None:
    _expect("may only annotate pods", lambda: _create(cluster, place, _pod("new"), by_controller=True))
    _expect(
        "may only annotate pods",
        lambda: cluster.text("delete", "pod", injected, f"--namespace={place}", *_identity(by_controller=True)),
    )


@pytest.mark.parametrize(
    ("name", "of_type", "said"),
    [
        ("llm-sidecar.payments.payments", CONFIG_SECRET_TYPE, None),
        ("any", CONFIG_SECRET_TYPE, "may write no Secret but its own"),
        (f"{RELEASE}-webhook-certificate", "kubernetes.io/tls", "may write no Secret but its own"),
        ("llm-sidecar.payments.payments", "Opaque", "of another type"),
        ("llm-sidecar.payments.payments", "kubernetes.io/service-account-token", "of another type"),
    ],
    ids=["its own", "another one", "the webhook's name in another namespace", "another type", "a token of an account"],
)
def test_the_controller_writes_its_own_secrets_only(
    cluster: Cluster, place: str, name: str, of_type: str, said: str | None
) -> None:
    """Of a type that Kubernetes fills with a token, it could have itself any account's made, and read it."""
    secret = _secret(name) | {"type": of_type}
    secret["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "default"}
    secret["data"] |= {"tls.crt": "", "tls.key": ""}

    _expect(said, lambda: _create(cluster, place, secret, by_controller=True))


def test_the_controller_changes_and_deletes_no_foreign_secret_and_reads_none_by_an_empty_patch(
    cluster: Cluster, place: str
) -> None:
    """The answer to a patch shows the whole Secret, so a patch that changes nothing would be a way to read it."""
    cluster.apply(_secret("foreign"), namespace=place)
    refused = "may write no Secret but its own"

    _expect(refused, lambda: _patch(cluster, place, "secret", "foreign", {"data": {"a": "Yg=="}}, by_controller=True))
    nothing = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "foreign"}}
    applied = ("--server-side", "--field-manager=thief", *_identity(by_controller=True))
    _expect(refused, lambda: cluster.apply(nothing, *applied, namespace=place))
    _expect(refused, lambda: _patch(cluster, place, "secret", "foreign", {}, by_controller=True))
    _expect(
        refused,
        lambda: cluster.text("delete", "secret", "foreign", f"--namespace={place}", *_identity(by_controller=True)),
    )


def test_others_write_secrets_as_before(cluster: Cluster, place: str) -> None:
    _create(cluster, place, _secret("any"))


def _expect(said: str | None, action: Callable[[], object]) -> None:
    if said is None:
        action()
        return
    with pytest.raises(CommandFailed) as failure:
        action()
    assert said in failure.value.output


def _identity(*, by_controller: bool) -> tuple[str, ...]:
    """The group passes RBAC, so that the policies alone decide."""
    return (f"--as={CONTROLLER}", "--as-group=system:masters") if by_controller else ()


def _create(cluster: Cluster, namespace: str, manifest: str | dict[str, Any], *, by_controller: bool = False) -> str:
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    return cluster.text(
        *("create", "--dry-run=server", "--filename=-", f"--namespace={namespace}"),
        *_identity(by_controller=by_controller),
        stdin=text,
    )


def _patch(
    cluster: Cluster,
    namespace: str,
    resource: str,
    name: str,
    patch: dict[str, Any],
    *,
    kind: str = "merge",
    by_controller: bool = False,
) -> None:
    cluster.text(
        *("patch", resource, name, f"--namespace={namespace}", f"--type={kind}", f"--patch={json.dumps(patch)}"),
        *_identity(by_controller=by_controller),
    )


def _is_refused(cluster: Cluster, namespace: str, manifest: dict[str, Any], *, by_controller: bool) -> bool:
    try:
        _create(cluster, namespace, manifest, by_controller=by_controller)
    except CommandFailed as failure:
        return "ValidatingAdmissionPolicy" in failure.output
    return False


def _pod(name: str) -> dict[str, Any]:
    containers = [{"name": "app", "image": "app"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}}


def _thief() -> dict[str, Any]:
    pod = _pod("thief")
    pod["spec"]["volumes"] = [{"name": "stolen", "secret": {"secretName": "llm-sidecar.a.b"}}]
    return pod


def _secret(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"a": "YQ=="}}
