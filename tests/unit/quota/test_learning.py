from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.quota.learning import (
    COVERED_CALLS,
    KNOWN_MODELS,
    TRUSTED_CALLS,
    InputExcess,
    InputRatio,
    Learning,
    OutputLength,
)

CALLS = st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**7)), min_size=1, max_size=60)


@given(CALLS)
def test_the_estimate_would_have_been_enough_for_every_call_of_late(calls: list[tuple[int, int]]) -> None:
    ratio = InputRatio()
    for estimated, told in calls:
        ratio.learn(estimated_tokens=estimated, told_tokens=told)
    assert all(ratio.enough_for(estimated) >= told for estimated, told in calls[-COVERED_CALLS:])


def test_one_dear_call_is_forgotten_after_a_thousand_others() -> None:
    ratio = InputRatio()
    ratio.learn(estimated_tokens=100, told_tokens=500)
    for _ in range(COVERED_CALLS - 1):
        ratio.learn(estimated_tokens=100, told_tokens=90)
    assert ratio.enough_for(100) == 500
    ratio.learn(estimated_tokens=100, told_tokens=90)
    assert ratio.enough_for(100) == 90


def test_few_calls_never_lower_an_estimate() -> None:
    ratio = InputRatio()
    assert ratio.enough_for(70) == 70
    for _ in range(TRUSTED_CALLS - 1):
        ratio.learn(estimated_tokens=100, told_tokens=10)
    assert ratio.enough_for(100) == 100
    ratio.learn(estimated_tokens=100, told_tokens=10)
    assert ratio.enough_for(100) == 10


def test_a_request_without_any_estimate_teaches_nothing() -> None:
    ratio = InputRatio()
    ratio.learn(estimated_tokens=0, told_tokens=10)
    assert ratio.enough_for(5) == 5


def test_output_is_expected_only_after_enough_answers() -> None:
    length = OutputLength()
    for _ in range(TRUSTED_CALLS - 1):
        length.learn(100)
    before = length.expected
    length.learn(100)
    after = length.expected
    assert before is None
    assert after is not None
    assert 100 <= after < 120


@given(st.lists(st.integers(0, 2**26), min_size=TRUSTED_CALLS, max_size=200))
def test_ninety_nine_of_a_hundred_answers_are_not_longer_than_expected(lengths: list[int]) -> None:
    length = OutputLength()
    for tokens in lengths:
        length.learn(tokens)
    assert length.expected is not None
    assert sum(tokens <= length.expected for tokens in lengths) >= 0.99 * len(lengths)


def test_older_answers_count_less_and_less() -> None:
    length = OutputLength()
    for tokens in (10_000, 50):
        for _ in range(4 * COVERED_CALLS):
            length.learn(tokens)
    for _ in range(20 * COVERED_CALLS):
        length.learn(50)
    assert length.expected is not None
    assert length.expected < 100


def test_names_that_clients_type_do_not_fill_the_memory() -> None:
    learning = Learning()
    for number in range(KNOWN_MODELS + 10):
        learning.of(f"m{number}")
    assert learning.of("m0") is learning.of("m0")
    assert learning.of("another") is not learning.of("another")


def test_what_comes_from_elsewhere_is_added_and_enough_for_the_last_thousand_calls() -> None:
    excess = InputExcess()
    assert excess.ask() == 0
    excess.learn(60_000)
    for _ in range(COVERED_CALLS - 1):
        assert excess.ask() == 60_000
        excess.learn(200)
    for _ in range(2):
        excess.ask()
    assert excess.ask() == 200


def test_an_excess_that_lets_nobody_in_who_would_teach_less_is_forgotten() -> None:
    excess = InputExcess()
    excess.learn(60_000)
    for _ in range(2 * COVERED_CALLS):
        excess.ask()
    assert excess.ask() == 0
