"""`make demo-cluster`: what it shows is so, and it takes away what it brought."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from examples.cluster.stage import MANIFESTS, RELEASE, SYSTEM, TEAM
from tests.cluster.cluster import Cluster
from tests.cluster.places import ROOT
from tests.e2e import release

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.needs("helm")]

SECONDS = 400.0


@pytest.fixture(scope="module")
def told(cluster: Cluster) -> str:
    """What one run of the demo printed."""
    # What an interrupted test run left would be in its way, and it says so instead of removing it.
    release._remove_left_over(cluster)
    finished = subprocess.run(
        [sys.executable, "-m", "examples.cluster"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_it_applies_every_example_manifest(told: str) -> None:
    for path in MANIFESTS.glob("*.yaml"):
        assert f"$ kubectl apply --filename examples/cluster/manifests/{path.name}" in told


def test_the_application_gets_answers_by_all_three_sdks(told: str) -> None:
    for sdk in ("openai", "anthropic", "google"):
        assert re.search(rf"^{sdk} +says: \S", told, re.MULTILINE)
    assert "answered: " in told


def test_the_injected_pod_has_the_proxy_and_leads_the_sdks_to_it(told: str) -> None:
    assert re.search(r"^assistant-\S+ +llm-sidecar +app +default +llm-sidecar\.payments\.default$", told, re.MULTILINE)
    assert "OPENAI_BASE_URL=http://127.0.0.1:9797/v1" in told


def test_a_changed_limit_mistakes_and_their_fixes_are_shown(told: str) -> None:
    assert re.search(r"^refused: 429: limit 'daily' of team payments/default", told, re.MULTILINE)
    assert "kubectl label secret unlabelled" in told
    assert "UnknownTeam: " in told


def test_no_provider_key_is_shown_and_nothing_is_left(told: str, cluster: Cluster) -> None:
    assert "demo-provider-key" not in told
    names = {one["metadata"]["name"] for one in cluster.kubectl("get", "namespaces")["items"]}
    assert not names & {SYSTEM, TEAM}
    webhooks = cluster.kubectl("get", "mutatingwebhookconfigurations")["items"]
    assert [one["metadata"]["name"] for one in webhooks if RELEASE in one["metadata"]["name"]] == []
