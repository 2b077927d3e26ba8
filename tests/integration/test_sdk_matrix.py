"""The official SDKs, unmodified, in the newest release of each of their majors, through the sidecar.

Each program (`tests/sdk/python`, `tests/sdk/typescript`) is an application that takes its base URL and key from the
environment alone and tells each of its scenarios as one JSON line.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import pytest

from llm_sidecar.simulate import FAULT_HEADER
from tests.integration.conftest import SimulatedProvider, StartSidecar
from tests.sdk.environments import CHECKOUT, EnvironmentUnavailable, SDKEnvironment, sdk_environments

PROGRAM_SECONDS: Final = 120
CUT: Final = {FAULT_HEADER: "cut_after=3"}
"""The provider's connection breaks in the middle of the stream."""
ENDED_EARLY: Final = {FAULT_HEADER: "end_after=3"}
"""The provider's stream ends in good form, but without its terminal marker."""
NOT_AVAILABLE: Final[Mapping[str, set[str]]] = {
    "openai": set(),
    "anthropic": {"embeddings", "responses"},
    "google": {"responses"},
}
"""Scenarios that an API does not have. What a single release lacks is in `NOT_IN_RELEASE`; nothing else may skip."""
NOT_IN_RELEASE: Final[Mapping[str, set[str]]] = {"openai-1": {"token_counting"}}
ENDED_STREAMS: Final[Mapping[str, set[str]]] = {
    "openai": {"ended_chat_stream", "ended_responses_stream"},
    "anthropic": {"ended_stream", "ended_stream_helper"},
    "google": {"ended_stream"},
}
"""Scenarios that only something before the provider makes possible."""
NEWEST: Final = ("openai-3", "anthropic-2", "google-genai-3")


def _parameter(sdk: SDKEnvironment) -> object:
    if sdk.language == "python":
        return pytest.param(sdk, id=sdk.name)
    return pytest.param(sdk, id=f"{sdk.name}-{sdk.program}", marks=[pytest.mark.needs("node", "npm")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one scenario told."""

    scenario: str
    ok: bool
    detail: str | None
    skipped_because: str | None


def run_program(sdk: SDKEnvironment, variables: Mapping[str, str], *scenarios: str) -> list[Outcome]:
    """Run an application with these variables and nothing else of this process's environment."""
    try:
        command = sdk.command()
    except EnvironmentUnavailable as unavailable:
        pytest.skip(str(unavailable))
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    finished = subprocess.run(
        (*command, *scenarios),
        cwd=CHECKOUT,
        env=inherited | {"CUT_STREAM_HEADERS": json.dumps(CUT)} | dict(variables),
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS,
        check=False,
    )
    outcomes = [Outcome(**json.loads(line)) for line in finished.stdout.splitlines() if line.startswith("{")]
    assert outcomes, f"the program told nothing and ended with {finished.returncode}:\n{finished.stderr}"
    assert (finished.returncode == 0) == all(outcome.ok for outcome in outcomes), finished.stderr
    return outcomes


def assert_all_ok(outcomes: list[Outcome]) -> None:
    """Fail with every scenario that failed."""
    failed = [f"--- {outcome.scenario}\n{outcome.detail}" for outcome in outcomes if not outcome.ok]
    assert not failed, f"{len(failed)} of {len(outcomes)} scenarios failed:\n" + "\n".join(failed)


def skipped(outcomes: list[Outcome]) -> set[str]:
    """The scenarios that were not run."""
    return {outcome.scenario for outcome in outcomes if outcome.skipped_because}


@pytest.mark.parametrize("sdk", [_parameter(sdk) for sdk in sdk_environments()])
def test_every_scenario_of_an_unmodified_application_works_through_the_sidecar(
    sdk: SDKEnvironment,
    simulator: SimulatedProvider,
    simulated_manifests: Callable[[], str],
    start_sidecar: StartSidecar,
) -> None:
    """And the provider sees its own key in every request, and never the application's token."""
    sidecar = start_sidecar(simulated_manifests())

    outcomes = run_program(sdk, sidecar.sdk_environment() | {"ENDED_STREAM_HEADERS": json.dumps(ENDED_EARLY)})

    assert_all_ok(outcomes)
    assert skipped(outcomes) == NOT_AVAILABLE[sdk.program] | NOT_IN_RELEASE.get(sdk.name, set())
    assert simulator.key.encode() in simulator.tap.heard
    assert sidecar.token.encode() not in simulator.tap.heard
    # `run` tells its user the token once, as lines to paste into a shell. Everywhere else it has no place.
    log = [line for line in sidecar.stdout.all() + sidecar.stderr.all() if not line.lstrip().startswith("export ")]
    assert any('"event":"request"' in line for line in log)
    assert [line for line in log if sidecar.token in line or simulator.key in line] == []


@pytest.mark.parametrize("sdk", [_parameter(sdk) for sdk in sdk_environments() if sdk.name in NEWEST])
def test_the_programs_work_with_the_simulated_provider_itself_but_notice_no_early_end(
    sdk: SDKEnvironment, simulator: SimulatedProvider
) -> None:
    """What fails only through the sidecar is the sidecar's doing, and so is what is noticed only there."""
    variables = {
        "OPENAI_BASE_URL": f"{simulator.base_url}/v1",
        "ANTHROPIC_BASE_URL": simulator.base_url,
        "GOOGLE_GEMINI_BASE_URL": simulator.base_url,
    } | dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"), simulator.key)

    outcomes = run_program(sdk, variables)
    unnoticed = run_program(
        sdk, variables | {"ENDED_STREAM_HEADERS": json.dumps(ENDED_EARLY)}, *ENDED_STREAMS[sdk.program]
    )

    assert_all_ok(outcomes)
    assert skipped(outcomes) == NOT_AVAILABLE[sdk.program] | ENDED_STREAMS[sdk.program]
    assert {outcome.scenario for outcome in unnoticed if not outcome.ok} == ENDED_STREAMS[sdk.program]
