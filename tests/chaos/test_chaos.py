"""A hundred applications, a primary provider that fails in every way there is, and a second one that is well.

Everything happens once, through one real sidecar (see `course`); the tests look at what came of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from statistics import median
from typing import Final

import pytest

from tests.bench.figures import percentile
from tests.chaos.clients import CLIENTS, KINDS, MODELS
from tests.chaos.course import ALLOWED_FEWER_FILES, OPEN_SECONDS, SEED, SLOW_START_SECONDS, STORM_SECONDS, Course, run
from tests.chaos.faults import ALL

PURE: Final = ("first storm, before content", "second storm, before content")
"""Phases in which nothing fails that another provider could not make good."""
MIXED: Final = ("first storm", "second storm", "large frames")
OTHERS: Final = ("calm", "outage", "recovery")
ANSWERED_SHARE: Final = 0.9995
GROWTH_BYTES: Final = 8 * 1024 * 1024
"""Of the second of two equal storms: the first has filled every pool and table, so what is left is a leak."""
MEBIBYTE: Final = 1024 * 1024


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Course:
    """All of it, once for all tests of this file."""
    return run(
        tmp_path_factory.mktemp("chaos") / "manifests.yaml",
        storm_seconds=request.config.getoption("--chaos-seconds", STORM_SECONDS),  # unknown where all of tests/ runs
        seed=request.config.getoption("--chaos-seed", SEED),
    )


def test_every_fault_was_met_by_many_plain_requests_and_streams(
    course: Course, tell_figure: Callable[[str], None]
) -> None:
    """Otherwise the rest of this file would prove little."""
    rare = {
        (name, is_stream): course.met[name, is_stream]
        for name in ALL
        for is_stream in (False, True)
        if course.met[name, is_stream] < (1 if "oversized" in name else 3)
        and not (not is_stream and "oversized" in name)  # a plain answer has no frames
    }
    attempts = Counter(attempt["outcome"] for line in course.lines for attempt in line.get("attempts", ()))
    tell_figure(f"chaos: {len(course.outcomes):,} requests of {CLIENTS} clients; attempts: {_listed(attempts)}")

    assert not rare
    assert attempts["connection"] > 0
    assert {(one.kind, one.model) for one in course.of(*PURE)} == {(kind, model) for kind in KINDS for model in MODELS}


def test_every_request_ends_in_one_complete_answer_or_one_proper_error(course: Course) -> None:
    improper = [f"{one.phase}, {one.kind} to {one.model}: {one.fault}" for one in course.outcomes if one.fault]

    assert not improper, (len(improper), improper[:10])


def test_with_a_healthy_second_provider_everybody_is_answered(
    course: Course, tell_figure: Callable[[str], None]
) -> None:
    asked = course.of(*PURE, *OTHERS)
    answered = [one for one in asked if one.complete]
    tell_figure(f"chaos: {len(answered):,} of {len(asked):,} answered where no stream was broken after its beginning")

    assert len(answered) >= ANSWERED_SHARE * len(asked)


def test_whoever_had_nothing_yet_is_always_answered(course: Course, tell_figure: Callable[[str], None]) -> None:
    """Also in the worst of it: an error comes only where a stream had begun."""
    broken = [one for one in course.of(*MIXED) if one.committed and not one.complete]
    refused = [(one.phase, one.kind, one.model) for one in course.outcomes if not one.complete and not one.committed]
    tell_figure(
        f"chaos: {len(broken):,} of {len(course.of(*MIXED)):,} streams and plain requests of the full storms were "
        f"broken after their beginning and told so; {len(refused)} others were not answered"
    )

    assert not refused
    assert broken  # and each of them is told an error: see above


def test_a_stream_is_broken_only_by_its_own_provider(course: Course) -> None:
    """The second provider is well: what comes from it is always complete."""
    assert not [one for one in course.outcomes if one.provider.startswith("second") and not one.complete]


def test_each_request_has_one_audit_line(course: Course) -> None:
    lines = Counter(line["request_id"] for line in course.lines)

    assert {count for one, count in lines.items() if one} == {1}
    assert not {one.request_id for one in course.outcomes if one.request_id} - set(lines)


def test_the_primary_is_asked_again_soon_after_it_is_well(course: Course, tell_figure: Callable[[str], None]) -> None:
    told = ", ".join(
        f"{model.removeprefix('model-')} {seconds:.2f} s" for model, seconds in course.back_seconds.items()
    )
    tell_figure(
        f"chaos: after an outage the primary answered again within {told} (openSeconds {OPEN_SECONDS}); "
        f"it had all of its traffic after {course.all_back_seconds:.1f} s"
    )

    assert max(course.back_seconds.values()) <= OPEN_SECONDS + 2
    assert course.all_back_seconds <= OPEN_SECONDS + 2 + 2 * SLOW_START_SECONDS


def test_who_hangs_up_is_not_worked_for_any_longer(course: Course, tell_figure: Callable[[str], None]) -> None:
    seconds = course.cancelled_seconds
    tell_figure(
        f"chaos: {course.hung_up} clients hung up; the provider was told after {median(seconds) * 1000:.0f} ms "
        f"(p50), {percentile(seconds, percent=99) * 1000:.0f} ms (p99)"
    )

    assert course.not_cancelled == 0
    assert course.hung_up == 2 * CLIENTS
    assert max(seconds) <= 1


def test_nothing_is_left_behind(course: Course, tell_figure: Callable[[str], None]) -> None:
    """No connection, no file, no request at a provider, and no task that would hold up the end."""
    quiet = course.quiet
    tell_figure(
        "chaos: MiB resident "
        + ", ".join(f"{one.resident_bytes / MEBIBYTE:.1f} ({name})" for name, one in quiet.items())
        + f"; open files beside kept connections {[one.files for one in quiet.values()]}"
        + f"; ended {course.stopped_seconds:.2f} s after SIGTERM"
    )

    assert [one.under_way for one in quiet.values()] == [0] * len(quiet)
    assert {quiet["before"].files - one.files for one in quiet.values()} <= set(ALLOWED_FEWER_FILES)
    assert course.stopped_seconds < 3  # a request left over would be waited for
    assert not [line for line in course.errors if re.search(r"destroyed|Unclosed|never", line)]


def test_a_second_storm_needs_no_more_memory_than_the_first(course: Course) -> None:
    growth = course.quiet["second storm"].resident_bytes - course.quiet["first storm"].resident_bytes

    assert growth <= GROWTH_BYTES, growth


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
