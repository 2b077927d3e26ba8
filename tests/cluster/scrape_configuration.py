"""What the Prometheus Operator makes of a PodMonitor: scrape configurations that discover pods and keep the selected.

Made from the object that the chart renders, so that a selector or a port which finds nothing shows. A field that is
not translated here is an error: otherwise a mistake in it would pass unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

Configuration = dict[str, Any]

DEFAULT_METRICS_PATH: Final = "/metrics"
_POD: Final = "__meta_kubernetes_pod"


def scrape_configurations(pod_monitor: Mapping[str, Any]) -> list[Configuration]:
    """One for each endpoint of a PodMonitor."""
    metadata, spec = pod_monitor["metadata"], dict(pod_monitor["spec"])
    namespaces = _namespaces(spec.pop("namespaceSelector", {}), own=metadata["namespace"])
    selected = list(_keep_selected(spec.pop("selector")))
    endpoints = spec.pop("podMetricsEndpoints")
    _check_translated(spec, where="spec")
    job = f"{metadata['namespace']}/{metadata['name']}"
    return [
        {
            "job_name": f"podMonitor/{job}/{number}",
            "kubernetes_sd_configs": [{"role": "pod", **namespaces}],
            **_scraping(endpoint, job=job, selected=selected),
        }
        for number, endpoint in enumerate(endpoints)
    ]


def _scraping(endpoint: Mapping[str, Any], *, job: str, selected: list[Configuration]) -> Configuration:
    rest = dict(endpoint)
    port, path, interval = rest.pop("port"), rest.pop("path", DEFAULT_METRICS_PATH), rest.pop("interval", None)
    _check_translated(rest, where="podMetricsEndpoints")
    relabelings = [
        _rule("drop", f"{_POD}_phase", regex="Failed|Succeeded"),
        *selected,
        _rule("keep", f"{_POD}_container_port_name", regex=re.escape(port)),
        _copy("__meta_kubernetes_namespace", "namespace"),
        _copy(f"{_POD}_container_name", "container"),
        _copy(f"{_POD}_name", "pod"),
        {"target_label": "job", "replacement": job},
        {"target_label": "endpoint", "replacement": port},
    ]
    timing = {} if interval is None else {"scrape_interval": interval}
    return {"metrics_path": path, **timing, "relabel_configs": relabelings}


def _namespaces(selector: Mapping[str, Any], *, own: str) -> Configuration:
    rest = dict(selector)
    everywhere, names = rest.pop("any", False), rest.pop("matchNames", [own])
    _check_translated(rest, where="namespaceSelector")
    return {} if everywhere else {"namespaces": {"names": names}}


def _keep_selected(selector: Mapping[str, Any]) -> Iterator[Configuration]:
    rest = dict(selector)
    for name, value in rest.pop("matchLabels", {}).items():
        yield _label_rule("keep", name, regex=f"{re.escape(value)};true")
    for expression in rest.pop("matchExpressions", []):
        values = "|".join(map(re.escape, expression.get("values", [])))
        action, regex = {
            "In": ("keep", f"({values});true"),
            "NotIn": ("drop", f"({values});true"),
            "Exists": ("keep", ".*;true"),
            "DoesNotExist": ("drop", ".*;true"),
        }[expression["operator"]]
        yield _label_rule(action, expression["key"], regex=regex)
    _check_translated(rest, where="selector")


def _label_rule(action: str, label: str, *, regex: str) -> Configuration:
    name = re.sub(r"[^a-zA-Z0-9_]", "_", label)
    # The second one tells an empty label from none.
    return _rule(action, f"{_POD}_label_{name}", f"{_POD}_labelpresent_{name}", regex=regex)


def _rule(action: str, *sources: str, regex: str) -> Configuration:
    return {"action": action, "source_labels": list(sources), "regex": regex}


def _copy(source: str, target: str) -> Configuration:
    return {"source_labels": [source], "target_label": target}


def _check_translated(rest: Mapping[str, Any], *, where: str) -> None:
    if rest:
        raise ValueError(f"{where} of a PodMonitor has {sorted(rest)}, which is not translated for Prometheus here")
