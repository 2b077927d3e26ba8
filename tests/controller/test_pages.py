"""What the pages say of the controller is so: every metric with its labels, every reason, every field of the status."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from llm_operator.reconcile.metrics import ControllerMetrics
from llm_operator.status import Reason
from llm_sidecar.contract import crd
from llm_sidecar.contract.names import API_GROUP

DOCS = Path(__file__).parents[2] / "docs"


def _text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def test_every_metric_of_the_controller_is_listed_with_its_labels() -> None:
    table = _text("operator.md").partition("\n## Metrics of the controller\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]
    listed = {name: set(re.findall(r"`(\w+)`", row[1])) for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    exposed = {
        f"{metric._name}_total" if metric._type == "counter" else metric._name: set(metric._labelnames)
        for metric in ControllerMetrics().registry._collector_to_names
        if isinstance(metric, MetricWrapperBase)
    }

    assert listed == exposed


def test_every_reason_is_explained_where_it_is_met() -> None:
    explained = set(re.findall(r"`(\w+)`", _text("reference/teamquota.md") + _text("reference/llmprovider.md")))

    assert {reason.value for reason in Reason} - explained == set()


def test_every_field_of_a_limits_usage_is_explained() -> None:
    [quota] = [one for one in crd.DEFINITIONS if one.file_name == f"teamquotas.{API_GROUP}.yaml"]
    status = crd.root_schema(quota.model)["properties"]["status"]["properties"]
    table = _text("usage.md").partition("| Field of `status.usage[]`")[2].partition("\n\n")[0]
    listed = {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split(" | ")[0])}

    assert listed == status["usage"]["items"]["properties"].keys()
    for field in status["tightest"]["properties"].keys() | status.keys() - {"conditions", "observedGeneration"}:
        assert f"`{field}`" in _text("usage.md") + _text("reference/teamquota.md"), field
