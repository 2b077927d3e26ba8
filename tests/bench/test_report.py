import json
from dataclasses import replace

import pytest

from tests.bench import report
from tests.bench.measure import QUICK_EFFORT, sample_of
from tests.bench.results import DIRECT, PLAIN_SATURATED, LoadResult, Measurements, Memory, Start
from tests.bench.targets import FULL, MINIMAL

MACHINE = {
    "cpus": 2,
    "target_on_its_own_core": True,
    "load_average_before": 0.1,
    "system": "Linux x86_64",
    "python": "CPython 3.11.7",
    "packages": {"aiohttp": "3.14.5"},
}
WINDOW = LoadResult(
    requests=1000,
    seconds=2.0,
    p50_ms=1.0,
    p99_ms=2.0,
    first_byte_p50_ms=0.5,
    first_byte_p99_ms=0.6,
    cpu_seconds={"target": 0.5, "redis": 0.1, "upstream": 0.2},
    resident_max_bytes={"target": 50 * report.MEBIBYTE},
    generator_cpu_seconds=0.4,
    machine_busy_seconds=1.3,
    errors={},
)


def measurements() -> Measurements:
    """Two rounds; the machine was half as fast in the second."""
    found = Measurements()
    for round_number in (1, 2):
        for target, requests in ((DIRECT, 4000), (MINIMAL, 2000), (FULL, 1200)):
            window = replace(WINDOW, requests=requests // round_number, p50_ms=4000 / requests * round_number)
            found.samples.append(
                sample_of(window, scenario=PLAIN_SATURATED, target=target, round_number=round_number, other_cores=1)
            )
    size = 50 * report.MEBIBYTE
    found.memory[FULL] = Memory(
        idle_bytes=size,
        after_requests=3000,
        after_requests_bytes=size,
        at_100_connections_bytes=61 * report.MEBIBYTE,
        end_bytes=size,
    )
    found.starts[FULL] = Start(ready_seconds=0.7, first_answer_seconds=0.8, starts=3)
    return found


def test_a_window_becomes_figures_per_request_and_per_second() -> None:
    sample = sample_of(WINDOW, scenario=PLAIN_SATURATED, target=FULL, round_number=1, other_cores=1)

    assert sample.requests_per_second == 500
    assert sample.cpu_microseconds_per_request == 500
    assert sample.requests_per_core_second == 2000
    assert sample.redis_cpu_microseconds_per_request == 100
    assert sample.surroundings_share == 0.35
    assert sample.strangers_cores == pytest.approx(0.05)


def test_aims_are_judged_by_what_was_measured() -> None:
    verdicts = {aim.name: (aim.figure, aim.verdict) for aim in report.aims(measurements())}

    unmeasured = (None, "not measured")
    expected = [(0.6, "met"), unmeasured, unmeasured, unmeasured, (61, "not met"), (0.7, "met")]
    assert list(verdicts.values()) == expected + [unmeasured] * 3


def test_nothing_measured_meets_no_aim() -> None:
    assert {aim.verdict for aim in report.aims(Measurements())} == {"not measured"}


def test_the_page_shows_ratios_within_rounds_and_added_latency() -> None:
    page = report.markdown(measurements(), machine=MACHINE, effort=QUICK_EFFORT)
    row = next(line for line in page.splitlines() if line.startswith(f"| {FULL}"))

    assert [cell.strip() for cell in row.split("|")][2:8] == ["450", "0.60", "5.00", "2.00", "3.50", "0.00"]


def test_a_run_on_a_busy_machine_says_that_it_is_worth_nothing() -> None:
    calm, disturbed = measurements(), measurements()
    disturbed.samples = [replace(sample, strangers_cores=0.5) for sample in disturbed.samples]

    assert "idle machine" not in report.markdown(calm, machine=MACHINE, effort=QUICK_EFFORT)
    assert "idle machine" in report.markdown(disturbed, machine=MACHINE, effort=QUICK_EFFORT)


def test_the_document_is_json_with_the_machine_and_every_round() -> None:
    document = json.loads(json.dumps(report.document(measurements(), machine=MACHINE, effort=QUICK_EFFORT)))

    assert document["machine"] == MACHINE
    assert len(document["samples"]) == 6
    assert document["summary"][2]["ratio_to_minimal"] == 0.6


def test_the_facts_name_neither_the_host_nor_a_path() -> None:
    facts = report.facts(load_average=0.123, cores_apart=True)

    assert facts["load_average_before"] == 0.12
    assert set(facts) == set(MACHINE)
    assert "/" not in json.dumps(facts)


def test_a_table_lines_up() -> None:
    lines = report.table(("name", "n"), [("long name", "1"), ("x", "1,000")]).splitlines()

    assert len({len(line) for line in lines}) == 1
