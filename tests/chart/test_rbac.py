"""What the chart's accounts may do: the whole of it, so that a right more shows as a change of this file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llm_operator.publish import LEDGER_NAME
from tests.chart.rendering import CHART, Chart, Object

pytestmark = pytest.mark.needs("helm")

READ = "get list watch"
WATCH = "list watch"

EVERYWHERE = {
    "llm-sidecar-controller": {
        f"llm-sidecar.io/llmproviders,teamquotas: {WATCH}",
        "llm-sidecar.io/llmproviders/status,teamquotas/status: patch",
        f"/namespaces: {WATCH}",
        f"/pods: {WATCH} patch",
        "/secrets: create patch delete",
        "/events: create",
        "admissionregistration.k8s.io/mutatingwebhookconfigurations[llm-sidecar-webhook]: get patch",
    },
    "llm-sidecar-webhook": {
        f"llm-sidecar.io/teamquotas: {WATCH}",
        f"/namespaces: {WATCH}",
    },
}
IN_NAMESPACES = {
    ("llm-system", "llm-sidecar-controller", "Role/llm-sidecar-controller"): {
        "/configmaps: create",
        f"/configmaps[{LEDGER_NAME}]: get patch",
        "/secrets[llm-sidecar-webhook-certificate]: get update",
    },
    ("llm-system", "llm-sidecar-controller", "ClusterRole/llm-sidecar-credentials"): {f"/secrets: {READ}"},
    # While `helm test` runs.
    ("default", "llm-sidecar-test", "Role/llm-sidecar-test"): {"/pods: create"},
}


def _rules(role: Object) -> set[str]:
    told = set()
    for rule in role["rules"]:
        (group,) = rule["apiGroups"]
        names = f"[{','.join(rule['resourceNames'])}]" if "resourceNames" in rule else ""
        told.add(f"{group}/{','.join(rule['resources'])}{names}: {' '.join(rule['verbs'])}")
    return told


def _granted(objects: list[Object]) -> tuple[dict[str, set[str]], dict[tuple[str, str, str], set[str]]]:
    """By account: what it may everywhere, and what in a namespace."""
    roles = {(one["kind"], one["metadata"]["name"]): _rules(one) for one in objects if one["kind"].endswith("Role")}
    everywhere: dict[str, set[str]] = {}
    in_namespaces: dict[tuple[str, str, str], set[str]] = {}
    for one in objects:
        if one["kind"] in {"ClusterRoleBinding", "RoleBinding"}:
            (subject,) = one["subjects"]
            assert subject["namespace"] == "llm-system"
            role = (one["roleRef"]["kind"], one["roleRef"]["name"])
            if one["kind"] == "ClusterRoleBinding":
                everywhere.setdefault(subject["name"], set()).update(roles[role])
            else:
                in_namespaces[one["metadata"]["namespace"], subject["name"], "/".join(role)] = roles[role]
    return everywhere, in_namespaces


def test_the_accounts_may_do_this_and_no_more(chart: Chart) -> None:
    assert _granted(chart.render()) == (EVERYWHERE, IN_NAMESPACES)


def test_keys_are_read_where_the_shared_providers_are(chart: Chart) -> None:
    _, in_namespaces = _granted(chart.render(set=["providerNamespaces={models,llm-system}"]))

    assert {namespace for namespace, _, role in in_namespaces if role.endswith("-credentials")} == {
        "llm-system",
        "models",
    }


def test_reading_every_secret_must_be_asked_for(chart: Chart) -> None:
    everywhere, in_namespaces = _granted(chart.render(set=["credentials.allNamespaces=true"]))

    assert f"/secrets: {READ}" in everywhere["llm-sidecar-controller"]
    assert not [role for _, _, role in in_namespaces if role.endswith("-credentials")]


@pytest.mark.parametrize("values", ["cert-manager", "existing-certificate"])
def test_who_makes_no_certificate_may_write_none(chart: Chart, values: str) -> None:
    everywhere, in_namespaces = _granted(
        chart.render(f"--values={CHART / 'ci' / f'{values}-values.yaml'}", "--set=fullnameOverride=llm-sidecar")
    )

    assert not [rule for rule in everywhere["llm-sidecar-controller"] if "webhookconfigurations" in rule]
    own = in_namespaces["llm-system", "llm-sidecar-controller", "Role/llm-sidecar-controller"]
    assert not [rule for rule in own if "secrets" in rule]


@pytest.mark.parametrize("values", sorted((CHART / "ci").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_rule_has_a_wildcard(chart: Chart, values: Path) -> None:
    for one in chart.render(f"--values={values}"):
        for rule in one.get("rules", []) if one["kind"].endswith("Role") else []:
            assert "*" not in str(rule)


@pytest.mark.parametrize(
    "template", sorted((CHART / "templates").rglob("rbac.yaml")), ids=lambda path: path.parent.name
)
def test_every_rule_says_why(template: Path) -> None:
    lines = template.read_text(encoding="utf-8").splitlines()
    rules = [number for number, line in enumerate(lines) if re.match(r"- apiGroups:", line)]

    assert rules
    for number in rules:
        assert lines[number - 1].startswith("# ") or "configmaps" in lines[number + 1], lines[number + 1]
