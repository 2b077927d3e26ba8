import pytest

from tests.bench.figures import Aim, median_difference, median_ratio, percentile


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (1, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)])
def test_a_percentile_is_the_smallest_value_that_enough_others_do_not_exceed(percent: float, value: float) -> None:
    assert percentile(range(100, 0, -1), percent=percent) == value


def test_a_single_value_is_every_percentile() -> None:
    assert [percentile([7.0], percent=percent) for percent in (1, 50, 99)] == [7.0, 7.0, 7.0]


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], percent=50)


def test_ratios_are_made_within_a_round_so_that_a_slow_round_changes_nothing() -> None:
    """In the second round the machine was ten times slower for both; in the third only the target was slower."""
    assert median_ratio([50.0, 5.0, 40.0], floors=[100.0, 10.0, 100.0]) == 0.5


def test_a_round_without_a_floor_gives_no_ratio() -> None:
    assert median_ratio([50.0], floors=[0.0]) is None


def test_rounds_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        median_ratio([1.0, 2.0], floors=[1.0])


def test_added_latency_is_the_median_of_each_rounds_difference() -> None:
    assert median_difference([3.0, 10.0, 5.0], floors=[1.0, 9.0, 2.0]) == 2.0


@pytest.mark.parametrize(
    ("figure", "at_least", "verdict"),
    [
        (0.5, True, "met"),
        (0.49, True, "not met"),
        (0.5, False, "met"),
        (0.51, False, "not met"),
        (None, True, "not measured"),
    ],
)
def test_an_aim_tells_whether_it_was_met(figure: float | None, *, at_least: bool, verdict: str) -> None:
    aim = Aim(name="an aim", figure=figure, bound=0.5, at_least=at_least)

    assert aim.verdict == verdict
