"""Every folder under `inject/` is a case: a pod, and what the webhook makes of it. See `inject/README.md`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonpatch
import pytest

from llm_operator.inject import Inject, Skip, SkipReason, inject, wire
from llm_sidecar.contract.names import SIDECAR_CONTAINER
from tests.golden.injection import EXPECTATIONS, TOKEN, cases, compact, decision_about, outcome, read_pod

WARNING_LENGTH = 256
"""API servers may cut what is longer."""


def _expected(case: Path) -> dict[str, str]:
    return {name: (case / name).read_text(encoding="utf-8") for name in EXPECTATIONS if (case / name).exists()}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_webhook_answers_as_the_files_say(case: Path) -> None:
    assert outcome(case) == _expected(case)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_patch_is_the_files_byte_for_byte_on_the_wire(case: Path) -> None:
    pod = read_pod(case)
    decision = decision_about(pod, case)
    patch = wire(inject(pod, decision, token=TOKEN)) if isinstance(decision, Inject) else None

    assert patch == (compact(_expected(case)["patch.json"]) if "patch.json" in _expected(case) else None)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_deciding_and_patching_leave_the_pod_that_they_read_alone(case: Path) -> None:
    pod = read_pod(case)
    before = copy.deepcopy(pod)
    decision = decision_about(pod, case)
    if isinstance(decision, Inject):
        inject(pod, decision, token=TOKEN)

    assert pod == before


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_patched_pod_needs_nothing_more(case: Path) -> None:
    pod = read_pod(case)
    decision = decision_about(pod, case)
    if not isinstance(decision, Inject):
        return
    patched = jsonpatch.apply_patch(pod, inject(pod, decision, token=TOKEN))
    for seen in (patched, _as_the_api_server_fills_in(patched)):
        again = decision_about(seen, case)

        assert isinstance(again, Skip)
        assert again.reason is SkipReason.ALREADY_INJECTED


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_no_warning_is_so_long_that_it_would_be_cut(case: Path) -> None:
    assert [one for one in outcome(case).get("warnings.txt", "").splitlines() if len(one) > WARNING_LENGTH] == []


def test_no_expectation_stands_without_its_pod() -> None:
    folders = {path.parent for name in EXPECTATIONS for path in cases()[0].parent.glob(f"*/{name}")}

    assert folders <= set(cases())


def _as_the_api_server_fills_in(pod: dict[str, Any]) -> dict[str, Any]:
    """The defaults of Kubernetes for what we add, and what it adds to every container."""
    pod = copy.deepcopy(pod)
    for container in pod["spec"]["initContainers"]:
        if container["name"] == SIDECAR_CONTAINER:
            container |= {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}
            container["imagePullPolicy"] = "Always"
            for probe in ("startupProbe", "livenessProbe"):
                container[probe] |= {"successThreshold": 1, "httpGet": container[probe]["httpGet"] | {"scheme": "HTTP"}}
    for volume in pod["spec"]["volumes"]:
        if "secret" in volume:
            volume["secret"]["defaultMode"] = 420
    return pod
