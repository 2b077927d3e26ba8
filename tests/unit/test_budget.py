"""One bound over all requests together."""

from __future__ import annotations

import pytest

from llm_sidecar.budget import BufferBudget
from llm_sidecar.errors import Overloaded


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
