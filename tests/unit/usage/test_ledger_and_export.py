"""The ledger as proxies write it, read page by page and told as CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from llm_sidecar.redis_store import RedisStore
from llm_sidecar.usage.export import COLUMNS, as_csv, as_json, csv_header, record
from llm_sidecar.usage.ledger import LedgerLine, pages_of
from tests.unit.usage.conftest import TEAM, Spend, command


async def _lines(store: RedisStore, **options: Any) -> list[LedgerLine]:
    return [line async for page in pages_of(store, TEAM, **options) for line in page.lines]


def _entry(**words: str) -> LedgerLine:
    return LedgerLine("1764072000123-4", words)


async def test_a_settled_request_is_told_with_all_that_is_known(store: RedisStore, spend: Spend) -> None:
    await spend(1000)

    [line] = await _lines(store)
    told = record(TEAM, line)
    charges = told.pop("charges")
    assert {name: value for name, value in told.items() if name not in {"entry", "time"} and value is not None} == {
        "team": TEAM,
        "request": "request-0",
        "sidecar": "pod-1",
        "api": "OpenAIChat",
        "provider": "openai",
        "model": "gpt-5-mini",
        "asked_model": "small",
        "source": "measured",
        "status": 200,
        "input": 1000,
        "output": 0,
        "cost_usd": "0.000000333333",
    }
    assert sorted((one["limit"], one["unit"], one["amount"]) for one in charges) == [
        ("budget", "costUSD", "0.000000333333"),
        ("calls", "requests", "1"),
        ("monthly", "tokens", "1000"),
        ("parallel", "concurrentRequests", "0"),
    ]


async def test_pages_follow_each_other_without_a_gap(store: RedisStore, spend: Spend) -> None:
    for tokens in range(1, 11):
        await spend(tokens)

    whole = await _lines(store)
    for size in (1, 3, 5, 10, 11):
        assert await _lines(store, entries=size) == whole
    assert [line.words["input"] for line in whole] == [str(tokens) for tokens in range(1, 11)]


async def test_an_export_goes_on_after_the_last_entry_it_told(store: RedisStore, spend: Spend) -> None:
    await spend(1)
    [first] = await _lines(store)
    await spend(2)

    assert [line.words["input"] for line in await _lines(store, first=f"({first.id}")] == ["2"]


async def test_a_team_without_a_ledger_has_no_entries(store: RedisStore) -> None:
    assert await _lines(store) == []


async def test_entries_of_other_programs_are_told_as_far_as_they_are_understood(store: RedisStore) -> None:
    await command(store, "XADD", f"llm-sidecar:v1:{{{TEAM}}}:quota:ledger", "5-0", "new", "word", "input", "many")

    [line] = await _lines(store)
    told = record(TEAM, line)
    assert (told["input"], told["model"], told["charges"]) == (None, None, [])


def test_both_formats_have_the_same_columns() -> None:
    line = _entry(id="r", source="measured", model="m", input="0")

    [header, row] = csv.reader(io.StringIO(csv_header() + as_csv(TEAM, line)))
    assert tuple(header) == COLUMNS == tuple(json.loads(as_json(TEAM, line)))
    assert len(row) == len(header)


def test_unknown_is_empty_and_zero_is_zero() -> None:
    told = record(TEAM, _entry(input="0", output=""))

    assert (told["input"], told["output"], told["cost_usd"]) == (0, None, None)


def test_times_are_of_the_stores_clock_to_the_millisecond() -> None:
    assert record(TEAM, _entry())["time"] == "2025-11-25T12:00:00.123Z"


def test_costs_are_exact_to_the_last_femto_dollar() -> None:
    told = record(TEAM, _entry(nano_usd="100000000000001", femto_rest="7"))

    assert told["cost_usd"] == "100000.000000001000007"


def test_a_late_settlement_charges_the_difference() -> None:
    """Its input was charged when its lease ended; the second amount takes that back."""
    line = _entry(charges="monthly|tokens|Month|0|1\t900\t-400\nbudget|cost|Month|0|1\t5.000500\t-2")

    assert [one["amount"] for one in record(TEAM, line)["charges"]] == ["500", "0.0000000030005"]


def test_a_charge_that_does_not_read_like_one_is_left_out() -> None:
    line = _entry(charges="monthly|tokens|Month|0|1\tmany\nno tab\n\nmonthly|tokens|Month|0|1\t7\nodd\t5")

    assert record(TEAM, line)["charges"][1:] == [{"counter": "odd"}]
    assert record(TEAM, line)["charges"][0]["amount"] == "7"


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1", "@x", "\tx"])
def test_a_model_that_a_client_typed_becomes_no_formula(name: str) -> None:
    [row] = csv.reader(io.StringIO(as_csv(TEAM, _entry(asked_model=name))))

    assert row[COLUMNS.index("asked_model")] == f"'{name}"
    assert json.loads(as_json(TEAM, _entry(asked_model=name)))["asked_model"] == name


def test_a_cell_with_commas_quotes_and_lines_stays_one_cell() -> None:
    reason = 'a, "b"\nc'
    [row] = csv.reader(io.StringIO(as_csv(TEAM, _entry(reason=reason))))

    assert row[COLUMNS.index("reason")] == reason
