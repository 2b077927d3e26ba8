"""What holds for every pod, found by trying many."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import jsonpatch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from llm_operator.inject import Inject, InjectionSettings, Refuse, Skip, SkipReason, decide, inject, wire
from llm_operator.inject.environment import sdk_environments
from llm_sidecar.contract.names import ANNOTATION_PREFIX, SIDECAR_CONTAINER, PodAnnotation

TOKEN = "t" * 43
SETTINGS = InjectionSettings(image="registry.example.com/llm-sidecar:1", version="1")
NO_PROXY_NAMES = {"NO_PROXY", "no_proxy"}


class Teams:
    """One team that everybody may claim."""

    def team_quota(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        return {"metadata": {"namespace": namespace}, "spec": {"allowedNamespaces": {"from": "All"}}}

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        return {}


def _decide(pod: Any) -> Skip | Refuse | Inject:
    return decide(pod, namespace="payments", teams=Teams(), settings=SETTINGS)


_texts = st.text(max_size=8)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)
_variables = st.sampled_from(
    ["OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "GEMINI_API_KEY",
     "GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "HTTPS_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "PATH"]
)  # fmt: skip
_entries = st.builds(
    lambda name, rest, unknown: {"name": name, **rest, **unknown},
    _variables,
    st.sampled_from(
        [{}, {"value": ""}, {"value": "own"}, {"value": TOKEN}, {"value": "http://127.0.0.1:9797"}, {"value": "*"},
         {"value": "localhost, .svc"}, {"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    ),
    st.sampled_from([{}, {"futureField": [1]}]),
)  # fmt: skip
_resources = st.sampled_from(
    [
        {"limits": {"cpu": "1", "memory": "1Gi"}},
        {"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        {"requests": {"memory": "5e7"}},
    ]
)
_optional_container_fields = {
    "env": st.lists(_entries, max_size=5) | st.none(),
    "resources": _resources,
    "restartPolicy": st.just("Always"),
    "ports": st.lists(st.fixed_dictionaries({"containerPort": st.sampled_from([80, 8080, 9999])}), max_size=2),
    "futureField": _json,
}
_names = ["app", "web", "migrate", "istio-init", "istio-proxy", "linkerd-proxy"]


def _containers(smallest: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    container = st.fixed_dictionaries({"name": st.sampled_from(_names)}, optional=_optional_container_fields)
    return st.lists(container, min_size=smallest, max_size=3, unique_by=lambda one: one["name"])


_options = st.fixed_dictionaries(
    {PodAnnotation.INJECT.value: st.just("true")},
    optional={
        PodAnnotation.ENV.value: st.sampled_from(["IfAbsent", "Override", "None"]),
        PodAnnotation.PORT.value: st.just("18080"),
        PodAnnotation.CPU_LIMIT.value: st.sampled_from(["20m", "2"]),
        PodAnnotation.MEMORY_REQUEST.value: st.just("1Gi"),
        PodAnnotation.LOG_LEVEL.value: st.just("debug"),
        f"{ANNOTATION_PREFIX}unknown": _texts,
        "example.com/a~b": _texts,
    },
)
_pods = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {"annotations": _options},
            optional={"labels": st.dictionaries(_texts, _texts, max_size=2) | st.none(), "futureField": _json},
        ),
        "spec": st.fixed_dictionaries(
            {"containers": _containers(1)},
            optional={
                "initContainers": _containers(0) | st.none(),
                "volumes": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["a", "b"])}), max_size=2)
                | st.none(),
                "futureField": _json,
                "resources": _resources,
            },
        ),
    }
)


def _injected(pod: dict[str, Any]) -> tuple[dict[str, Any], Inject]:
    decision = _decide(pod)
    assert isinstance(decision, Inject)
    patched: dict[str, Any] = jsonpatch.apply_patch(pod, inject(pod, decision, token=TOKEN))
    return patched, decision


def _keeps(found: Any, original: Any) -> bool:
    """True if `found` is `original` with additions, and nothing else."""
    if isinstance(original, dict) and isinstance(found, dict):
        if original.get("name") in NO_PROXY_NAMES and str(found.get("value")).endswith(("127.0.0.1", "localhost")):
            original = {key: value for key, value in original.items() if key != "value"}
        return all(key in found and _keeps(found[key], value) for key, value in original.items())
    if isinstance(original, list) and isinstance(found, list):
        remaining = iter(found)
        return all(any(_keeps(candidate, item) for candidate in remaining) for item in original)
    # NaN is unlike itself; the document is a copy.
    return original is None or found == original or repr(found) == repr(original)


@given(pod=_pods)
def test_a_patched_pod_is_the_pod_with_additions(pod: dict[str, Any]) -> None:
    assume(pod["metadata"]["annotations"].get(PodAnnotation.ENV) != "Override")

    patched, _ = _injected(pod)

    assert _keeps(patched, pod)


@given(pod=_pods)
def test_a_patched_pod_is_complete(pod: dict[str, Any]) -> None:
    patched, _ = _injected(pod)

    again = _decide(patched)

    assert isinstance(again, Skip), again
    assert again.reason is SkipReason.ALREADY_INJECTED


@given(pod=_pods)
def test_an_sdk_gets_all_of_its_variables_or_none(pod: dict[str, Any]) -> None:
    patched, decision = _injected(pod)

    for list_name in ("initContainers", "containers"):
        for container in patched["spec"].get(list_name) or ():
            values = {entry["name"]: entry.get("value") for entry in container.get("env") or ()}
            before = [one for one in pod["spec"].get(list_name) or () if one["name"] == container["name"]]
            had = {entry["name"] for one in before for entry in one.get("env") or ()}
            for sdk in sdk_environments(port=decision.options.port, token=TOKEN):
                added = {name for name in sdk.variables if name in values and name not in had}
                if added:
                    assert {name: values.get(name) for name in sdk.variables} == sdk.variables


@given(pod=_pods)
def test_a_container_that_comes_later_gets_the_same_token(pod: dict[str, Any]) -> None:
    assume(pod["metadata"]["annotations"].get(PodAnnotation.ENV) != "None")
    # A container without resources may take the Guaranteed class from the pod: that changes nothing for the proxy.
    patched, _ = _injected(pod)
    patched["spec"]["containers"].append({"name": "late"})

    decision = _decide(patched)
    assert isinstance(decision, Inject)
    result = jsonpatch.apply_patch(patched, inject(patched, decision, token="another"))

    late = result["spec"]["containers"][-1]
    assert {"name": "OPENAI_API_KEY", "value": TOKEN} in late["env"]
    assert "another" not in repr(result)


@given(pod=_pods)
def test_the_proxy_starts_before_everything_but_a_mesh(pod: dict[str, Any]) -> None:
    patched, decision = _injected(pod)
    names = [one["name"] for one in patched["spec"]["initContainers"]]
    early = [name for name in names[: names.index(SIDECAR_CONTAINER)] if not name.startswith(("istio-", "linkerd-"))]

    assert all(any(f"init container {name} runs before" in warning for warning in decision.warnings) for name in early)


@given(pod=_json | st.fixed_dictionaries({"metadata": st.fixed_dictionaries({"annotations": _options}), "spec": _json}))
def test_no_document_is_too_strange(pod: Any) -> None:
    _answer(pod)


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(pod=_pods, path=st.lists(st.integers(0, 20), min_size=1, max_size=7), garbage=_json)
def test_no_field_is_too_strange(pod: dict[str, Any], path: list[int], garbage: Any) -> None:
    """Garbage in any place of a pod that is otherwise fine."""
    pod = copy.deepcopy(pod)
    owner: Any = pod
    for step in path[:-1]:
        inner = [
            value for value in (owner.values() if isinstance(owner, dict) else owner) if isinstance(value, dict | list)
        ]
        if not inner:
            break
        owner = inner[step % len(inner)]
    assume(owner)
    keys = list(owner) if isinstance(owner, dict) else range(len(owner))
    owner[keys[path[-1] % len(keys)]] = garbage

    _answer(pod)


def _answer(pod: Any) -> None:
    decision = _decide(pod)
    if isinstance(decision, Inject):
        operations = inject(pod, decision, token=TOKEN)
        wire(operations)
        jsonpatch.apply_patch(pod, operations)
    if isinstance(decision, Refuse):
        assert len(decision.message) < 4096
