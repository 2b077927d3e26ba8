"""Many sidecars, many clients and a store that fails in every way: afterwards, every promise is looked at.

There are two courses: one in which the store loses nothing, so that every counter must be exact, and one in which it
starts empty, and is taken over by a replica that lags, so that what is lost must be within what is stated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.accounting.course import Evidence, play
from tests.accounting.judge import Case, Verdict
from tests.accounting.settings import FAULTS, LOSING, Plan

COURSES = {"nothing is lost": frozenset(FAULTS) - LOSING, "the store forgets": frozenset(FAULTS)}


@pytest.fixture(scope="module", params=COURSES)
def evidence(request: pytest.FixtureRequest) -> Evidence:
    """One course, for all tests of this file."""
    plan = Plan()
    return asyncio.run(
        play(
            Plan(
                # Unknown where all of tests/ runs.
                seed=request.config.getoption("--accounting-seed", plan.seed),
                seconds=request.config.getoption("--accounting-seconds", plan.seconds),
                faults=COURSES[request.param],
            )
        )
    )


@pytest.fixture
def keeps(evidence: Evidence, tell_figure: Callable[[str], None]) -> Callable[[Callable[[Case], Verdict]], None]:
    """Tells a verdict's figures, and fails where the promise was broken."""

    def check(look: Callable[[Case], Verdict]) -> None:
        verdict = look(Case(evidence))
        course = "store loses data" if evidence.plan.loses_data else "store loses nothing"
        tell_figure(f"accounting, {course}: {verdict.promise}: {verdict.figures}")
        assert not verdict.broken, (len(verdict.broken), *verdict.broken[:10])

    return check


Keeps = Callable[[Callable[[Case], Verdict]], None]


def test_every_fault_was_met(evidence: Evidence, tell_figure: Callable[[str], None]) -> None:
    """Otherwise the rest of this file would prove little."""
    met = ", ".join(f"{name} {count}" for name, count in evidence.met.most_common())
    tell_figure(f"accounting: {evidence.plan.sidecars} sidecars, {evidence.plan.clients} clients; faults: {met}")

    assert evidence.plan.faults == set(evidence.met)


def test_each_client_gets_exactly_one_outcome(keeps: Keeps) -> None:
    keeps(Case.one_outcome_each)


def test_no_window_admits_more_than_is_promised(keeps: Keeps) -> None:
    keeps(Case.no_window_beyond_its_promise)


def test_each_charge_is_what_the_provider_says(keeps: Keeps) -> None:
    keeps(Case.charges_are_the_truth)


def test_nothing_stays_held_once_all_leases_have_ended(keeps: Keeps) -> None:
    keeps(Case.nothing_stays_held)


def test_the_ledger_adds_up_to_the_counters(keeps: Keeps) -> None:
    keeps(Case.ledger_adds_up)


def test_nobody_is_refused_while_there_is_room(keeps: Keeps) -> None:
    keeps(Case.no_false_refusal)


def test_each_threshold_is_reported_once(keeps: Keeps) -> None:
    keeps(Case.thresholds_told_once)
