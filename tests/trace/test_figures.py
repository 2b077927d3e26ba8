from dataclasses import replace
from typing import Any

import pytest

from llm_sidecar.contract.team_quota_resource import CachedGenerations
from tests.trace.client import Outcome, Tally
from tests.trace.figures import Phase, PhaseResult, Resources, aims, rows_of, without_provider_percent
from tests.trace.requests import Kind

ALL, DETERMINISTIC, NONE = CachedGenerations.ALL, CachedGenerations.DETERMINISTIC, CachedGenerations.NONE


def outcome() -> Outcome:
    """100 chats of 1 to 100 ms of which 40 were hits, and 20 batches of 5 items each, of which half were hits."""
    found = Outcome()
    found.tallies[Kind.CHAT] = Tally(
        seconds=[number / 1000 for number in range(100, 0, -1)],
        errors=25,
        meanings=100,
        given=40,
        repeated=50,
        repeated_deterministic=10,
        without_provider=40,
    )
    found.tallies[Kind.EMBEDDINGS] = Tally(
        seconds=[0.3] * 20, meanings=100, given=50, repeated=60, repeated_deterministic=60, without_provider=4
    )
    return found


def result(generations: CachedGenerations = ALL, phase: Phase = Phase.STEADY) -> PhaseResult:
    return PhaseResult(
        generations=generations,
        phase=phase,
        rows=rows_of(outcome(), generations=generations),
        requests_per_second=16.7,
        without_provider_percent=without_provider_percent(outcome()),
        resources=Resources(
            resident_max_bytes=70_000_000,
            cpu_share=0.05,
            redis_cpu_share=0.01,
            generator_cpu_share=0.02,
            simulators_cpu_share=0.03,
            waited_share=0.001,
            generator_waited_share=0.002,
            strangers_cores=0.0,
        ),
        ledger={},
        told={"miss": 76, "hit": 44},
        reasons={"chat: status 529": 25},
    )


def test_there_is_a_row_for_each_kind_that_occurred_and_one_for_all() -> None:
    assert [row.name for row in result().rows] == ["chat", "embeddings", "all"]


def test_percentiles_are_those_of_right_answers_alone() -> None:
    chat = result().rows[0]
    assert (chat.p50_ms, chat.p95_ms, chat.p99_ms) == pytest.approx((50, 95, 99))
    assert chat.mean_ms == pytest.approx(50.5)
    assert (chat.requests, chat.errors) == (125, 25)


def test_a_batch_counts_by_the_share_of_its_items() -> None:
    chat, batches, total = result().rows
    assert (chat.hit_percent, batches.hit_percent) == (40, 50)
    assert total.hit_percent == pytest.approx(100 * (40 + 20 * 0.5) / 120)
    assert result().without_provider_percent == pytest.approx(100 * 44 / 120)


@pytest.mark.parametrize(("generations", "percents"), [(ALL, [50, 60]), (DETERMINISTIC, [10, 60]), (NONE, [0, 0])])
def test_what_is_possible_is_what_the_setting_lets_be_cached(
    generations: CachedGenerations, percents: list[float]
) -> None:
    assert [row.possible_percent for row in result(generations).rows[:2]] == percents


def test_a_phase_in_which_nothing_was_answered_has_figures_too() -> None:
    (total,) = rows_of(Outcome(), generations=ALL)
    assert (total.requests, total.hit_percent, total.p99_ms) == (0, 0, 0)


def test_each_target_is_met_or_not() -> None:
    verdicts = {aim.name: aim.verdict for aim in aims(result())}
    assert verdicts.pop("errors, %") == "not met"
    assert set(verdicts.values()) == {"met"}


@pytest.mark.parametrize(
    ("name", "worse"),
    [
        ("memory, MB", {"resident_max_bytes": 84_000_001}),
        ("CPU, % of one core", {"cpu_share": 0.33}),
    ],
)
def test_a_target_is_missed_by_more_than_its_bound(name: str, worse: dict[str, Any]) -> None:
    found = result()
    found = replace(found, resources=replace(found.resources, **worse))
    assert {aim.name: aim.verdict for aim in aims(found)}[name] == "not met"


def test_without_a_cache_there_is_no_hit_ratio_to_judge_and_in_a_closed_loop_no_cpu() -> None:
    told = {aim.name: aim.verdict for aim in aims(result(NONE, Phase.CLOSED))}
    assert (told["hit ratio, %"], told["CPU, % of one core"]) == ("not measured", "not measured")
    assert told["mean, ms"] == "met"
