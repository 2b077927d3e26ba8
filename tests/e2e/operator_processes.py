"""What controller and webhook cost, and what they have counted: read from inside their pods."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from llm_sidecar.contract.names import ADMIN_PORT
from tests.e2e.release import Release

_READ: Final = """
import json, os
fields = open("/proc/1/stat").read().rpartition(")")[2].split()
memory = dict(line.split(":", 1) for line in open("/proc/1/status"))
cpu_seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
print(json.dumps({"cpu_seconds": cpu_seconds, "rss_mib": int(memory["VmRSS"].split()[0]) / 1024}))
"""
"""Of a container's first process. The clock's ticks are hundredths of a second."""

Series = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one process, since it began."""

    cpu_seconds: float
    rss_mib: float


@dataclass(frozen=True, slots=True)
class Component:
    """The pods of one of the chart's Deployments."""

    release: Release
    name: str

    def pods(self) -> list[str]:
        """Those that are not about to end."""
        return [one["metadata"]["name"] for one in self.release.pods(self.name)]

    def costs(self) -> dict[str, Cost]:
        """By pod."""
        return {pod: Cost(**json.loads(self._execute(pod))) for pod in self.pods()}

    def counts(self) -> Counter[Series]:
        """All samples of all pods, added up."""
        total: Counter[Series] = Counter()
        for pod in self.pods():
            total.update(samples(self._metrics(pod)))
        return total

    def _execute(self, pod: str) -> str:
        place = f"--namespace={self.release.namespace}"
        return self.release.cluster.text("exec", place, pod, f"--container={self.name}", "--", "python", "-c", _READ)

    def _metrics(self, pod: str) -> str:
        path = f"/api/v1/namespaces/{self.release.namespace}/pods/{pod}:{ADMIN_PORT}/proxy/metrics"
        return self.release.cluster.text("get", "--raw", path)


def samples(exposition: str) -> dict[Series, float]:
    """Every sample, by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


def api_calls(counts: Mapping[Series, float]) -> Counter[tuple[str, str]]:
    """The controller's calls to the API server, by verb and resource."""
    calls: Counter[tuple[str, str]] = Counter()
    for (name, labels), value in counts.items():
        if name == "llm_operator_api_calls_total":
            known = dict(labels)
            calls[known["verb"], known["resource"]] += int(value)
    return calls


def told(calls: Mapping[tuple[str, str], int]) -> str:
    """Such as `1 apply secrets, 20 patch pods`."""
    parts = [f"{count} {verb} {resource}" for (verb, resource), count in sorted(calls.items()) if count]
    return f"{sum(calls.values())} calls: {', '.join(parts) or 'none'}"


def cpu_share(before: Mapping[str, Cost], after: Mapping[str, Cost], *, seconds: float) -> str:
    """What one core gave to each process meanwhile, in thousandths of it."""
    return ", ".join(f"{1000 * (after[pod].cpu_seconds - before[pod].cpu_seconds) / seconds:.0f}m" for pod in after)


def memory(costs: Iterable[Cost]) -> str:
    """What each process holds."""
    return ", ".join(f"{cost.rss_mib:.0f} MiB" for cost in costs)
