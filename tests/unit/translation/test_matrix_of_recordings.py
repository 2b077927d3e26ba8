"""Every recorded request, answer and stream of every language, brought to every other one."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson
import pytest

from llm_sidecar.contract.names import API
from llm_sidecar.translation.events import PartKind
from tests.conftest import ROOT
from tests.integration.recorded_exchanges import Exchange
from tests.unit.formats.streams import call_of
from tests.unit.translation import pairs, sdk_types
from tests.unit.translation.grammar import assembled
from tests.unit.translation.nothing_is_silent import STRUCTURE_OF_ANSWERS, STRUCTURE_OF_REQUESTS, Account
from tests.unit.translation.pairs import Fate, Outcome
from tests.unit.translation.recordings import recorded

pytestmark = pytest.mark.needs("recordings")
REPORT: Final = ROOT / "build" / "translation.json"
PAIRS: Final = [pytest.param(*pair, id="-to-".join(pair)) for pair in pairs.pairs()]
each_pair = pytest.mark.parametrize(("source", "target"), PAIRS)


@pytest.fixture(autouse=True)
def _the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times and ids that are made up must not look like something that was carried."""
    monkeypatch.setattr(time, "time", lambda: 1.0)
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=1))


@each_pair
def test_a_recorded_request_is_taken_by_the_other_sdk_or_refused_with_a_reason(source: API, target: API) -> None:
    for exchange in recorded(source):
        outcome = pairs.recorded_request(exchange, target)
        if outcome.fate is Fate.CARRIED:
            sdk_types.takes_request(target, outcome.document)
        else:
            assert outcome.fate is Fate.REFUSED, f"{exchange.id}: {outcome.reason}"
            assert outcome.reason


@each_pair
def test_a_recorded_answer_that_was_paid_for_is_never_refused_and_the_other_sdk_takes_it(
    source: API, target: API
) -> None:
    for exchange in _answered(source):
        outcome = pairs.recorded_answer(source, exchange, target)
        assert outcome.fate is Fate.CARRIED, f"{exchange.id}: {outcome.reason}"
        if exchange.is_stream:
            sdk_types.takes_stream(target, outcome.written)
        else:
            sdk_types.takes_answer(target, outcome.document)


@each_pair
def test_a_recorded_stream_says_the_same_in_the_other_language(source: API, target: API) -> None:
    """All text and all calls, to the letter, and in order."""
    for exchange in _answered(source):
        if exchange.is_stream:
            written = pairs.recorded_answer(source, exchange, target).written
            assert _content(target, written) == _content(source, exchange.response), exchange.id


def _content(api: API, stream: bytes) -> list[tuple[str, str]]:
    """Names and arguments of calls, and what was said before, between and after them: not all have texts in pieces."""
    said: list[tuple[str, str]] = []
    choices = assembled(pairs.events(api, stream))
    for part in choices[0].parts if choices else ():
        if part.kind is PartKind.TOOL_CALL:
            said.append((part.tool_name, json.dumps(json.loads(part.text or "{}"))))
        elif part.kind is PartKind.TEXT and said and not said[-1][0]:
            said[-1] = ("", said[-1][1] + part.text)
        elif part.kind is PartKind.TEXT and part.text:
            said.append(("", part.text))
    return said


@each_pair
def test_nothing_of_a_request_is_dropped_silently(source: API, target: API) -> None:
    account = _account_of_requests(source, target)
    assert account.silent == []
    assert account.carried > 0


@each_pair
def test_nothing_of_an_answer_is_dropped_silently(source: API, target: API) -> None:
    account = _account_of_answers(source, target)
    assert account.silent == []
    assert account.carried > 0


def _account_of_requests(source: API, target: API) -> Account:
    account = Account()
    for exchange in recorded(source):
        call = call_of(exchange.path)
        account.take(
            exchange.request,
            lambda document, call=call: pairs.request(call, document, target),  # type: ignore[misc]
            structure=STRUCTURE_OF_REQUESTS[source],
        )
    return account


def _account_of_answers(source: API, target: API) -> Account:
    account = Account()
    for exchange in _answered(source):
        if not exchange.is_stream:
            account.take(
                orjson.loads(exchange.response),
                lambda document: pairs.answer(source, document, target),
                structure=STRUCTURE_OF_ANSWERS[source],
            )
    return account


def _answered(source: API) -> Iterator[Exchange]:
    return (exchange for exchange in recorded(source) if exchange.status == 200)


def test_what_was_carried_dropped_and_refused_is_reported(tell_figure: Callable[[str], None]) -> None:
    """For people, and as JSON: how much of the recorded traffic any other provider could have answered."""
    report = {f"{source} to {target}": _report(source, target) for source, target in pairs.pairs()}
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for pair, figures in report.items():
        requests, answers, leaves = figures["requests"], figures["answers"], figures["leaves"]
        tell_figure(
            f"{pair}: requests {requests['whole']} whole, {requests['with_losses']} with losses,"
            f" {requests['refused']} refused; answers {answers['whole']} whole, {answers['with_losses']} with losses;"
            f" leaves {leaves['carried']} carried, {leaves['named']} named as dropped, {leaves['structure']} structure"
        )
    assert all(figures["requests"]["whole"] + figures["requests"]["with_losses"] > 0 for figures in report.values())


def _report(source: API, target: API) -> dict[str, Any]:
    requests = [pairs.recorded_request(exchange, target) for exchange in recorded(source)]
    answers = [pairs.recorded_answer(source, exchange, target) for exchange in _answered(source)]
    accounts = (_account_of_requests(source, target), _account_of_answers(source, target))
    return {
        "requests": _counted(requests),
        "answers": _counted(answers),
        "leaves": {
            "carried": sum(account.carried for account in accounts),
            "named": sum(account.named for account in accounts),
            "structure": sum(account.structure for account in accounts),
        },
    }


def _counted(outcomes: list[Outcome]) -> dict[str, Any]:
    carried = [outcome for outcome in outcomes if outcome.fate is Fate.CARRIED]
    return {
        "whole": sum(not outcome.losses for outcome in carried),
        "with_losses": sum(bool(outcome.losses) for outcome in carried),
        "refused": len(outcomes) - len(carried),
        "dropped": Counter(itertools.chain.from_iterable(outcome.losses for outcome in carried)),
        "reasons": Counter(outcome.reason for outcome in outcomes if outcome.fate is Fate.REFUSED),
    }
