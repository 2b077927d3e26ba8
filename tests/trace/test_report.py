import json
from dataclasses import replace
from typing import Any

from llm_sidecar.contract.team_quota_resource import CachedGenerations
from tests.trace import report
from tests.trace.course import Plan
from tests.trace.figures import Phase, PhaseResult
from tests.trace.test_figures import result

PLAN = Plan(
    seed=7,
    settings=(CachedGenerations.ALL, CachedGenerations.NONE),
    connections=100,
    closed_seconds=30,
    per_minute=1000,
    steady_seconds=600,
)
MACHINE: dict[str, Any] = {
    "cpus": 2,
    "target_on_its_own_core": True,
    "load_average_before": 0.1,
    "system": "Linux x86_64",
    "python": "CPython 3.11",
    "packages": {"aiohttp": "3"},
}
FACTS = report.RunFacts(plan=PLAN, provider_milliseconds=300, direct=result().rows[0], machine=MACHINE)
RESULTS = [result(generations, phase) for generations in PLAN.settings for phase in Phase]


def page(results: list[PhaseResult]) -> str:
    return report.markdown(results, FACTS)


def rows(text: str, first: str) -> list[list[str]]:
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith(f"| {first}")]
    return [[cell.strip() for cell in line] for line in lines]


def test_the_page_has_a_part_for_each_phase_with_every_setting_beside_the_others() -> None:
    text = page(RESULTS)
    assert "### 100 concurrent, closed loop, 30 s" in text
    assert "without a sidecar: mean 50 ms, p50 50, p95 95, p99 99." in text
    assert "### Steady 1,000 requests a minute, 10 min" in text
    assert rows(text, "target") == [["target", "", "cache `All`", "cache off"]] * 2
    assert rows(text, "hit ratio")[0] == ["hit ratio, %", "≥ 40", "41.67, met", "-"]
    assert rows(text, "errors")[0] == ["errors, %", "≤ 0.05", "17.24, not met", "17.24, not met"]


def test_every_kind_of_request_has_its_row() -> None:
    found = rows(page(RESULTS), "cache `All`")
    chat = ["cache `All`", "125", "chat", "25", "40.0", "50.0", "50.5", "50.0", "95.0", "99.0"]
    assert chat in found
    assert ["cache `All`", "chat: status 529", "25", "17.241"] in found


def test_what_was_saved_is_told_by_strategy_and_a_setting_that_saved_nothing_says_so() -> None:
    saved = {"spent USD": 0.5, "spent tokens": 700.0, "response cache, tokens": 12345.0, "response cache, USD": 0.25}
    off = {"spent USD": 1.0, "spent tokens": 1000.0}
    text = page([replace(RESULTS[1], ledger=saved), replace(RESULTS[3], ledger=off)])
    heads = ["setting", "spent tokens", "spent USD", "saved: response cache, USD", "saved: response cache, tokens"]
    heads += ["spent tokens less than off", "spent USD less than off"]
    assert heads in rows(text, "setting")
    assert ["cache `All`", "700", "0.5000", "0.2500", "12,345", "300", "0.5000"] in rows(text, "cache")
    assert ["cache off", "1,000", "1.0000", "0.0000", "0", "0", "0.0000"] in rows(text, "cache")


def test_a_closed_loop_is_not_compared_since_each_setting_was_asked_something_else() -> None:
    text = page([replace(RESULTS[0], ledger={"spent USD": 0.5}), replace(RESULTS[2], ledger={"spent USD": 1.0})])
    assert "less than off" not in text


def test_a_busy_machine_is_told_of() -> None:
    busy = replace(RESULTS[0], resources=replace(RESULTS[0].resources, strangers_cores=0.9))
    assert "too much" not in page(RESULTS)
    assert "at most 0.90 CPUs busy in a phase: **too much" in page([busy])


def test_a_phase_whose_pace_the_load_generator_set_is_marked() -> None:
    bound = replace(RESULTS[0], resources=replace(RESULTS[0].resources, generator_cpu_share=0.9))
    assert any(row[1] == "16.7\\*" for row in rows(page([bound]), "cache"))
    assert not any("\\*" in cell for row in rows(page(RESULTS), "cache") for cell in row)


def test_the_document_is_json_and_holds_the_verdicts() -> None:
    told = report.document(RESULTS, FACTS)
    read = json.loads(json.dumps(told))
    assert read["plan"]["seed"] == 7
    assert len(read["phases"]) == 4
    assert {target["verdict"] for target in read["phases"][0]["targets"]} == {"met", "not met", "not measured"}
