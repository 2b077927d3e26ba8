"""What reaches running proxies, how soon, and that nobody's call fails for it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import pytest

from tests.e2e import resources
from tests.e2e.applications import Applications, Call
from tests.e2e.resources import PROVIDER_KEYS

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.needs("helm")]

Team = Callable[[], Applications]

PROMISED_SECONDS = 5.0
NEW_KEY = "sk-e2e-second-52d86b0fa9c1"


def _fingerprint(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def _first(calls: list[Call], holds: Callable[[Call], bool]) -> Call | None:
    return next((call for call in sorted(calls, key=lambda one: one.began) if holds(call)), None)


@pytest.fixture
def steady(team: Team) -> tuple[Applications, str]:
    """An application that calls all the time, and its pod."""
    applications = team()
    applications.deploy("app", applications.program("app", "steady_calls.py"))
    pod = applications.pod_of("app")
    applications.cluster.wait_until(lambda: len(applications.calls(pod)) > 20, what="the application calls")
    return applications, pod


def _seconds_until(applications: Applications, pod: str, *, since: float, holds: Callable[[Call], bool]) -> float:
    """Seconds until the first call that began after `since` with such an outcome."""

    def first() -> Call | None:
        return _first([one for one in applications.calls(pod) if one.ended > since], holds)

    applications.cluster.wait_until(lambda: first() is not None, what="the change shows in the application's calls")
    found = first()
    assert found is not None
    return found.ended - since


def test_a_rotated_key_is_in_use_within_seconds_and_no_call_fails(steady: tuple[Applications, str]) -> None:
    applications, pod = steady
    old, new = _fingerprint(PROVIDER_KEYS["fingerprint"]), _fingerprint(NEW_KEY)
    release = applications.release

    since = time.time()
    applications.cluster.apply(resources.credentials("fingerprint", NEW_KEY), namespace=release.namespace)
    try:
        seconds = _seconds_until(applications, pod, since=since, holds=lambda call: call.outcome == new)
    finally:
        first_key = resources.credentials("fingerprint", PROVIDER_KEYS["fingerprint"])
        applications.cluster.apply(first_key, namespace=release.namespace)
    print(f"\nkey rotated -> in use: {seconds:.2f} s")

    _seconds_until(applications, pod, since=time.time() + 0.5, holds=lambda call: call.outcome == old)
    calls = applications.calls(pod)
    assert {call.outcome for call in calls} == {old, new}
    assert applications.restarts(pod) == 0
    assert seconds < PROMISED_SECONDS
    print(f"calls meanwhile: {len(calls)}, none failed")


def test_an_edited_team_quota_is_effective_within_seconds_without_a_restart(steady: tuple[Applications, str]) -> None:
    applications, pod = steady

    since = time.time()
    edited = resources.team_quota("default", models={"deny": ["gpt-5-mini", "fingerprint"]})
    applications.cluster.apply(edited, namespace=applications.namespace)
    refused = _seconds_until(applications, pod, since=since, holds=lambda call: call.outcome.startswith("status 403"))
    print(f"\nTeamQuota edited -> model refused: {refused:.2f} s")

    since = time.time()
    applications.cluster.apply(resources.team_quota("default"), namespace=applications.namespace)
    allowed = _seconds_until(
        applications,
        pod,
        since=since,
        holds=lambda call: call.outcome == _fingerprint(PROVIDER_KEYS["fingerprint"]),
    )
    print(f"TeamQuota edited -> model allowed: {allowed:.2f} s")

    assert max(refused, allowed) < PROMISED_SECONDS
    assert applications.restarts(pod) == 0


def test_running_applications_go_on_without_controller_and_webhook(steady: tuple[Applications, str]) -> None:
    """Also a proxy that is started again meanwhile."""
    applications, pod = steady
    release = applications.release
    components = "app.kubernetes.io/component in (controller, webhook)"
    expected = _fingerprint(PROVIDER_KEYS["fingerprint"])
    try:
        place = f"--namespace={release.namespace}"
        applications.cluster.text("delete", "deployments", place, f"--selector={components}", "--cascade=foreground")
        left = applications.cluster.kubectl("get", "pods", place, f"--selector={components}")["items"]
        assert left == []

        since = time.time()
        _seconds_until(applications, pod, since=since + 1, holds=lambda call: call.outcome == expected)
        assert {call.outcome for call in applications.calls(pod)} == {expected}

        _end_proxy(applications, pod)
        applications.cluster.wait_until(lambda: applications.restarts(pod) == 1, what="the proxy is started again")
        seconds = _seconds_until(applications, pod, since=time.time(), holds=lambda call: call.outcome == expected)
        print(f"\nproxy restarted without an operator, answers again after {seconds:.2f} s")

        applications.deploy("plain", applications.waiting(), annotations={})
        assert applications.pod_of("plain")
    finally:
        release.install()


def _end_proxy(applications: Applications, pod: str) -> None:
    end = "import os, signal; os.kill(1, signal.SIGTERM)"
    applications.execute(pod, "python", "-c", end, container="llm-sidecar")
