"""How long others' calls are waited for."""

from __future__ import annotations

import pytest

from llm_sidecar.flying import KNOWN_KINDS, KNOWN_TIMES, LEAST_PATIENCE_SECONDS, UNKNOWN_PATIENCE_SECONDS, UsualTimes


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([], UNKNOWN_PATIENCE_SECONDS),
        ([0.1], LEAST_PATIENCE_SECONDS),
        ([30.0], 60.0),
        ([1.0, 5.0, 3.0], 10.0),
        ([3.0] * 31 + [500.0], 6.0),
        ([3.0] * 30 + [50.0] * 2, 100.0),
        ([500.0] * 5 + [3.0] * KNOWN_TIMES, 6.0),
    ],
    ids=["unknown", "fast", "slow", "few", "one-that-hung", "some-are-slow", "long-ago"],
)
def test_a_call_is_overdue_after_twice_the_time_that_nearly_all_took(seconds: list[float], expected: float) -> None:
    times = UsualTimes()
    for one in seconds:
        times.note("kind", one)
    assert times.patience_seconds("kind") == expected
    assert times.patience_seconds("other") == UNKNOWN_PATIENCE_SECONDS


def test_what_is_known_does_not_grow_for_ever() -> None:
    times = UsualTimes()
    for number in range(KNOWN_KINDS * 3):
        times.note(number, 30.0)
    known = sum(times.patience_seconds(number) != UNKNOWN_PATIENCE_SECONDS for number in range(KNOWN_KINDS * 3))
    assert 0 < known <= KNOWN_KINDS
