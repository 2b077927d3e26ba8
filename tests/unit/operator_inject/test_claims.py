from __future__ import annotations

from typing import Any

import pytest

from llm_operator.inject import may_claim

LABELS = {"stage": "production", "region": "eu"}


def _claim(allowed: Any, *, namespace: str = "payments") -> bool:
    spec = {} if allowed is None else {"allowedNamespaces": allowed}
    team = {"metadata": {"namespace": "platform", "name": "search"}, "spec": spec}
    return may_claim(team, namespace=namespace, namespace_labels=LABELS)


def _selector(**selector: Any) -> dict[str, Any]:
    return {"from": "Selector", "selector": selector}


def _expression(operator: str, key: str = "stage", *values: str) -> dict[str, Any]:
    return _selector(matchExpressions=[{"key": key, "operator": operator, "values": list(values)}])


@pytest.mark.parametrize("allowed", [None, {}, {"from": "Same"}])
def test_only_the_teams_own_namespace_may_claim_it_by_default(allowed: Any) -> None:
    assert _claim(allowed, namespace="platform")
    assert not _claim(allowed)


@pytest.mark.parametrize(
    "allowed",
    [
        {"from": "All"},
        _selector(),
        _selector(matchLabels={"stage": "production"}),
        _selector(matchLabels={"stage": "production", "region": "eu"}),
        _expression("In", "stage", "test", "production"),
        _expression("NotIn", "stage", "test"),
        _expression("NotIn", "absent", "test"),
        _expression("Exists"),
        _expression("DoesNotExist", "absent"),
    ],
)
def test_a_namespace_that_is_admitted_may_claim(allowed: Any) -> None:
    assert _claim(allowed)


@pytest.mark.parametrize(
    "allowed",
    [
        _selector(matchLabels={"stage": "test"}),
        _selector(matchLabels={"stage": "production", "absent": ""}),
        _expression("In", "stage", "test"),
        _expression("In", "absent", "test"),
        _expression("NotIn", "stage", "production"),
        _expression("Exists", "absent"),
        _expression("DoesNotExist"),
        _selector(
            matchLabels={"stage": "production"}, matchExpressions=[{"key": "region", "operator": "DoesNotExist"}]
        ),
    ],
)
def test_a_namespace_that_is_not_selected_may_not_claim(allowed: Any) -> None:
    assert not _claim(allowed)


@pytest.mark.parametrize(
    "allowed",
    [
        {"from": "Anywhere"},
        {"from": "Selector"},
        {"from": "Selector", "selector": "stage=production"},
        _selector(matchLabels=["stage"]),
        _selector(matchExpressions={"key": "stage"}),
        _selector(matchExpressions=["stage"]),
        _selector(matchFields={}),
        _expression("Near", "stage", "production"),
        _expression("NotIn", "stage"),
        _expression("Exists", "stage", "production"),
        _selector(matchExpressions=[{"operator": "DoesNotExist"}]),
    ],
)
def test_what_cannot_be_understood_admits_nobody(allowed: Any) -> None:
    assert not _claim(allowed)
    assert not _claim(allowed, namespace="platform")
