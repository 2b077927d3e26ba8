"""One bound over all requests together."""

from __future__ import annotations

import pytest

from llm_sidecar.body import SMALL_BODY_BYTES, hold_parsed
from llm_sidecar.budget import BufferBudget
from llm_sidecar.errors import BodyTooLarge, Overloaded


def test_what_is_held_together_stays_within_the_bound() -> None:
    budget = BufferBudget(10)
    one, two = budget.hold(), budget.hold()
    one.take(6)
    two.take(4)
    with pytest.raises(Overloaded) as raised:
        two.take(1)
    assert raised.value.retry_after_milliseconds == 1000
    assert budget.held_bytes == 10


def test_a_refused_take_holds_nothing_more() -> None:
    budget = BufferBudget(10)
    held = budget.hold()
    with pytest.raises(Overloaded):
        held.take(11)
    assert (held.held_bytes, budget.held_bytes) == (0, 0)


def test_release_gives_back_once() -> None:
    budget = BufferBudget(10)
    one, two = budget.hold(), budget.hold()
    one.take(6)
    two.take(4)
    one.release()
    one.release()
    assert budget.held_bytes == 4


def _body(value: bytes, number: int) -> bytes:
    return b'{"a":[%b]}' % b",".join([value] * number)


def test_what_is_parsed_from_a_body_is_held() -> None:
    held = BufferBudget().hold()
    body = _body(b"[]", 100_000)
    held.take(len(body))
    hold_parsed(held, body)
    assert held.held_bytes > 6_000_000


def test_text_counts_once() -> None:
    held = BufferBudget().hold()
    body = b'{"a":"' + b"a" * 1_000_000 + b'"}'
    held.take(len(body))
    hold_parsed(held, body)
    assert held.held_bytes < len(body) + 500


def test_a_body_that_would_never_fit_once_parsed_is_too_large() -> None:
    held = BufferBudget().hold()
    with pytest.raises(BodyTooLarge, match="once parsed"):
        hold_parsed(held, _body(b"[]", 2_000_000))
    assert held.held_bytes == 0


def test_a_body_that_would_fit_later_is_refused_for_now() -> None:
    budget = BufferBudget()
    budget.hold().take(budget.limit_bytes)
    with pytest.raises(Overloaded):
        hold_parsed(budget.hold(), _body(b"[]", 100_000))


def test_small_bodies_are_not_counted() -> None:
    held = BufferBudget(0).hold()
    hold_parsed(held, _body(b"[]", SMALL_BODY_BYTES // 3 - 10))
    assert held.held_bytes == 0


def test_what_is_given_back_is_free_for_others_and_a_holder_beside_outlives_the_first() -> None:
    budget = BufferBudget(10)
    first = budget.hold()
    first.take(8)
    first.give_back(3)
    beside = first.beside()
    beside.take(5)
    first.release()

    assert (budget.held_bytes, first.held_bytes, beside.held_bytes) == (5, 0, 5)
