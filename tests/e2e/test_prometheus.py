"""A real Prometheus finds the proxies and the operator by the chart's PodMonitors, and understands what they tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from llm_sidecar.contract.names import METRICS_PORT_NAME, SIDECAR_CONTAINER, PodAnnotation
from tests.chart.rendering import Chart
from tests.cluster import prometheus
from tests.cluster.prometheus import Prometheus
from tests.e2e.applications import INJECT, Applications
from tests.e2e.release import RELEASE, Release

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.needs("helm")]

Team = Callable[[], Applications]


@pytest.fixture(scope="module")
def monitoring(release: Release) -> Iterator[Prometheus]:
    """A Prometheus with scrape configurations made from the PodMonitors that Helm renders for this release."""
    rendered = Chart(release.cluster.provider.helm).render(set=["podMonitor.enabled=true"], namespace=release.namespace)
    pod_monitors = [one for one in rendered if one["kind"] == "PodMonitor"]
    assert len(pod_monitors) == 2
    with prometheus.running(release.cluster, pod_monitors) as server:
        yield server


def test_the_calls_of_an_injected_pod_are_counted_and_one_that_did_not_ask_is_not_scraped(
    team: Team, monitoring: Prometheus
) -> None:
    applications = team()
    applications.deploy("app", applications.program("app", "steady_calls.py"))
    applications.deploy("plain", applications.waiting(), annotations={})
    pod = applications.pod_of("app")
    applications.pod_of("plain")
    place = f'namespace="{applications.namespace}"'

    counted = monitoring.wait_for(f'llm_requests_total{{{place}, pod="{pod}", status="200"}} > 0')

    assert counted[0].labels["provider"] == "fingerprint"
    assert counted[0].labels["container"] == SIDECAR_CONTAINER
    [scraped] = monitoring.query(f"up{{{place}}}")
    assert scraped.value == 1
    assert scraped.labels["pod"] == pod
    assert scraped.labels["endpoint"] == METRICS_PORT_NAME
    assert scraped.labels["job"] == f"{applications.release.namespace}/{RELEASE}-proxies"


def test_a_pod_that_moved_the_port_of_its_metrics_is_scraped_all_the_same(team: Team, monitoring: Prometheus) -> None:
    applications = team()
    moved = {**INJECT, PodAnnotation.ADMIN_PORT.value: "19798"}
    applications.deploy("app", applications.waiting(), annotations=moved)
    pod = applications.pod_of("app")

    [scraped] = monitoring.wait_for(f'up{{namespace="{applications.namespace}", pod="{pod}"}} == 1')

    assert scraped.labels["instance"].endswith(":19798")


def test_controller_and_webhook_are_scraped_and_the_bundled_redis_is_not(
    release: Release, monitoring: Prometheus
) -> None:
    job = f'job="{release.namespace}/{RELEASE}-operator"'

    scraped = monitoring.wait_for(f"up{{{job}}} == 1", count=3)

    assert sorted(one.labels["container"] for one in scraped) == ["controller", "webhook", "webhook"]
    assert monitoring.wait_for(f"sum(llm_operator_reconciles_total{{{job}}}) > 0")
    # Each webhook has loaded its certificate, which ends after now.
    assert monitoring.wait_for("llm_operator_webhook_certificate_expiry_timestamp_seconds > time()", count=2)
