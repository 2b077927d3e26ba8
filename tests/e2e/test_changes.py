"""What reaches running proxies, how soon, and that nobody's call fails for it."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable

import pytest

from llm_sidecar.contract.names import SIDECAR_CONTAINER, PodAnnotation, config_secret
from tests.e2e import resources
from tests.e2e.applications import INJECT, Applications, Call
from tests.e2e.resources import PROVIDER_KEYS

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.needs("helm")]

Team = Callable[[], Applications]

PROMISED_SECONDS = 5.0
FIND_TEXT = (resources.PROGRAMS / "find_text.py").read_text(encoding="utf-8")
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


def test_a_rotated_key_is_in_use_within_seconds_and_no_call_fails(
    steady: tuple[Applications, str], tell_figure: Callable[[str], None]
) -> None:
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

    _seconds_until(applications, pod, since=time.time() + 0.5, holds=lambda call: call.outcome == old)
    calls = applications.calls(pod)
    assert {call.outcome for call in calls} == {old, new}
    assert applications.restarts(pod) == 0
    assert seconds < PROMISED_SECONDS
    tell_figure(f"provider key rotated -> in use: {seconds:.2f} s, 0 of {len(calls)} calls failed")


def test_an_edited_team_quota_is_effective_within_seconds_without_a_restart(
    steady: tuple[Applications, str], tell_figure: Callable[[str], None]
) -> None:
    applications, pod = steady

    since = time.time()
    edited = resources.team_quota("default", models={"deny": ["gpt-5-mini", "fingerprint"]})
    applications.cluster.apply(edited, namespace=applications.namespace)
    refused = _seconds_until(applications, pod, since=since, holds=lambda call: call.outcome.startswith("status 403"))

    since = time.time()
    applications.cluster.apply(resources.team_quota("default"), namespace=applications.namespace)
    allowed = _seconds_until(
        applications,
        pod,
        since=since,
        holds=lambda call: call.outcome == _fingerprint(PROVIDER_KEYS["fingerprint"]),
    )

    assert max(refused, allowed) < PROMISED_SECONDS
    assert applications.restarts(pod) == 0
    tell_figure(f"TeamQuota edited -> model refused: {refused:.2f} s, allowed again: {allowed:.2f} s")


def test_an_edited_provider_is_effective_within_seconds_without_a_restart(
    steady: tuple[Applications, str], tell_figure: Callable[[str], None]
) -> None:
    applications, pod = steady
    expected = _fingerprint(PROVIDER_KEYS["fingerprint"])
    shared = applications.release.namespace
    [provider] = [one for one in resources.shared_providers(shared) if one["metadata"]["name"] == "fingerprint"]
    renamed = {**provider, "spec": {**provider["spec"], "models": [{"name": "gpt-5-mini", "aliases": ["renamed"]}]}}

    since = time.time()
    applications.cluster.apply(renamed, namespace=shared)
    try:
        gone = _seconds_until(applications, pod, since=since, holds=lambda call: call.outcome.startswith("status 404"))
    finally:
        since = time.time()
        applications.cluster.apply(provider, namespace=shared)
    back = _seconds_until(applications, pod, since=since, holds=lambda call: call.outcome == expected)

    assert max(gone, back) < PROMISED_SECONDS
    assert applications.restarts(pod) == 0
    tell_figure(f"LLMProvider edited -> alias gone: {gone:.2f} s, there again: {back:.2f} s")


def test_a_revoked_claim_takes_the_keys_away_and_a_renewed_one_brings_them_back(
    team: Team, tell_figure: Callable[[str], None]
) -> None:
    """From the running proxy, its file, and the Secret; a pod that comes afterwards is refused."""
    owners, applications = team(), team()
    expected = _fingerprint(PROVIDER_KEYS["fingerprint"])
    theirs = {**INJECT, PodAnnotation.TEAM.value: f"{owners.namespace}/default"}
    admitting = resources.team_quota("default", allowedNamespaces={"from": "All"})
    owners.apply(admitting)
    applications.deploy("app", applications.program("app", "steady_calls.py"), annotations=theirs)
    pod = applications.pod_of("app")
    _seconds_until(applications, pod, since=0, holds=lambda call: call.outcome == expected)
    secret = config_secret(owners.namespace, "default")
    assert _keys_in_secret(applications, secret) == set(PROVIDER_KEYS)

    since = time.time()
    owners.apply(resources.team_quota("default"))
    revoked = _seconds_until(applications, pod, since=since, holds=lambda call: call.outcome.startswith("status 403"))
    assert _keys_in_secret(applications, secret) == set()
    for one in PROVIDER_KEYS.values():
        assert (
            applications.execute(pod, "python", "-c", FIND_TEXT, container=SIDECAR_CONTAINER, stdin=one).strip() == ""
        )
    applications.deploy("late", applications.waiting(), annotations=theirs)
    assert "TeamNotAllowed: " in applications.refusal("late")

    since = time.time()
    owners.apply(admitting)
    renewed = _seconds_until(applications, pod, since=since, holds=lambda call: call.outcome == expected)
    assert _keys_in_secret(applications, secret) == set(PROVIDER_KEYS)
    assert applications.restarts(pod) == 0
    assert max(revoked, renewed) < PROMISED_SECONDS
    tell_figure(f"claim revoked -> keys gone: {revoked:.2f} s, granted -> in use again: {renewed:.2f} s")


def _keys_in_secret(applications: Applications, name: str) -> set[str]:
    """Of which providers a published Secret holds the key."""
    data = applications.cluster.kubectl("get", "secret", name, f"--namespace={applications.namespace}")["data"]
    text = b"".join(base64.b64decode(one) for one in data.values()).decode()
    return {provider for provider, key in PROVIDER_KEYS.items() if key in text}


def test_running_applications_go_on_without_controller_and_webhook(
    steady: tuple[Applications, str], tell_figure: Callable[[str], None]
) -> None:
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
        tell_figure(f"proxy restarted without an operator: answers again {seconds:.2f} s after it was started")

        applications.deploy("plain", applications.waiting(), annotations={})
        assert applications.pod_of("plain")
    finally:
        release.install()


def _end_proxy(applications: Applications, pod: str) -> None:
    end = "import os, signal; os.kill(1, signal.SIGTERM)"
    applications.execute(pod, "python", "-c", end, container="llm-sidecar")
