"""The quota figures: their arithmetic, and simulated sidecars that leave the accounts right in a real store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace

import pytest

from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.quota import LimitUnit, compile_limits
from tests.bench import report
from tests.bench.children import BenchmarkFailed, Children, Cores, free_port
from tests.bench.limits import EIGHT_LIMITS, LIMITS
from tests.bench.measure import QUICK_EFFORT
from tests.bench.quota_load import FleetSettings, ScriptSettings, run_fleet, run_scripts
from tests.bench.quota_report import quota_aims, quota_tables
from tests.bench.quota_results import (
    FleetWindow,
    QuotaFigures,
    ScriptBlock,
    commands_sent,
    fleet_step,
    script_cost,
)
from tests.bench.quotas import check_accounts, own_redis
from tests.bench.results import BARE, EIGHT, QUOTA
from tests.bench.test_report import MACHINE, measurements

BLOCK = ScriptBlock(
    calls=100,
    redis_cpu_seconds=0.02,
    script_seconds=0.01,
    client_cpu_seconds=0.03,
    latencies_ms=[1.0] * 99 + [9.0],
)
WINDOW = FleetWindow(latencies_ms=[1.0, 2.0, 3.0, 4.0], unanswered=1, renewals=2, cpu_seconds=1.0)
FLEET = FleetSettings(
    port=0,
    numbers=(0, 4),
    sidecars=4,
    policy="Allow",
    rates=(40.0, 80.0),
    warm_up_seconds=0.1,
    window_seconds=0.3,
)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    children = Children(directory=tmp_path_factory.mktemp("bench"), cores=Cores.of_this_machine())
    try:
        with own_redis(children) as port:
            yield port
    finally:
        children.stop_all()


def test_the_eight_limits_are_of_all_units_and_count_in_counters_of_their_own() -> None:
    compiled = compile_limits(TeamQuotaSpec.model_validate({"limits": EIGHT_LIMITS}))

    assert {limit.unit for limit in compiled} == set(LimitUnit)
    assert len({limit.windows_at(0).counters[0] for limit in compiled}) == 8
    assert {number: len(limits) for number, limits in LIMITS.items()} == {1: 1, 8: 8}


def test_a_block_that_was_disturbed_moves_the_percentiles_and_no_cpu_figure() -> None:
    disturbed = replace(BLOCK, redis_cpu_seconds=2.0, script_seconds=2.0, client_cpu_seconds=2.0, latencies_ms=[50.0])
    cost = script_cost("reserve", about="1 limit", blocks=[BLOCK, disturbed, BLOCK])

    assert (cost.redis_cpu_microseconds, cost.script_microseconds, cost.client_cpu_microseconds) == (200, 100, 300)
    assert (cost.calls, cost.p50_ms, cost.p99_ms) == (300, 1.0, 9.0)


def test_windows_of_all_processes_become_one_row() -> None:
    step = fleet_step(
        [WINDOW, replace(WINDOW, latencies_ms=[10.0, 11.0], cpu_seconds=0.5)],
        policy="Allow",
        rate=4,
        seconds=2.0,
        redis_cpu_seconds=0.6,
        load_cores=1,
    )

    assert (step.reached_per_second, step.p50_ms, step.p99_ms) == (3.0, 3.0, 11.0)
    assert (step.unanswered, step.renewals_per_second) == (2, 2.0)
    assert step.redis_cpu_share == pytest.approx(0.3)
    assert step.redis_cpu_microseconds == pytest.approx(100_000)
    assert step.load_share == 0.75
    assert not step.is_bounded_by_load


def test_processes_that_share_a_core_are_busy_together_and_one_of_many_cores_by_itself() -> None:
    busy = [replace(WINDOW, cpu_seconds=1.0), replace(WINDOW, cpu_seconds=0.9)]
    shares = [
        fleet_step(busy, policy="Allow", rate=1, seconds=2.0, redis_cpu_seconds=0.1, load_cores=cores).load_share
        for cores in (1, 2)
    ]

    assert shares == [pytest.approx(0.95), pytest.approx(0.5)]


def test_a_rate_at_which_nothing_was_answered_has_no_latency() -> None:
    nothing = replace(WINDOW, latencies_ms=[])
    step = fleet_step([nothing], policy="Allow", rate=9, seconds=2.0, redis_cpu_seconds=0.0, load_cores=1)

    assert (step.reached_per_second, step.p50_ms, step.redis_cpu_microseconds) == (0.0, None, None)


def test_only_what_a_sidecar_sends_is_counted_and_not_the_inside_of_a_script() -> None:
    before = {"cmdstat_evalsha": {"calls": 3}, "cmdstat_hincrby": {"calls": 9}}
    after = {"cmdstat_evalsha": {"calls": 4}, "cmdstat_get": {"calls": 1}, "cmdstat_hincrby": {"calls": 20}}

    assert commands_sent(before, after) == 2


@pytest.mark.parametrize(("ratio", "commands", "verdict"), [(0.85, 1, "met"), (0.84, 2, "not met")])
def test_quota_aims_compare_with_no_quota(ratio: float, commands: int, verdict: str) -> None:
    counted = {BARE: 1, QUOTA: 1 + commands, EIGHT: 1 + commands}
    aims = quota_aims(QuotaFigures(commands_before_call=counted), ratio=ratio)

    assert [aim.verdict for aim in aims] == [verdict] * 3


def test_the_page_and_the_document_hold_the_quota_figures() -> None:
    found = measurements()
    step = fleet_step([WINDOW], policy="LocalShare", rate=4, seconds=1.0, redis_cpu_seconds=0.1, load_cores=1)
    found.quotas = QuotaFigures(
        scripts=[script_cost("reserve", about="8 limits", blocks=[BLOCK])],
        sidecars=200,
        fleet=[step],
        commands_before_call={BARE: 0, QUOTA: 1, EIGHT: 1},
    )
    page = report.markdown(found, machine=MACHINE, effort=QUICK_EFFORT)
    document = json.loads(json.dumps(report.document(found, machine=MACHINE, effort=QUICK_EFFORT)))

    assert [one.title in page for one in quota_tables(found.quotas)] == [True] * 3
    assert "4\\*" in page  # one process that was busy all the time sets the pace
    assert document["quotas"] == json.loads(json.dumps(asdict(found.quotas)))


async def test_simulated_sidecars_serve_the_rates_and_leave_the_accounts_right(port: int) -> None:
    settings = replace(FLEET, port=port)
    found = await run_fleet(settings, start_at=time.monotonic())

    windows: list[FleetWindow] = found["windows"]
    assert len(windows) == 2
    assert all(window.latencies_ms and window.cpu_seconds > 0 for window in windows)
    check_accounts(port, told=found["settled_tokens"])
    with pytest.raises(BenchmarkFailed, match="booked"):
        check_accounts(port, told=found["settled_tokens"] + 1)


async def test_without_a_store_every_reservation_counts_as_unanswered_and_nothing_as_settled() -> None:
    found = await run_fleet(replace(FLEET, port=free_port(), policy="Deny"), start_at=time.monotonic())

    windows: list[FleetWindow] = found["windows"]
    assert all(window.unanswered == len(window.latencies_ms) > 0 for window in windows)
    assert found["settled_tokens"] == 0


async def test_each_script_is_measured_by_the_servers_own_account(port: int) -> None:
    blocks = await run_scripts(ScriptSettings(port=port, limits=8, calls=5, blocks=2, sidecars=3))

    assert list(blocks) == ["reserve", "settle", "share"]
    for several in blocks.values():
        assert [block.calls for block in several] == [5, 5]
        assert all(block.script_seconds > 0 and len(block.latencies_ms) == 5 for block in several)
        assert all(block.redis_cpu_seconds > 0 for block in several)
