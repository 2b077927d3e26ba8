"""The whole run for a few seconds: real sidecar, real Valkey, real simulators."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.bench.children import ROOT

SECONDS = 90
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the run reads CPU time and memory from /proc")


@pytest.fixture(scope="module")
def phases(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """One client after the other's answer and a provider that does not wait: nothing hangs on the machine's speed."""
    output = tmp_path_factory.mktemp("trace") / "trace.json"
    options = {"seed": 3, "closed-seconds": 2, "minutes": 0.02, "connections": 1, "provider-milliseconds": 0}
    command = [sys.executable, "-m", "tests.trace", "--output", str(output)]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    done = subprocess.run(
        [*command, "--generations", "All", "--generations", "None"],
        cwd=ROOT,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    found: list[dict[str, Any]] = json.loads(output.read_text())["phases"]
    return found


def test_every_answer_of_every_kind_is_right(phases: list[dict[str, Any]]) -> None:
    assert [(phase["generations"], phase["phase"]) for phase in phases] == [
        (generations, phase) for generations in ("All", "None") for phase in ("closed loop", "steady")
    ]
    for phase in phases:
        assert phase["reasons"] == {}
        assert phase["rows"][-1]["requests"] == sum(row["requests"] for row in phase["rows"][:-1])
    assert len(phases[0]["rows"]) == 6


def test_one_after_the_other_all_that_repeats_is_a_hit_and_without_the_cache_nothing_is(
    phases: list[dict[str, Any]],
) -> None:
    closed = phases[0]
    assert closed["rows"][-1]["hit_percent"] > 5
    for row in closed["rows"]:
        assert row["hit_percent"] == pytest.approx(row["possible_percent"])
    for phase in phases[2:]:
        assert [row["hit_percent"] for row in phase["rows"]] == [0] * len(phase["rows"])
        assert not {"hit", "coalesced", "miss"} & set(phase["told"])


def test_what_it_took_and_saved_is_told(phases: list[dict[str, Any]]) -> None:
    closed = phases[0]
    assert closed["resources"]["resident_max_bytes"] > 20_000_000
    assert closed["resources"]["cpu_share"] > 0
    assert closed["ledger"]["response cache, tokens"] > 0
    assert closed["ledger"]["spent USD"] > 0
    assert not any("cache" in name for name in phases[2]["ledger"])
