"""What an application gets that asks for the proxy, on a real kubelet, and what it does not get."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llm_sidecar.contract.names import CONFIG_VOLUME, SIDECAR_CONTAINER, TEAM_LABEL, PodAnnotation
from tests.cluster import pods
from tests.e2e import resources
from tests.e2e.applications import INJECT, Applications
from tests.e2e.release import Release
from tests.e2e.resources import PROVIDER_KEYS

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.needs("helm")]

Team = Callable[[], Applications]

FIND_TEXT = (resources.PROGRAMS / "find_text.py").read_text(encoding="utf-8")
LIST_TOKEN = "import os; print(os.listdir('/var/run/secrets/kubernetes.io/serviceaccount'))"


def test_helm_test_says_that_the_release_works(team: Team) -> None:
    assert "Succeeded" in team().release.test()


def test_the_providers_keys_are_accepted_and_the_providers_ready(release: Release) -> None:
    for name in PROVIDER_KEYS:
        release.cluster.wait_for(f"llmprovider/{name}", "condition=Ready", namespace=release.namespace, seconds=30)


def test_a_job_that_uses_all_three_sdks_gets_answers_and_completes(team: Team) -> None:
    """In a namespace that enforces the restricted profile; the proxy ends by itself after the application."""
    applications = team()

    printed = applications.run_job("ask", applications.program("app", "all_sdks.py"))

    answers = json.loads(printed.splitlines()[-1])
    assert sorted(answers) == ["anthropic", "google", "openai"]
    assert all("hello from an application" in text for text in answers.values())


def test_the_proxy_is_ready_before_the_first_instruction_of_init_and_app_containers(team: Team) -> None:
    """Each calls at once and without retries; a call that fails would fail the Job."""
    applications = team()
    early = applications.program("early", "first_call.py", "an init container")

    printed = applications.run_job("ask", applications.program("app", "first_call.py", "the app"), first=[early])

    assert "hello from the app" in printed
    assert "hello from an init container" in applications.text("logs", "job/ask", "--container=early")


def test_the_app_holds_no_provider_key_and_the_proxy_no_account_token(team: Team) -> None:
    applications = team()
    applications.deploy("app", applications.waiting(), automountServiceAccountToken=True)
    pod = applications.pod_of("app")
    manifest = json.dumps(applications.pod(pod))

    for key in PROVIDER_KEYS.values():
        assert applications.execute(pod, "python", "-c", FIND_TEXT, stdin=key).strip() == ""
        assert key not in manifest
    # The search finds what is there: the keys are in the proxy's own file.
    in_proxy = applications.execute(
        pod, "python", "-c", FIND_TEXT, container=SIDECAR_CONTAINER, stdin=PROVIDER_KEYS["openai"]
    )
    assert "config.json" in in_proxy
    assert applications.execute(pod, "python", "-c", LIST_TOKEN, container=SIDECAR_CONTAINER).strip() == "[]"
    assert "token" in applications.execute(pod, "python", "-c", LIST_TOKEN)


def test_a_pod_that_does_not_ask_is_stored_as_it_was_submitted(team: Team) -> None:
    applications = team()
    applications.deploy("app", applications.waiting(), annotations={})

    stored = applications.pod(applications.pod_of("app"))

    assert [one["name"] for one in stored["spec"]["containers"]] == ["app"]
    assert "initContainers" not in stored["spec"]
    assert "env" not in stored["spec"]["containers"][0]
    assert TEAM_LABEL not in stored["metadata"]["labels"]


@pytest.mark.parametrize(
    ("annotations", "fields", "reason"),
    [
        ({PodAnnotation.TEAM.value: "nobody"}, {}, "UnknownTeam"),
        ({}, {"hostNetwork": True}, "HostNetwork"),
        ({}, {"shareProcessNamespace": True}, "SharedProcessNamespace"),
    ],
    ids=["unknown team", "host network", "shared processes"],
)
def test_a_refused_pod_has_its_reason_in_the_event_of_its_replica_set(
    team: Team, annotations: dict[str, str], fields: dict[str, Any], reason: str
) -> None:
    applications = team()
    applications.deploy("app", applications.waiting(), annotations={**INJECT, **annotations}, **fields)

    refusal = applications.refusal("app")

    assert "denied the request" in refusal
    assert f"{reason}: " in refusal
    assert "Fix: " in refusal


def test_a_team_of_another_namespace_that_does_not_admit_this_one_is_refused(team: Team) -> None:
    applications, others = team(), team()
    theirs = {PodAnnotation.TEAM.value: f"{others.namespace}/default"}
    applications.deploy("app", applications.waiting(), annotations={**INJECT, **theirs})

    assert "TeamNotAllowed: " in applications.refusal("app")


def test_a_pod_without_a_team_is_refused(team: Team) -> None:
    applications = team()
    applications.text("delete", "teamquota", "default")
    applications.deploy("app", applications.waiting())

    assert "NoTeam: " in applications.refusal("app")


def test_a_container_or_a_volume_of_our_name_and_a_volume_of_our_secret_are_refused(team: Team) -> None:
    applications = team()
    applications.deploy("named", applications.waiting(), applications.waiting(SIDECAR_CONTAINER))

    assert "NameTaken: " in applications.refusal("named")

    # With our volume's name in the template, the application would mount whatever the webhook puts there.
    mounting = applications.waiting()
    mounting["volumeMounts"] = [{"name": CONFIG_VOLUME, "mountPath": "/keys"}]
    spec = resources.specification(mounting)
    spec["volumes"].append({"name": CONFIG_VOLUME, "emptyDir": {}})
    applications.apply(resources.deployment("mounting", spec, annotations=INJECT))

    assert "ConfigUsed: " in applications.refusal("mounting")

    secret = f"llm-sidecar.{applications.namespace}.default"
    thief = pods.spec(applications.waiting(), volumes=[{"name": "keys", "secret": {"secretName": secret}}])
    thief["containers"][0]["volumeMounts"] = [{"name": "keys", "mountPath": "/keys"}]
    applications.apply(resources.deployment("thief", thief))

    assert "llm-sidecar" in applications.refusal("thief")
