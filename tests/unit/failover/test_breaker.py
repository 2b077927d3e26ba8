"""The circuit breaker: what opens it, who finds out whether it may close, and how traffic comes back."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

from llm_sidecar.failover.breaker import CircuitBreaker, CircuitBreakers, Permit
from llm_sidecar.failover.circuit import (
    EVIDENCE,
    CircuitSettings,
    CircuitState,
    Evidence,
    NotAdmitted,
    share_of_traffic,
)
from llm_sidecar.formats.told_error import FailureKind as Kind

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
SETTINGS = CircuitSettings(failure_threshold=3, open_seconds=30, slow_start_seconds=10)


class Bench:
    """A breaker under a clock and a die of ours."""

    def __init__(self, settings: CircuitSettings = SETTINGS) -> None:
        self.now = 1000.0
        self.drawn = 0.0
        self.states: list[CircuitState] = []
        self.breaker = CircuitBreaker(
            settings, on_state=self.states.append, clock=lambda: self.now, draw=lambda: self.drawn
        )

    def permit(self) -> Permit:
        admitted = self.breaker.admit()
        assert isinstance(admitted, Permit)
        return admitted

    def fail(self, kind: Kind = Kind.SERVER, *, times: int = 1) -> None:
        for _ in range(times):
            self.permit().failed(kind)

    def opened(self) -> Bench:
        self.fail(times=3)
        assert self.breaker.state is OPEN
        return self

    def waiting_for_a_probe(self) -> Bench:
        self.opened()
        self.now += 30
        return self


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    bench = Bench()
    bench.fail(times=2)
    bench.permit().succeeded()
    bench.fail(times=2)
    assert bench.breaker.state is CLOSED
    bench.fail()
    assert bench.breaker.state is OPEN
    assert bench.breaker.admit() is NotAdmitted.OPEN
    assert bench.states == [OPEN]


@pytest.mark.parametrize("kind", [kind for kind in Kind if EVIDENCE[kind] is Evidence.BROKEN])
def test_each_kind_that_speaks_against_a_provider_opens_it(kind: Kind) -> None:
    bench = Bench()
    bench.fail(kind, times=3)
    assert bench.breaker.state is OPEN


def test_which_kinds_speak_against_a_provider() -> None:
    assert {kind for kind in Kind if EVIDENCE[kind] is Evidence.BROKEN} == {
        Kind.CONNECTION,
        Kind.DISCONNECTED,
        Kind.TIMEOUT,
        Kind.SERVER,
        Kind.OVERLOADED,
        Kind.GARBLED_ANSWER,
        Kind.INTERRUPTED,
    }


@pytest.mark.parametrize("kind", [kind for kind in Kind if EVIDENCE[kind] is not Evidence.BROKEN])
def test_what_does_not_speak_against_a_provider_never_opens_it(kind: Kind) -> None:
    bench = Bench()
    bench.fail(kind, times=50)
    assert bench.breaker.state is CLOSED


@pytest.mark.parametrize(
    ("kind", "state"), [(Kind.RATE_LIMITED, OPEN), (Kind.AUTHENTICATION, OPEN), (Kind.INVALID_REQUEST, CLOSED)]
)
def test_a_limit_between_failures_forgives_nothing_and_an_answer_does(kind: Kind, state: CircuitState) -> None:
    bench = Bench()
    bench.fail(times=2)
    bench.fail(kind)
    bench.fail()
    assert bench.breaker.state is state


def test_half_open_lets_exactly_one_of_twenty_through() -> None:
    bench = Bench().waiting_for_a_probe()
    admitted = [bench.breaker.admit() for _ in range(20)]
    assert [type(one) for one in admitted].count(Permit) == 1
    assert admitted[1:] == [NotAdmitted.PROBING] * 19
    assert bench.states == [OPEN, HALF_OPEN]


def test_a_probe_that_succeeds_closes_it() -> None:
    bench = Bench().waiting_for_a_probe()
    bench.permit().succeeded()
    assert bench.states == [OPEN, HALF_OPEN, CLOSED]


def test_a_probe_that_fails_opens_it_for_the_whole_time_again() -> None:
    bench = Bench().waiting_for_a_probe()
    bench.permit().failed(Kind.TIMEOUT)
    assert bench.states == [OPEN, HALF_OPEN, OPEN]
    bench.now += 29.9
    assert bench.breaker.admit() is NotAdmitted.OPEN
    assert bench.breaker.probe_in_seconds == pytest.approx(0.1)
    bench.now += 0.1
    assert isinstance(bench.breaker.admit(), Permit)


def test_a_probe_that_meets_a_limit_leaves_the_question_to_the_next() -> None:
    bench = Bench().waiting_for_a_probe()
    bench.permit().failed(Kind.RATE_LIMITED)
    assert bench.breaker.state is HALF_OPEN
    bench.permit().succeeded()
    assert bench.breaker.state is CLOSED


async def cancelled(permit: Permit) -> None:
    """Someone waits for an answer, and hangs up."""

    async def wait() -> None:
        with permit:
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_clients_that_hang_up_count_for_nothing() -> None:
    bench = Bench()
    bench.fail(times=2)
    for _ in range(5):
        await cancelled(bench.permit())
    assert bench.breaker.state is CLOSED
    bench.fail()
    assert bench.breaker.state is OPEN


async def test_a_cancelled_probe_makes_room_for_the_next() -> None:
    bench = Bench().waiting_for_a_probe()
    await cancelled(bench.permit())
    assert bench.breaker.state is HALF_OPEN
    bench.permit().succeeded()
    assert bench.breaker.state is CLOSED


def test_an_abandoned_probe_makes_room_for_the_next() -> None:
    bench = Bench().waiting_for_a_probe()
    bench.permit().abandoned()
    bench.permit().succeeded()
    assert bench.breaker.state is CLOSED


def test_a_probe_that_streams_closes_it_with_its_first_content() -> None:
    bench = Bench().waiting_for_a_probe()
    probe = bench.permit()
    probe.committed()
    assert bench.breaker.state is CLOSED


def test_first_contents_do_not_hide_that_every_stream_breaks_off() -> None:
    bench = Bench()
    for _ in range(3):
        permit = bench.permit()
        permit.committed()
        permit.failed(Kind.INTERRUPTED)
    assert bench.breaker.state is OPEN


def test_a_probe_whose_stream_breaks_off_counts_like_any_other() -> None:
    bench = Bench().waiting_for_a_probe()
    probe = bench.permit()
    probe.committed()
    probe.failed(Kind.INTERRUPTED)
    bench.fail(times=1)
    assert bench.breaker.state is CLOSED
    bench.fail()
    assert bench.breaker.state is OPEN


def test_an_outcome_counts_once() -> None:
    bench = Bench()
    permit = bench.permit()
    with permit:
        for _ in range(5):
            permit.failed(Kind.SERVER)
    assert bench.breaker.state is CLOSED


@pytest.mark.parametrize("good_news", [True, False])
def test_what_began_before_it_opened_says_nothing_afterwards(good_news: bool) -> None:
    bench = Bench()
    old = [bench.permit(), bench.permit()]
    bench.waiting_for_a_probe()
    probe = bench.permit()
    for permit in old:
        if good_news:
            permit.succeeded()
        else:
            permit.failed(Kind.SERVER)
    assert bench.breaker.state is HALF_OPEN
    assert bench.breaker.admit() is NotAdmitted.PROBING
    probe.succeeded()
    assert bench.breaker.state is CLOSED


def test_a_probe_that_hangs_is_replaced_and_may_still_bring_good_news() -> None:
    bench = Bench().waiting_for_a_probe()
    hanging = bench.permit()
    bench.now += 29.9
    assert bench.breaker.admit() is NotAdmitted.PROBING
    bench.now += 0.1
    bench.permit()
    assert bench.breaker.admit() is NotAdmitted.PROBING
    hanging.succeeded()
    assert bench.breaker.state is CLOSED


def test_a_probe_that_hung_brings_no_bad_news_over_its_successor() -> None:
    bench = Bench().waiting_for_a_probe()
    hanging = bench.permit()
    bench.now += 30
    successor = bench.permit()
    hanging.failed(Kind.TIMEOUT)
    assert bench.breaker.state is HALF_OPEN
    assert bench.breaker.admit() is NotAdmitted.PROBING
    successor.failed(Kind.TIMEOUT)
    assert bench.breaker.state is OPEN


# --- what the fleet says


def test_it_tells_whether_it_is_shut_without_taking_the_probes_place() -> None:
    """Who would find out whether a provider works again must not be answered from elsewhere for ever."""
    bench = Bench()
    told = [bench.breaker.is_shut, bench.opened().breaker.is_shut]
    bench.now += 30
    told.append(bench.breaker.is_shut)
    probe = bench.permit()
    told.append(bench.breaker.is_shut)
    probe.abandoned()
    told.append(bench.breaker.is_shut)
    bench.permit().succeeded()
    told.append(bench.breaker.is_shut)
    assert told == [False, True, False, True, False, False]


def test_a_hint_of_failure_lets_one_request_find_out_and_never_shuts() -> None:
    bench = Bench()
    bench.breaker.hint_failing()
    permit = bench.permit()
    assert bench.breaker.admit() is NotAdmitted.PROBING
    permit.succeeded()
    bench.drawn = 0.999
    assert isinstance(bench.breaker.admit(), Permit), "nothing was lost that should come back slowly"


def test_a_hint_of_failure_is_nothing_against_an_answer_of_our_own() -> None:
    bench = Bench()
    bench.permit().succeeded()
    bench.breaker.hint_failing()
    assert bench.breaker.state is CLOSED
    bench.now += 30
    bench.breaker.hint_failing()
    assert bench.breaker.state is HALF_OPEN


def test_a_hint_of_failure_does_not_move_what_is_open() -> None:
    bench = Bench().opened()
    bench.breaker.hint_failing()
    assert bench.breaker.state is OPEN


# --- slow start


def recovered() -> Bench:
    bench = Bench().waiting_for_a_probe()
    bench.permit().succeeded()
    return bench


@pytest.mark.parametrize(("after_seconds", "share"), [(0, 0.1), (5, 0.55), (9, 0.91), (10, 1), (100, 1)])
def test_a_recovered_provider_gets_its_traffic_back_bit_by_bit(after_seconds: float, share: float) -> None:
    assert share_of_traffic(SETTINGS, since_recovery_seconds=after_seconds) == pytest.approx(share)
    bench, die = recovered(), random.Random(5)
    bench.now += after_seconds
    admitted = 0
    for _ in range(2000):
        bench.drawn = die.random()
        admitted += isinstance(bench.breaker.admit(), Permit)
    assert admitted / 2000 == pytest.approx(share, abs=0.03)


def test_a_recovering_provider_still_answers_where_nobody_else_is_left() -> None:
    bench = recovered()
    bench.drawn = 0.9
    assert bench.breaker.admit() is NotAdmitted.RECOVERING
    assert isinstance(bench.breaker.admit(gently=False), Permit)


def test_who_was_never_away_gets_everything_at_once() -> None:
    bench = Bench()
    bench.drawn = 0.999
    assert isinstance(bench.breaker.admit(), Permit)


def test_no_slow_start_where_none_is_wanted() -> None:
    bench = Bench(CircuitSettings(failure_threshold=1, open_seconds=30, slow_start_seconds=0))
    bench.fail()
    bench.now += 30
    bench.permit().succeeded()
    bench.drawn = 0.999
    assert isinstance(bench.breaker.admit(), Permit)


# --- all of them


def test_each_provider_and_model_has_its_own_and_tells_its_state() -> None:
    told: list[tuple[str, str, CircuitState]] = []
    breakers = CircuitBreakers(on_state=lambda *state: told.append(state), clock=lambda: 0.0)
    one = breakers.of("openai", "gpt-5", settings=SETTINGS)
    other = breakers.of("openai", "gpt-5-mini", settings=SETTINGS)
    for _ in range(3):
        permit = one.admit()
        assert isinstance(permit, Permit)
        permit.failed(Kind.SERVER)
    assert (one.state, other.state) == (OPEN, CLOSED)
    assert told == [("openai", "gpt-5", CLOSED), ("openai", "gpt-5-mini", CLOSED), ("openai", "gpt-5", OPEN)]


def test_a_reload_heals_nobody_and_new_settings_count_at_once() -> None:
    breakers = CircuitBreakers(on_state=lambda *_: None, clock=lambda: 0.0)
    one = breakers.of("a", "m", settings=SETTINGS)
    permit = one.admit()
    assert isinstance(permit, Permit)
    permit.failed(Kind.SERVER)
    again = breakers.of("a", "m", settings=CircuitSettings(failure_threshold=2))
    assert again is one
    permit = again.admit()
    assert isinstance(permit, Permit)
    permit.failed(Kind.SERVER)
    assert one.state is OPEN


def test_what_is_no_longer_configured_is_forgotten() -> None:
    breakers = CircuitBreakers(on_state=lambda *_: None)
    one = breakers.of("a", "m", settings=SETTINGS)
    breakers.of("b", "m", settings=SETTINGS)
    assert breakers.keep({("a", "m")}) == [("b", "m")]
    assert breakers.of("a", "m", settings=SETTINGS) is one
