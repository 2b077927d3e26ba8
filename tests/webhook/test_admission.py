"""What the webhook answers to a review, whatever carries it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_operator.inject import InjectionSettings
from llm_operator.webhook_metrics import WebhookMetrics
from tests.golden.injection import SETTINGS, TOKEN, cases, compact, read_pod
from tests.webhook.reviews import UID, make_admission, patch_of, pod, review, wire_review, workload

_KEY = "sk-proj-a-key-that-must-be-nowhere"


class _Broken:
    """Knowledge of the cluster that fails, quoting what it should not."""

    def team_quota(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        raise RuntimeError(f"no luck with {namespace}/{name} and {_KEY}")

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        raise RuntimeError(_KEY)


def _answer(body: bytes, path: str = "/inject", **overrides: Any) -> dict[str, Any]:
    reply = make_admission(**overrides).answer(path, body)
    assert reply.status == 200
    document = json.loads(reply.body)
    assert (document["apiVersion"], document["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: dict[str, Any] = document["response"]
    assert response["uid"] == UID
    return response


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_every_golden_pod_gets_exactly_its_files(case: Path) -> None:
    """The patch is compared as bytes: what `inject()` made is what the API server applies."""
    submitted = read_pod(case)
    overrides = case / "settings.yaml"
    settings = InjectionSettings(**SETTINGS, **_yaml(overrides))
    response = _answer(
        wire_review(submitted, namespace=submitted["metadata"].get("namespace", "payments")), settings=settings
    )
    expected = case / "patch.json"
    assert response["allowed"] is not (case / "refused.txt").exists()
    if expected.exists():
        assert patch_of(response) == compact(expected.read_text(encoding="utf-8"))
    else:
        assert "patch" not in response
        assert "patchType" not in response
    if not response["allowed"]:
        assert response["status"]["message"] == (case / "refused.txt").read_text(encoding="utf-8").strip()
        assert (response["status"]["code"], response["status"]["reason"]) == (403, "Forbidden")
    assert bool(response.get("warnings")) == (case / "warnings.txt").exists()


def _yaml(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415 - only some cases have settings

    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.exists() else {}


def test_a_second_call_for_the_same_pod_keeps_its_token_and_changes_nothing() -> None:
    """`reinvocationPolicy: IfNeeded`: the API server asks again after another webhook."""
    import jsonpatch  # noqa: PLC0415 - used here alone

    submitted = pod()
    first = jsonpatch.apply_patch(submitted, patch_of(_answer(wire_review(submitted))).decode())
    again = _answer(wire_review(first), token=lambda: "another-token-that-must-not-appear-anywhere")
    assert again["allowed"]
    assert "patch" not in again
    first["spec"]["containers"].append({"name": "late", "image": "late:1"})
    late = patch_of(_answer(wire_review(first), token=lambda: "another-token-that-must-not-appear-anywhere")).decode()
    assert TOKEN in late
    assert "another-token" not in late


def test_each_pod_gets_a_token_of_its_own() -> None:
    tokens = iter(("one-token-that-is-long-enough-1", "one-token-that-is-long-enough-2"))
    admission = make_admission(token=lambda: next(tokens))
    bodies = [admission.answer("/inject", wire_review(pod())).body for _ in range(2)]
    patches = [patch_of(json.loads(body)["response"]).decode() for body in bodies]
    assert [f"enough-{number}" in patch for patch, number in zip(patches, (1, 2), strict=True)] == [True, True]


def test_a_dry_run_gets_the_same_answer() -> None:
    assert _answer(wire_review(pod(), dryRun=True)) == _answer(wire_review(pod()))


def test_warnings_have_at_most_120_characters_and_lose_nothing() -> None:
    submitted = pod(teem="checkout")
    submitted["spec"]["containers"][0]["env"] = [{"name": "OPENAI_API_KEY", "value": _KEY}]
    warnings = _answer(wire_review(submitted))["warnings"]
    assert all(len(warning) <= 120 for warning in warnings)
    told = " ".join(warnings).replace("… ", "")
    assert "did you mean llm-sidecar.io/team?" in told
    assert "llm-sidecar.io/env: Override" in told
    assert _KEY not in told


def test_many_warnings_end_before_the_api_server_cuts_them_off() -> None:
    containers = [{"name": f"app-{number}", "env": [{"name": "OPENAI_API_KEY", "value": "x"}]} for number in range(60)]
    warnings = _answer(wire_review({**pod(), "spec": {"containers": containers}}))["warnings"]
    assert sum(len(warning.encode()) for warning in warnings) < 4096
    assert warnings[-1].startswith("there are more warnings")


@pytest.mark.parametrize("annotations", [{}, {"llm-sidecar.io/injct": "true"}, {"llm-sidecar.io/inject": "false"}])
def test_a_defect_never_holds_up_a_pod_that_did_not_ask(
    annotations: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_operator.admission.decide", _fail)
    submitted = {**pod(), "metadata": {"name": "app", "annotations": annotations}}
    response = _answer(wire_review(submitted))
    assert response["allowed"] is True
    assert UID in response["warnings"][0]


@pytest.mark.parametrize("function", ["decide", "inject", "wire"])
def test_a_defect_refuses_a_pod_that_asked_and_says_what_to_do(
    function: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says where it happened, and neither the answer nor the log what the exception quoted."""
    monkeypatch.setattr(f"llm_operator.admission.{function}", _fail)
    response = _answer(wire_review(pod()))
    assert response["allowed"] is False
    assert (response["status"]["code"], response["status"]["reason"]) == (500, "InternalError")
    assert UID in response["status"]["message"]
    assert "remove the annotation llm-sidecar.io/inject" in response["status"]["message"]
    assert "test_admission.py" in caplog.text
    assert _KEY not in caplog.text + json.dumps(response)


def _fail(*_arguments: Any, **_options: Any) -> Any:
    raise RuntimeError(_KEY)


def test_failing_knowledge_of_the_cluster_is_such_a_defect() -> None:
    assert _answer(wire_review(pod()), teams=_Broken())["status"]["code"] == 500


@pytest.mark.parametrize("path", ["/", "/mutate", "/inject/", "/inject/x", "/Inject", "/readyz"])
def test_a_wrong_path_is_refused_by_name_instead_of_allowed_in_silence(path: str) -> None:
    response = _answer(wire_review(pod()), path=path)
    assert response["allowed"] is False
    assert response["status"]["code"] == 404
    assert "clientConfig.service.path" in response["status"]["message"]


def test_what_is_no_pod_does_not_belong_at_the_path_for_pods() -> None:
    response = _answer(wire_review(workload("Deployment", pod())))
    assert response["allowed"] is False
    assert "rules of the webhook configuration" in response["status"]["message"]


@pytest.mark.parametrize("operation", ["UPDATE", "DELETE", "CONNECT"])
def test_other_operations_on_pods_are_let_through_with_a_hint(operation: str) -> None:
    response = _answer(wire_review(pod(), operation=operation))
    assert response["allowed"] is True
    assert "operations: [CREATE]" in response["warnings"][0]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"kind":"AdmissionReview"}',
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1","request":{"uid":"a"}}',
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":[]}',
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":7}}',
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"a","kind":"Pod"}}',
    ],
    ids=lambda body: f"{body[:12]!r} {body[-24:]!r}",
)
def test_a_malformed_review_is_answered_with_a_status_that_says_why(body: bytes) -> None:
    """Without a uid to repeat there is no AdmissionReview to answer with; the API server passes the message on."""
    metrics = WebhookMetrics()
    reply = make_admission(metrics).answer("/inject", body)
    document = json.loads(reply.body)
    assert (reply.status, document["kind"], document["status"], document["code"]) == (400, "Status", "Failure", 400)
    assert document["message"].startswith("this is no AdmissionReview")
    assert b'{reason="MalformedReview",result="failed"} 1.0' in metrics.exposition()


@pytest.mark.parametrize("document", [None, [], "text", 7, {}, {"metadata": []}, {"metadata": {"annotations": 7}}])
def test_an_odd_object_gets_an_answer(document: Any) -> None:
    assert _answer(json.dumps(review(document)).encode())["allowed"] is True


def test_results_are_counted_by_reason() -> None:
    metrics = WebhookMetrics()
    admission = make_admission(metrics)
    for submitted in (pod(), pod(inject="false"), pod(team="unknown")):
        admission.answer("/inject", wire_review(submitted))
    told = metrics.exposition().decode()
    assert 'llm_operator_webhook_admissions_total{reason="Injected",result="injected"} 1.0' in told
    assert 'llm_operator_webhook_admissions_total{reason="Vetoed",result="skipped"} 1.0' in told
    assert 'llm_operator_webhook_admissions_total{reason="UnknownTeam",result="refused"} 1.0' in told
    assert "llm_operator_webhook_admission_duration_seconds_count 3.0" in told


def test_the_log_has_a_line_for_each_injection_and_never_the_token(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        _answer(wire_review(pod()))
    assert (
        f"injected namespace=payments name=app-5d8f- reason=Injected team=payments/default request={UID}" in caplog.text
    )
    assert TOKEN not in caplog.text


_KINDS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob")


@pytest.mark.parametrize("kind", _KINDS)
def test_an_annotation_on_the_workload_instead_of_its_template_is_told(kind: str) -> None:
    template = {"metadata": {}, "spec": {"containers": [{"name": "app"}]}}
    response = _answer(wire_review(workload(kind, template, inject="true", team="checkout")), path="/warn")
    assert response["allowed"] is True
    told = " ".join(response["warnings"]).replace("… ", "")
    assert "move llm-sidecar.io/inject, llm-sidecar.io/team to spec." in told
    assert "template.metadata.annotations" in told


@pytest.mark.parametrize("kind", _KINDS)
def test_who_applies_a_workload_hears_what_would_become_of_its_pods(kind: str) -> None:
    """A ReplicaSet's pods have warnings and refusals of their own, but nobody is there to read those."""
    response = _answer(wire_review(workload(kind, pod(team="unknown", prot="1"))), path="/warn")
    assert response["allowed"] is True
    assert "patch" not in response
    told = " ".join(response["warnings"]).replace("… ", "")
    assert f"pods of this {kind} would be refused by llm-sidecar: UnknownTeam" in told
    assert "did you mean llm-sidecar.io/port?" in told


def test_a_good_workload_gets_no_warning() -> None:
    assert "warnings" not in _answer(wire_review(workload("Deployment", pod()), operation="UPDATE"), path="/warn")


def test_a_workload_that_a_controller_made_is_not_commented() -> None:
    made = workload("ReplicaSet", pod(team="unknown"), inject="true")
    made["metadata"]["ownerReferences"] = [{"kind": "Deployment", "name": "app"}]
    assert "warnings" not in _answer(wire_review(made), path="/warn")


@pytest.mark.parametrize(
    "document", [None, 7, {"kind": "Job"}, {"kind": "Job", "spec": {"template": 3}}, {"kind": "X"}]
)
def test_an_odd_workload_is_let_through(document: Any) -> None:
    assert _answer(wire_review(document), path="/warn")["allowed"] is True


def test_a_defect_only_warns_about_a_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_operator.workloads.decide", _fail)
    response = _answer(wire_review(workload("Deployment", pod())), path="/warn")
    assert response["allowed"] is True
    assert UID in response["warnings"][0]
