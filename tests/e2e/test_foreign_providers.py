"""Whose providers a team's prompts go to: never to one that merely offers itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from tests.e2e import resources
from tests.e2e.applications import Applications
from tests.e2e.resources import PROVIDER_KEYS

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.needs("helm")]

Team = Callable[[], Applications]

CALLS_SEEN = 40
"""Enough that a provider which counts would have had one: the tempting one comes first."""


def _fingerprint(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def _answers(applications: Applications, pod: str, *, more_than: int = CALLS_SEEN) -> set[str]:
    """What an application's next calls come to."""
    before = len(applications.calls(pod))
    applications.cluster.wait_until(
        lambda: len(applications.calls(pod)) > before + more_than, what="the application calls"
    )
    return {call.outcome for call in applications.calls(pod)[before:]}


def test_a_tempting_provider_of_a_foreign_namespace_gets_no_traffic(team: Team) -> None:
    """It takes the best priority, the very alias and every other model, and is open to all; and it gets calls as soon
    as a team names it, so nothing else keeps them away.
    """
    ours, foreign = team(), team()
    release = ours.release
    shared, tempting = _fingerprint(PROVIDER_KEYS["fingerprint"]), _fingerprint("")
    for one in (ours, foreign):
        one.deploy("app", one.program("app", "steady_calls.py"))
    pod, foreign_pod = ours.pod_of("app"), foreign.pod_of("app")
    assert _answers(ours, pod) == {shared}

    provider = resources.provider(
        "fingerprint",
        "OpenAI",
        url=f"http://upstream.{release.namespace}.svc:9901/v1",
        models=[{"name": "gpt-5-mini", "aliases": ["fingerprint", "small"]}, {"name": "*"}],
        priority=0,
    )
    del provider["spec"]["credentials"]
    foreign.apply(provider)
    release.cluster.wait_for("llmprovider/fingerprint", "condition=Ready", namespace=foreign.namespace)
    release.cluster.wait_until(
        lambda: tempting in _answers(foreign, foreign_pod, more_than=1), what="the provider serves its own namespace"
    )

    assert _answers(ours, pod) == {shared}

    # The team's own word is what it takes.
    named = resources.team_quota("default", providers=[f"{foreign.namespace}/fingerprint"])
    release.cluster.apply(named, namespace=ours.namespace)
    release.cluster.wait_until(
        lambda: tempting in _answers(ours, pod, more_than=1), what="a provider that the team names gets its calls"
    )
    assert {call.outcome for call in ours.calls(pod)} == {shared, tempting}
