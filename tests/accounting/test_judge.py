"""The judge: each promise, once kept and once broken. What it would let pass would prove nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

import pytest

from llm_sidecar.contract.quota_counters import CounterFigures, LimitUnit
from llm_sidecar.simulate.answer import Usage
from llm_sidecar.simulate.ledger import Entry
from tests.accounting.clients import Asked, Refusal
from tests.accounting.course import Evidence
from tests.accounting.judge import Case, Verdict
from tests.accounting.settings import FAULTS, LOSING, Plan
from tests.accounting.teams import STRICT
from tests.accounting.truth import Cost, Price
from tests.accounting.watch import Alert, Booked, Loss, Peak, Seen

BURST: Final = CounterFigures(limit="burst", unit=LimitUnit.REQUESTS, per="Minute", start_ms=1000_000, end_ms=1005_000)
HOURLY: Final = CounterFigures(limit="hourly", unit=LimitUnit.TOKENS, per="Hour", start_ms=1000_000, end_ms=2000_000)
BUDGET: Final = CounterFigures(limit="budget", unit=LimitUnit.COST, per="Month", start_ms=1000_000, end_ms=9000_000)
PRICE: Final = Price(input=7, cached=1, output=1_500_001)
ASKED: Final = Asked(
    nonce="id-1",
    team=STRICT,
    sidecar=0,
    kind="chat",
    sent=1001.0,
    ended=1001.5,
    result="answered",
    status=200,
    request_id="r1",
    provider="main-openai",
)
CHARGES: Final = {
    BURST.counter: Fraction(1),
    HOURLY.counter: Fraction(30),
    BUDGET.counter: Fraction(20 * 7 + 10 * 1_500_001, 10**6),
}
BOOKED: Final = Booked(
    team=STRICT,
    request_id="r1",
    source="measured",
    provider="main-openai",
    status=200,
    at=1001.5,
    charges=CHARGES,
    fields={},
)


@dataclass(kw_only=True)
class Scene:
    """One request, answered, charged and told; tests spoil one thing."""

    plan: Plan = field(default_factory=lambda: Plan(faults=frozenset(FAULTS) - LOSING))
    asked: list[Asked] = field(default_factory=lambda: [replace(ASKED)])
    ledger: list[Booked] = field(default_factory=lambda: [BOOKED])
    used: dict[str, Fraction] = field(default_factory=lambda: dict(CHARGES))
    held: int = 0
    open_ids: set[str] = field(default_factory=set)
    alerts: list[Alert] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    sidecar_away: list[tuple[float, float]] = field(default_factory=list)
    told: Usage | None = field(default_factory=lambda: Usage(input_tokens=20, output_tokens=10))

    def case(self) -> Case:
        entry = Entry(number=1, method="POST", path="/v1/chat/completions", header_names=[], retry_count=None)
        entry.usage_told = entry.usage_true = self.told
        now = {
            (STRICT, one.counter): replace(one, used=int(self.used[one.counter]), held=self.held)
            for one in (BURST, HOURLY, BUDGET)
        }
        seen = Seen(
            ledger={str(number): one for number, one in enumerate(self.ledger)},
            alerts={str(number): one for number, one in enumerate(self.alerts)},
            peaks={key: Peak(used=one.used, taken=one.used + one.held) for key, one in now.items()},
            used={(STRICT, counter): amount for counter, amount in self.used.items()},
            now=now,
            open_ids=self.open_ids,
            losses=self.losses,
        )
        return Case(
            Evidence(
                plan=self.plan,
                asked=self.asked,
                costs={"id-1": [Cost(place="main-openai", entry=entry, price=PRICE)]},
                seen=seen,
                met=Counter(),
                away=[],
                sidecar_away=[self.sidecar_away],
                quiet_seconds=0.0,
                killed=0,
            )
        )


def test_a_course_in_which_all_went_well_keeps_every_promise() -> None:
    assert [verdict.broken for verdict in Scene().case().verdicts()] == [[]] * 7


def _charged(counter: str, amount: Fraction) -> list[Booked]:
    return [replace(BOOKED, charges={**CHARGES, counter: amount})]


def _refused(used: int) -> list[Asked]:
    refusal = Refusal(limit="hourly", used=used, reserved=0, requested=1, maximum=24_000)
    return [replace(ASKED), replace(ASKED, request_id="r2", result="refused", refusal=refusal)]


def _phantom() -> list[Asked]:
    refusal = Refusal(limit="burst", used=59, reserved=1, requested=1, maximum=60)
    return [replace(ASKED), replace(ASKED, request_id="r2", result="refused", refusal=refusal)]


ALERT: Final = Alert(team=STRICT, counter=HOURLY.counter, percent=50)
SPOILT: Final[dict[str, tuple[Scene, Callable[[Case], Verdict]]]] = {
    "a request without an end": (Scene(asked=[replace(ASKED, result=None)]), Case.one_outcome_each),
    "a connection lost while its sidecar ran": (
        Scene(asked=[replace(ASKED, result="sidecar gone")]),
        Case.one_outcome_each,
    ),
    "a window above its limit": (
        Scene(ledger=_charged(HOURLY.counter, Fraction(24_001))),
        Case.no_window_beyond_its_promise,
    ),
    "one token too many": (Scene(ledger=_charged(HOURLY.counter, Fraction(31))), Case.charges_are_the_truth),
    "one femto-dollar too few": (
        Scene(ledger=_charged(BUDGET.counter, CHARGES[BUDGET.counter] - Fraction(1, 10**6))),
        Case.charges_are_the_truth,
    ),
    "a request that was charged twice": (Scene(ledger=[BOOKED, BOOKED]), Case.charges_are_the_truth),
    "an answer that nobody paid for": (Scene(ledger=[]), Case.charges_are_the_truth),
    "a refused request that was charged": (
        Scene(asked=[replace(ASKED, result="refused")]),
        Case.charges_are_the_truth,
    ),
    "measured, though nothing was told": (Scene(told=None), Case.charges_are_the_truth),
    "a hold that stays": (Scene(held=1), Case.nothing_stays_held),
    "a reservation that stays": (Scene(open_ids={"r9"}), Case.nothing_stays_held),
    "a counter that the ledger does not explain": (
        Scene(used={**CHARGES, BUDGET.counter: CHARGES[BUDGET.counter] + Fraction(1, 10**6)}),
        Case.ledger_adds_up,
    ),
    "a refusal with room": (Scene(asked=_refused(23_999)), Case.no_false_refusal),
    "a refusal by holds of nobody": (Scene(asked=_phantom()), Case.no_false_refusal),
    "a threshold that was told twice": (Scene(alerts=[ALERT, ALERT]), Case.thresholds_told_once),
    "a threshold that was not told": (
        Scene(ledger=_charged(HOURLY.counter, Fraction(12_000))),
        Case.thresholds_told_once,
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_broken_promise_is_seen(name: str) -> None:
    scene, look = SPOILT[name]

    assert look(scene.case()).broken


def test_a_refusal_without_room_is_let_pass() -> None:
    assert not Case.no_false_refusal(Scene(asked=_refused(24_000)).case()).broken


LOST_AND_TOLD_TWICE: Final = replace(BOOKED, at=1003.5)
FORGETS: Final = Plan(faults=frozenset(FAULTS))


def _loss(at: float) -> Loss:
    return Loss(fault="wipe", at=at, held={})


def _unheard() -> list[Asked]:
    return [replace(ASKED, result="hung up", request_id="")]


def _difference(tokens: int) -> Booked:
    charges = {**CHARGES, BURST.counter: Fraction(0), HOURLY.counter: Fraction(30 - tokens)}
    return replace(BOOKED, charges={**charges, BUDGET.counter: CHARGES[BUDGET.counter]}, at=1002.0)


def _lease_end(tokens: int, at: float) -> Booked:
    charges = {BURST.counter: Fraction(1), HOURLY.counter: Fraction(tokens)}
    return replace(BOOKED, source="abandoned", charges=charges, at=at)


TWICE: Final = [BOOKED, LOST_AND_TOLD_TWICE]


@pytest.mark.parametrize("asked", [[replace(ASKED)], _unheard()], ids=["heard", "unheard"])
@pytest.mark.parametrize(("lost_at", "is_excused"), [(1002.5, True), (1020.0, False)])
def test_a_charge_is_told_again_only_where_a_loss_lies_between(
    asked: list[Asked], lost_at: float, is_excused: bool
) -> None:
    scene = Scene(plan=FORGETS, asked=asked, ledger=TWICE, losses=[_loss(lost_at)])

    assert bool(Case.charges_are_the_truth(scene.case()).broken) is not is_excused


@pytest.mark.parametrize(("tokens", "is_excused"), [(11, True), (12, False)])
def test_a_lease_that_ends_again_after_a_loss_excuses_no_wrong_difference(tokens: int, is_excused: bool) -> None:
    ledger = [_lease_end(tokens, 1001.6), _difference(11), _lease_end(tokens, 1003.5)]
    scene = Scene(plan=FORGETS, ledger=ledger, losses=[_loss(1002.5)])

    assert bool(Case.charges_are_the_truth(scene.case()).broken) is not is_excused


@pytest.mark.parametrize(("killed_at", "lost_at", "is_excused"), [(1002.0, 1003.0, True), (None, 1003.0, False)])
def test_a_loss_excuses_an_unpaid_answer_only_of_a_sidecar_that_was_killed(
    killed_at: float | None, lost_at: float, is_excused: bool
) -> None:
    away = [] if killed_at is None else [(killed_at, killed_at + 1)]
    scene = Scene(plan=FORGETS, ledger=[], losses=[_loss(lost_at)], sidecar_away=away)

    assert bool(Case.charges_are_the_truth(scene.case()).broken) is not is_excused


def test_what_was_charged_twice_after_a_loss_takes_room_in_its_window() -> None:
    told = [Refusal(limit="burst", used=used, reserved=0, requested=1, maximum=2) for used in (2, 3)]
    scenes = [
        Scene(
            plan=FORGETS,
            asked=[replace(ASKED), replace(ASKED, request_id="r2", result="refused", refusal=one)],
            ledger=TWICE,
            losses=[_loss(1002.5)],
        )
        for one in told
    ]

    assert [bool(Case.no_false_refusal(one.case()).broken) for one in scenes] == [False, True]


@pytest.mark.parametrize(("fault", "is_excused"), [("failover", True), ("wipe", False)])
def test_who_was_settled_just_before_a_replica_takes_over_may_hold_its_room_again(fault: str, is_excused: bool) -> None:
    refusal = Refusal(limit="burst", used=1, reserved=1, requested=1, maximum=2)
    scene = Scene(
        plan=FORGETS,
        asked=[replace(ASKED), replace(ASKED, sent=1002.0, ended=1002.1, result="refused", refusal=refusal)],
        losses=[replace(_loss(1001.9), fault=fault)],
    )

    assert bool(Case.no_false_refusal(scene.case()).broken) is not is_excused
