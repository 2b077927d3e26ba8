"""PodMonitors are translated as the Prometheus Operator does, or not at all. Needs no cluster."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.scrape_configuration import scrape_configurations


def _pod_monitor(**spec: Any) -> dict[str, Any]:
    usual = {"selector": {"matchLabels": {"a.b/c-d": "x.y"}}, "podMetricsEndpoints": [{"port": "m"}]}
    return {"metadata": {"namespace": "ns", "name": "mine"}, "spec": usual | spec}


def _rules(**spec: Any) -> list[tuple[str, list[str], str]]:
    [configuration] = scrape_configurations(_pod_monitor(**spec))
    return [
        (rule["action"], rule["source_labels"], rule["regex"])
        for rule in configuration["relabel_configs"]
        if "action" in rule
    ]


def test_pods_without_the_label_and_ports_of_another_name_are_left_out() -> None:
    pod = "__meta_kubernetes_pod"

    assert _rules() == [
        ("drop", [f"{pod}_phase"], "Failed|Succeeded"),
        ("keep", [f"{pod}_label_a_b_c_d", f"{pod}_labelpresent_a_b_c_d"], r"x\.y;true"),
        ("keep", [f"{pod}_container_port_name"], "m"),
    ]


@pytest.mark.parametrize(
    ("expression", "action", "regex"),
    [
        ({"operator": "In", "values": ["one", "two"]}, "keep", "(one|two);true"),
        ({"operator": "NotIn", "values": ["one"]}, "drop", "(one);true"),
        ({"operator": "Exists"}, "keep", ".*;true"),
        ({"operator": "DoesNotExist"}, "drop", ".*;true"),
    ],
    ids=["in", "not in", "exists", "does not exist"],
)
def test_an_expression_about_labels_becomes_one_rule(expression: dict[str, Any], action: str, regex: str) -> None:
    selector = {"matchExpressions": [{"key": "app", **expression}]}

    assert _rules(selector=selector)[1] == (
        action,
        ["__meta_kubernetes_pod_label_app", "__meta_kubernetes_pod_labelpresent_app"],
        regex,
    )


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, {"namespaces": {"names": ["ns"]}}),
        ({"matchNames": ["a", "b"]}, {"namespaces": {"names": ["a", "b"]}}),
        ({"any": True}, {}),
    ],
    ids=["its own", "named ones", "all"],
)
def test_pods_are_looked_for_in_its_own_namespace_unless_it_says_otherwise(
    selector: dict[str, Any], expected: dict[str, Any]
) -> None:
    [configuration] = scrape_configurations(_pod_monitor(namespaceSelector=selector))

    assert configuration["kubernetes_sd_configs"] == [{"role": "pod", **expected}]


@pytest.mark.parametrize(
    "spec",
    [
        {"sampleLimit": 5},
        {"namespaceSelector": {"matchLabels": {}}},
        {"selector": {"matchLabel": {}}},
        {"podMetricsEndpoints": [{"port": "m", "scheme": "https"}]},
    ],
    ids=["spec", "namespace selector", "selector", "endpoint"],
)
def test_a_field_that_is_not_translated_is_an_error(spec: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not translated"):
        scrape_configurations(_pod_monitor(**spec))
