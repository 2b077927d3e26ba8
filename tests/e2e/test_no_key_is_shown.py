"""Provider keys stand in Secrets and in the proxies' files, and nowhere else that anybody can look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from llm_sidecar.contract.names import ADMIN_PORT, SIDECAR_CONTAINER
from tests.e2e.applications import Applications
from tests.e2e.resources import PROVIDER_KEYS

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.needs("helm")]

READABLE = "pods,replicasets,deployments,jobs,configmaps,events,services,llmproviders,teamquotas"
METRICS = (
    f"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{ADMIN_PORT}/metrics').read().decode())"
)


def test_no_log_event_status_or_metric_shows_a_provider_key(team: Callable[[], Applications]) -> None:
    applications = team()
    applications.run_job("ask", applications.program("app", "all_sdks.py"))
    applications.deploy("app", applications.program("app", "steady_calls.py"))
    pod = applications.pod_of("app")
    applications.cluster.wait_until(lambda: len(applications.calls(pod)) > 5, what="the application calls")

    for place, text in _all_that_is_said(applications, pod):
        assert text.strip(), f"{place} says nothing: the search proves nothing"
        for name, key in PROVIDER_KEYS.items():
            assert key not in text, f"{place} shows the key of {name}"


def _all_that_is_said(applications: Applications, pod: str) -> Iterator[tuple[str, str]]:
    release = applications.release
    yield "an object", applications.cluster.text("get", READABLE, "--all-namespaces", "--output=yaml")
    yield "the controller's log", release.logs("controller")
    yield "the webhook's log", release.logs("webhook")
    yield "the proxy's log", applications.text("logs", pod, f"--container={SIDECAR_CONTAINER}", "--tail=-1")
    yield "the log of a Job's proxy", applications.text("logs", "job/ask", f"--container={SIDECAR_CONTAINER}")
    yield "a metric", applications.execute(pod, "python", "-c", METRICS, container=SIDECAR_CONTAINER)
