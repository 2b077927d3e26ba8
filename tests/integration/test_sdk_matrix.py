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
"""The provider's stream ends in good form but without its terminal marker, which no SDK notices by itself."""
CUT_SCENARIOS: Final[Mapping[str, tuple[str, ...]]] = {
    "openai": ("cut_chat_stream", "cut_responses_stream"),
    "anthropic": ("cut_stream",),
    "google": ("cut_stream",),
}

every_sdk = pytest.mark.parametrize(
    "sdk",
    [
        pytest.param(
            sdk,
            id=sdk.name if sdk.language == "python" else f"{sdk.name}-{sdk.program}",
            marks=[pytest.mark.needs("node", "npm")] if sdk.language == "typescript" else [],
        )
        for sdk in sdk_environments()
    ],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one scenario told."""

    scenario: str
    ok: bool
    detail: str | None
    skipped_because: str | None


def run_program(
    sdk: SDKEnvironment,
    variables: Mapping[str, str],
    *scenarios: str,
    cut_stream_headers: Mapping[str, str] = CUT,
) -> list[Outcome]:
    """Run an application with these variables and nothing else of this process's environment."""
    try:
        command = sdk.command()
    except EnvironmentUnavailable as unavailable:
        pytest.skip(str(unavailable))
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    finished = subprocess.run(
        (*command, *scenarios),
        cwd=CHECKOUT,
        env=inherited | {"CUT_STREAM_HEADERS": json.dumps(dict(cut_stream_headers))} | dict(variables),
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
    """Fail with every scenario that failed; list those that this release does not have."""
    failed = [f"--- {outcome.scenario}\n{outcome.detail}" for outcome in outcomes if not outcome.ok]
    for outcome in outcomes:
        if outcome.skipped_because:
            print(f"{outcome.scenario}: {outcome.skipped_because}")
    assert not failed, f"{len(failed)} of {len(outcomes)} scenarios failed:\n" + "\n".join(failed)


@every_sdk
def test_every_scenario_of_an_unmodified_application_works_through_the_sidecar(
    sdk: SDKEnvironment,
    simulator: SimulatedProvider,
    simulated_manifests: Callable[[], str],
    start_sidecar: StartSidecar,
) -> None:
    """And the provider sees its own key in every request, and never the application's token."""
    sidecar = start_sidecar(simulated_manifests())

    outcomes = run_program(sdk, sidecar.sdk_environment())

    assert_all_ok(outcomes)
    assert simulator.tap.heard.count(simulator.key.encode()) > 0
    assert sidecar.token.encode() not in simulator.tap.heard
    log = "\n".join(sidecar.stdout.all() + sidecar.stderr.all())
    assert '"event":"request"' in log
    assert sidecar.token not in log
    assert simulator.key not in log


@every_sdk
def test_a_stream_that_ends_without_its_terminal_marker_raises_in_the_application(
    sdk: SDKEnvironment, simulated_manifests: Callable[[], str], start_sidecar: StartSidecar
) -> None:
    """Without the sidecar every SDK takes such a stream for a complete answer."""
    sidecar = start_sidecar(simulated_manifests())
    scenarios = CUT_SCENARIOS[sdk.program]

    outcomes = run_program(sdk, sidecar.sdk_environment(), *scenarios, cut_stream_headers=ENDED_EARLY)

    assert_all_ok(outcomes)


@every_sdk
def test_every_scenario_works_with_the_simulated_provider_itself(
    sdk: SDKEnvironment, simulator: SimulatedProvider
) -> None:
    """The programs and the simulator agree without us: what fails only above is the sidecar's doing."""
    variables = {
        "OPENAI_BASE_URL": f"{simulator.base_url}/v1",
        "ANTHROPIC_BASE_URL": simulator.base_url,
        "GOOGLE_GEMINI_BASE_URL": simulator.base_url,
    } | dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"), simulator.key)

    assert_all_ok(run_program(sdk, variables))
