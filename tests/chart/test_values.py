"""Values that cannot work are refused in words that say what to set; every value is described once, everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, ROOT, Chart

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


@pytest.mark.needs("helm")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["redis.url=redis://r:6379"], "redis.url and redis.bundled.enabled are both set"),
        (["redis.url=redis://r:6379"], "set redis.bundled.enabled=false"),
        (["redis.existingSecret.name=r"], "redis.existingSecret.name and redis.bundled.enabled are both set"),
        (["redis.bundled.enabled=false"], "no Redis is named"),
        (["redis.ca.secretName=ca"], "the bundled Redis speaks no TLS"),
        (["redis.bundled.enabled=false", "redis.url=redis://r", "redis.ca.secretName=ca"], "begin it with rediss"),
        (["webhook.certificates.mode=existingSecret"], "needs both existingSecret.name and existingSecret.caBundle"),
        (["webhook.certificates.existingSecret.name=c"], "set webhook.certificates.mode=existingSecret"),
        (
            ["webhook.certificates.certManager.issuerRef.name=i"],
            "set webhook.certificates.mode=certManager",
        ),
        (["tests.namespace=llm-system"], "the webhook leaves llm-system alone"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_values_that_contradict_each_other_are_refused_with_the_fix(
    chart: Chart, options: list[str], said: str
) -> None:
    assert said in chart.refusal(*options)


@pytest.mark.needs("helm")
@pytest.mark.parametrize("namespace", ["default", "kube-system"])
def test_a_namespace_that_is_not_its_own_is_refused(chart: Chart, namespace: str) -> None:
    assert "choose one of its own, such as --namespace llm-system" in chart.refusal(namespace=namespace)


@pytest.mark.needs("helm")
@pytest.mark.parametrize(
    ("option", "field"),
    [
        ("replicas=3", "replicas"),
        ("webhook.replica=3", "replica"),
        ("webhook.replicas=0", "webhook/replicas"),
        ("webhook.replicas=two", "webhook/replicas"),
        ("image.digest=latest", "image/digest"),
        ("image.pullPolicy=always", "image/pullPolicy"),
        ("sidecar.logLevel=verbose", "sidecar/logLevel"),
        ("sidecar.resources.limits.memory=lots", "sidecar/resources/limits/memory"),
        ("sidecar.runAsUser=0", "sidecar/runAsUser"),
        ("redis.url=memcached://r", "redis/url"),
        ("redis.url=redis+sharded://r", "redis/url"),
        ("redis.existingSecret=shared", "redis/existingSecret"),
        ("providerNamespaces[0]=Not_A_Namespace", "providerNamespaces/0"),
        ("webhook.certificates.mode=selfSigned", "webhook/certificates/mode"),
        ("webhook.certificates.existingSecret.caBundle=abc", "webhook/certificates/existingSecret/caBundle"),
        ("injection.requireQuota=maybe", "injection/requireQuota"),
    ],
)
def test_a_value_that_nobody_reads_or_that_cannot_be_used_is_refused_by_its_name(
    chart: Chart, option: str, field: str
) -> None:
    said = chart.refusal(option)

    assert field in said.replace(".", "/")


def test_the_generated_files_are_up_to_date() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "tools" / "chart_generated.py", "--check"], check=False, capture_output=True, text=True
    )

    assert (checked.returncode, checked.stderr) == (0, "")


def _leaves(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """What the schema describes as a whole, or that is no object at all."""
    for name, node in schema["properties"].items():
        here = f"{path}.{name}" if path else name
        if "properties" in node and "description" not in node:
            yield from _leaves(values[name], node, here)
        elif name != "global":
            yield here, node


def test_every_value_has_a_description_and_a_place_on_the_page() -> None:
    page = (ROOT / "docs" / "chart-values.md").read_text(encoding="utf-8")
    leaves = list(_leaves(VALUES, SCHEMA))

    assert len(leaves) > 50
    for path, node in leaves:
        assert node.get("description"), f"{path} has no `# --` comment in values.yaml"
        assert f"\n| `{path}` |" in page


def _undescribed(values: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    if isinstance(values, dict) and "properties" in schema:
        for name, value in values.items():
            if name not in schema["properties"]:
                yield f"{path}.{name}"
            else:
                yield from _undescribed(value, schema["properties"][name], f"{path}.{name}")


def test_the_schema_knows_every_value_and_takes_no_other() -> None:
    assert list(_undescribed(VALUES, SCHEMA)) == []
    remaining = [SCHEMA]
    while remaining:
        node = remaining.pop()
        remaining += node.get("properties", {}).values()
        if "properties" in node:
            assert node["additionalProperties"] is False
