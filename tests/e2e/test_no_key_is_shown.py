"""Provider keys stand in Secrets and in the proxies' files, and nowhere else that anybody can look at."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from llm_sidecar.contract.names import ADMIN_PORT, SIDECAR_CONTAINER
from tests.cluster.cluster import Cluster
from tests.cluster.commands import CommandFailed
from tests.e2e import resources
from tests.e2e.applications import Applications
from tests.e2e.resources import PROVIDER_KEYS

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.needs("helm")]

WRONG_KEY: Final = "sk-e2e-wrong-60f2b7c81a94"
"""Of a provider that refuses it, with an answer that repeats some of it."""
KEYS: Final = {**PROVIDER_KEYS, "wrong": WRONG_KEY}
END_OF_KEY: Final = 8
"""Characters of a key's end that are looked for, too: providers shorten keys in what they say about them."""

METRICS: Final = (
    f"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{ADMIN_PORT}/metrics').read().decode())"
)
ERRORS: Final = "every_error.py"

Said = Iterator[tuple[str, str]]
"""Where something is said, and what."""


def test_no_object_log_metric_error_or_word_of_helm_shows_a_provider_key(team: Callable[[], Applications]) -> None:
    applications = team()
    wrong = resources.provider(
        "wrong",
        "OpenAI",
        url=f"http://simulator.{applications.release.namespace}.svc:9900/v1",
        models=[{"name": "gpt-5-mini", "aliases": ["wrong"]}],
        priority=900,
    )
    shared = applications.release.namespace
    try:
        applications.cluster.apply([resources.credentials("wrong", WRONG_KEY), wrong], namespace=shared)
        refused = "jsonpath={.status.conditions[?(@.type=='CredentialsValid')].status}=False"
        applications.cluster.wait_for("llmprovider/wrong", refused, namespace=shared)
        errors = _errors(applications)
        pod = applications.pod_of("app")
        applications.cluster.wait_until(lambda: len(applications.calls(pod)) > 5, what="the application calls")

        said = [("an error", errors), *_all_that_is_said(applications, pod)]
    finally:
        applications.cluster.text("delete", "llmprovider,secret", "wrong", f"--namespace={shared}")

    assert {"the log of controller", "the log of webhook", f"the log of {SIDECAR_CONTAINER}"} <= {
        one for one, _ in said
    }
    for place, text in said:
        for name, key in KEYS.items():
            for form in (key, base64.b64encode(key.encode()).decode(), key[-END_OF_KEY:]):
                assert form not in text, f"{place} shows the key of {name}"


def _errors(applications: Applications) -> str:
    """Of all kinds of call that fail, as the official SDK shows them; and a proxy that answers beside them."""
    applications.deploy("app", applications.program("app", "steady_calls.py"))
    printed = applications.run_job("fail", applications.program("app", ERRORS))
    assert printed.count("status ") > 3, printed
    return printed


def _all_that_is_said(applications: Applications, pod: str) -> Said:
    release = applications.release
    yield from _non_empty("Helm", release.told())
    yield from _objects(applications.cluster)
    yield from _logs(applications.cluster, {release.namespace, applications.namespace})
    proxy = applications.execute(pod, "python", "-c", METRICS, container=SIDECAR_CONTAINER)
    yield from _non_empty("a metric of the proxy", proxy)
    for component in ("controller", "webhook"):
        for one in release.pods(component):
            name, place = one["metadata"]["name"], f"--namespace={release.namespace}"
            metrics = applications.cluster.text("exec", place, name, "--", "python", "-c", METRICS)
            yield from _non_empty(f"a metric of {component}", metrics)


def _objects(cluster: Cluster) -> Said:
    """Every object of every kind but Secrets, with status and events."""
    kinds = cluster.text("api-resources", "--verbs=list", "--output=name").split()
    listed = [kind for kind in kinds if kind != "secrets"]
    assert {"pods", "events", "configmaps", "llmproviders.llm-sidecar.io"} <= set(listed)
    text = cluster.text("get", ",".join(listed), "--all-namespaces", "--output=yaml", "--show-managed-fields")
    assert all(f"kind: {kind}\n" in text for kind in ("Event", "LLMProvider", "TeamQuota", "Pod", "ConfigMap"))
    yield "an object", text


def _logs(cluster: Cluster, namespaces: set[str]) -> Said:
    """Of every container that ran, also before it was started again."""
    for pod in cluster.kubectl("get", "pods", "--all-namespaces")["items"]:
        metadata = pod["metadata"]
        if metadata["namespace"] not in namespaces:
            continue
        for status in _containers(pod):
            place = (metadata["name"], f"--namespace={metadata['namespace']}", f"--container={status['name']}")
            yield f"the log of {status['name']}", cluster.text("logs", *place, "--tail=-1")
            if status["restartCount"]:
                yield f"an earlier log of {status['name']}", _earlier_log(cluster, *place)


def _earlier_log(cluster: Cluster, *place: str) -> str:
    try:
        return cluster.text("logs", *place, "--tail=-1", "--previous")
    except CommandFailed:
        return ""  # the kubelet keeps it for a while only


def _containers(pod: Any) -> Iterator[Any]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        yield from (one for one in pod["status"].get(kind, []) if one.get("containerID"))


def _non_empty(place: str, text: str) -> Said:
    assert text.strip(), f"{place} says nothing: the search proves nothing"
    yield place, text
