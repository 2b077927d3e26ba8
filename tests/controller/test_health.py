"""From a probe and reports to one condition, and from reports to one picture."""

from __future__ import annotations

from typing import Any

import pytest

from llm_operator.reconcile.health import HealthFacts, Probe, ProbeOutcome, health, remembered, rounded
from llm_operator.reconcile.traffic import Traffic, traffic
from llm_operator.status import Condition, ConditionType, Reason, Truth
from llm_sidecar.contract.provider_reports import ProviderReport

SUCCEEDED = Probe(ProbeOutcome.SUCCEEDED, "The provider accepted the key.", 137.0)
FAILED = Probe(ProbeOutcome.FAILED, "No answer within 5 s.")
REFUSED = Probe(ProbeOutcome.KEY_REFUSED, "The provider refused the key with status 401.", 20.0)
BUSY = Probe(ProbeOutcome.INCONCLUSIVE, "The provider answered 404 when asked for its models.", 20.0)

WORKING = Traffic(reporters=3, failing=0, failures=1, error_share=0.03, milliseconds=812.0, worst="timeout")
FAILING = Traffic(reporters=3, failing=2, failures=40, error_share=0.7, milliseconds=2500.0, worst="server")
ONE_FAILS = Traffic(reporters=1, failing=1, failures=10**9, error_share=1.0, worst="server")
ONE_OF_THREE_FAILS = Traffic(reporters=3, failing=1, failures=10**9, error_share=0.34, worst="server")
UNLUCKY = Traffic(reporters=2, failing=2, failures=4, error_share=1.0, worst="timeout")
ONE_WORKS = Traffic(reporters=1, failing=0, failures=0, error_share=0.0, milliseconds=300.0)


def _health(probe: Probe | None, traffic: Traffic | None, **more: Any) -> tuple[str, str]:
    facts = {"is_passive": False, "failed_probes": 2} | more
    condition = health(HealthFacts(probe=probe, traffic=traffic, **facts))
    assert condition.type is ConditionType.HEALTHY
    return str(condition.truth), str(condition.reason)


@pytest.mark.parametrize(
    ("probe", "seen", "expected"),
    [
        (SUCCEEDED, None, ("True", "ProbeSucceeded")),
        (SUCCEEDED, Traffic(), ("True", "ProbeSucceeded")),
        (SUCCEEDED, WORKING, ("True", "ProbeSucceeded")),
        (SUCCEEDED, FAILING, ("False", "ErrorRateHigh")),
        (SUCCEEDED, UNLUCKY, ("True", "ProbeSucceeded")),
        (FAILED, None, ("False", "ProbeFailed")),
        (FAILED, FAILING, ("False", "ProbeFailed")),
        (FAILED, ONE_FAILS, ("False", "ProbeFailed")),
        (FAILED, WORKING, ("True", "PassiveOnly")),
        (REFUSED, None, ("False", "KeyRefused")),
        (REFUSED, WORKING, ("True", "PassiveOnly")),
        (REFUSED, FAILING, ("False", "KeyRefused")),
        (BUSY, None, ("Unknown", "NoData")),
        (BUSY, WORKING, ("True", "PassiveOnly")),
        (BUSY, FAILING, ("False", "ErrorRateHigh")),
    ],
)
def test_probe_and_reports_come_to_one_condition(probe: Probe, seen: Traffic | None, expected: tuple[str, str]) -> None:
    assert _health(probe, seen) == expected


@pytest.mark.parametrize("lie", [ONE_FAILS, ONE_OF_THREE_FAILS])
def test_one_reporter_alone_says_nothing_against_a_probe_that_succeeded(lie: Traffic) -> None:
    assert _health(SUCCEEDED, lie) == ("True", "ProbeSucceeded")


def test_one_reporter_alone_says_nothing_for_a_provider_whose_probes_fail() -> None:
    assert _health(FAILED, ONE_WORKS) == ("False", "ProbeFailed")


def test_a_probe_that_failed_once_is_not_believed_unless_the_proxies_agree() -> None:
    assert _health(FAILED, None, failed_probes=1) == ("Unknown", "NoData")
    assert _health(FAILED, FAILING, failed_probes=1) == ("False", "ProbeFailed")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (None, ("Unknown", "NoData")),
        (Traffic(), ("Unknown", "NoData")),
        (WORKING, ("True", "PassiveOnly")),
        (FAILING, ("False", "ErrorRateHigh")),
    ],
)
def test_a_provider_that_is_not_probed_is_judged_by_reports_alone(
    seen: Traffic | None, expected: tuple[str, str]
) -> None:
    assert _health(None, seen, is_passive=True) == expected
    assert _health(FAILED, seen, is_passive=True) == expected


def test_the_message_tells_latency_and_error_rate_rounded() -> None:
    facts = HealthFacts(probe=SUCCEEDED, is_passive=False, traffic=FAILING)

    assert health(facts).message == (
        "The controller's probe was answered in about 100 ms. About 2 proxies asked it in the last minute: "
        "about 50 % of attempts failed, mostly by server errors; answers began after about 2000 ms."
    )


def test_figures_that_differ_a_little_make_the_same_message() -> None:
    near = Traffic(reporters=3, failing=0, failures=2, error_share=0.04, milliseconds=901.0, worst="timeout")
    slower = Probe(ProbeOutcome.SUCCEEDED, SUCCEEDED.message, 181.0)

    said = [
        health(HealthFacts(probe=probe, is_passive=False, traffic=seen)).message
        for probe, seen in ((SUCCEEDED, WORKING), (slower, near))
    ]

    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (0.9, 0),
        (1, 1),
        (1.9, 1),
        (2, 2),
        (4.9, 2),
        (5, 5),
        (9.9, 5),
        (10, 10),
        (99, 50),
        (100, 100),
        (7e6, 5e6),
    ],
)
def test_figures_are_rounded_to_few_steps(value: float, expected: float) -> None:
    assert rounded(value) == expected


def _report(answered: int = 0, milliseconds: int = 0, **failures: int) -> ProviderReport:
    return ProviderReport(answered=answered, answered_milliseconds=milliseconds, failures=failures)


def test_each_reporter_has_one_vote_whatever_counts_it_claims() -> None:
    liar = (b"liar", _report(server=10**12))
    honest = [(b"%d" % number, _report(answered=10, milliseconds=1000)) for number in range(9)]

    picture = traffic([liar, *honest])

    assert (picture.reporters, picture.failing) == (10, 1)
    assert picture.error_share == pytest.approx(0.1)
    assert picture.milliseconds == 100


def test_windows_of_one_reporter_are_added_up() -> None:
    picture = traffic([(b"a", _report(answered=9, milliseconds=900)), (b"a", _report(answered=1, milliseconds=1100))])

    assert (picture.reporters, picture.failing, picture.failures) == (1, 0, 0)
    assert picture.milliseconds == 200


def test_the_worst_failure_is_the_one_that_most_reporters_tell_of() -> None:
    picture = traffic([(b"a", _report(server=10**9)), (b"b", _report(timeout=1)), (b"c", _report(timeout=1))])

    assert picture.worst == "timeout"


def test_no_reports_are_no_traffic() -> None:
    assert traffic([]) == Traffic()


def test_what_an_earlier_controller_wrote_is_remembered_for_the_same_spec_only() -> None:
    written = {
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Ready", "observedGeneration": 3},
            {"type": "Healthy", "status": "False", "reason": "ProbeFailed", "message": "m", "observedGeneration": 3},
        ]
    }

    assert remembered(written, 3) == Condition(ConditionType.HEALTHY, Truth.FALSE, Reason.PROBE_FAILED, "m")
    assert remembered(written, 4) is None
    assert remembered({}, 3) is None


def test_a_reason_that_nobody_knows_is_not_remembered() -> None:
    written = {
        "conditions": [{"type": "Healthy", "status": "True", "reason": "OfALaterVersion", "observedGeneration": 3}]
    }

    assert remembered(written, 3) is None
