"""When a provider wants to be asked again, and what is not believed."""

from __future__ import annotations

import pytest

from llm_sidecar.formats.retry_hints import MAX_HINT_SECONDS, RetryHeaders, duration_seconds, hint_in_message

NOW = 1_790_000_000.0  # Mon, 21 Sep 2026 14:13:20 GMT


def hints(headers: dict[str, str], now_seconds: float = NOW) -> RetryHeaders:
    return RetryHeaders(headers.items(), now_seconds=now_seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("1.5", 1.5),
        (" 20 ", 20.0),
        ("0s", 0.0),
        ("20ms", 0.02),
        ("12µs", 12e-6),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        ("7d", MAX_HINT_SECONDS),
        ("999999999999999", MAX_HINT_SECONDS),
        ("", None),
        ("-1", None),
        ("-5s", None),
        ("nan", None),
        ("NaN", None),
        ("inf", None),
        ("1e9", None),
        ("soon", None),
        ("5 s", None),
        ("5s and more", None),
        ("5x", None),
        ("٣", None),
        ("9" * 70, None),
    ],
)
def test_a_duration_is_read_or_left_alone(text: str, seconds: float | None) -> None:
    assert duration_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "-250", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "Mon, 21 Sep 2026 14:13:35 GMT"}, 15.0),
        ({"retry-after": "Mon, 21 Sep 2026 14:13:00 GMT"}, None),
        ({"retry-after": "Mon, 21 Sep 2099 14:13:00 GMT"}, MAX_HINT_SECONDS),
        ({"retry-after": "Mon, 99 Sep 2026 99:99:99 GMT"}, None),
        ({"retry-after": "21 September"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_spellings(headers: dict[str, str], seconds: float | None) -> None:
    assert hints(headers).retry_after_seconds() == pytest.approx(seconds)


def test_a_date_counts_by_the_clock_of_the_one_who_wrote_it() -> None:
    """Our own clock is a day wrong; the wait is 15 seconds all the same."""
    answer = hints(
        {"date": "Mon, 21 Sep 2026 14:13:20 GMT", "retry-after": "Mon, 21 Sep 2026 14:13:35 GMT"}, NOW - 86_400
    )
    assert answer.retry_after_seconds() == 15


def test_the_longest_reset_of_the_limits_that_are_used_up_counts() -> None:
    answer = hints(
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "20ms",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "1.5s",
            "x-ratelimit-remaining-project-tokens": "7",
            "x-ratelimit-reset-project-tokens": "6m0s",
        }
    )
    assert answer.openai_reset_seconds() == 1.5


@pytest.mark.parametrize(("remaining", "reset"), [("-1", "0"), ("0", "0"), ("0", "-3s"), ("12", "3s"), ("0", "later")])
def test_a_reset_that_means_nothing_is_no_hint(remaining: str, reset: str) -> None:
    answer = hints({"x-ratelimit-remaining-tokens": remaining, "x-ratelimit-reset-tokens": reset})
    assert answer.openai_reset_seconds() is None


def test_anthropics_resets_are_moments() -> None:
    answer = hints(
        {
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2026-09-21T14:13:30Z",
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": "2026-09-21T16:13:50+02:00",
            "anthropic-ratelimit-output-tokens-remaining": "5",
            "anthropic-ratelimit-output-tokens-reset": "2026-09-21T15:00:00Z",
        }
    )
    assert answer.anthropic_reset_seconds() == 30


@pytest.mark.parametrize("reset", ["2026-09-21T14:13:00Z", "yesterday", "0001-01-01T00:00:00", "2026-09-21T14:13:20Z"])
def test_a_moment_that_has_passed_is_no_hint(reset: str) -> None:
    answer = hints({"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": reset})
    assert answer.anthropic_reset_seconds() is None


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached. Please try again in 1.242s. Visit…", 1.242),
        ("Please try again in 6ms.", 0.006),
        ("Please try again in 1m30.5s.", 90.5),
        ("Please try again in a moment.", None),
        ("Please try again.", None),
    ],
)
def test_a_delay_is_found_in_a_sentence(message: str, seconds: float | None) -> None:
    assert hint_in_message(message) == pytest.approx(seconds)
