"""The ledger as CSV or JSON lines, for spreadsheets and programs. Pure: from entries to text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from llm_sidecar.contract.limit_usage import FIELD_OF_UNIT
from llm_sidecar.contract.quota_counters import LimitUnit
from llm_sidecar.usage.ledger import FEMTO_PER_NANO, LedgerCharge, LedgerLine

_TEXTS: Final = ("sidecar", "api", "provider", "model", "asked_model", "source")
_NUMBERS: Final = ("status", "input", "cache_read", "cache_write", "output", "reasoning")
_ADJUSTED: Final = ("who", "reason", "adjustment", "counter", "amount")
COLUMNS: Final = (
    *("entry", "time", "team", "request", *_TEXTS, *_NUMBERS, "cost_usd", "charges"),
    *_ADJUSTED,
)
"""Of both formats, in this order."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def record(team: str, line: LedgerLine) -> dict[str, Any]:
    """One entry with all columns. None where it says nothing: unknown is not zero."""
    words = line.words
    return {
        "entry": line.id,
        "time": _time(line.at_ms),
        "team": team,
        "request": words.get("id") or None,
        **{name: words.get(name) or None for name in _TEXTS},
        **{name: _number(words.get(name)) for name in _NUMBERS},
        "cost_usd": _cost(words),
        "charges": [_charge(charge) for charge in line.charges],
        **{name: words.get(name) or None for name in _ADJUSTED},
    }


def as_json(team: str, line: LedgerLine) -> str:
    """One line of JSON."""
    return json.dumps(record(team, line), ensure_ascii=False) + "\n"


def csv_header() -> str:
    """The first line."""
    return _csv(COLUMNS)


def as_csv(team: str, line: LedgerLine) -> str:
    """One row. What could be a formula gets an apostrophe before it: models' names are what clients typed."""
    fields = record(team, line)
    fields["charges"] = "; ".join(_charge_text(charge) for charge in line.charges)
    return _csv("" if fields[name] is None else _plain(fields[name]) for name in COLUMNS)


def exact_amount(unit: LimitUnit, millionths: int) -> str:
    """An amount of the ledger: of cost US dollars to the last femto-dollar, of all others whole numbers."""
    return _decimal(millionths) if unit is LimitUnit.COST else str(millionths // FEMTO_PER_NANO)


def _csv(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _plain(value: object) -> str:
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text else None
    except ValueError:
        return None


def _cost(words: Mapping[str, str]) -> str | None:
    nano, rest = _number(words.get("nano_usd")), _number(words.get("femto_rest"))
    return None if nano is None else _decimal(nano * FEMTO_PER_NANO + (rest or 0))


def _decimal(femto_usd: int) -> str:
    dollars, _, decimals = f"{Decimal(femto_usd).scaleb(-15):.15f}".partition(".")
    return f"{dollars}.{decimals.rstrip('0').ljust(2, '0')}"


def _charge(charge: LedgerCharge) -> dict[str, Any]:
    figures = charge.figures
    if figures is None:
        return {"counter": charge.counter}
    return {
        "limit": figures.limit,
        "unit": FIELD_OF_UNIT[figures.unit],
        "per": figures.per,
        "windowStart": _time(figures.start_ms),
        "amount": exact_amount(figures.unit, charge.millionths),
    }


def _charge_text(charge: LedgerCharge) -> str:
    figures = charge.figures
    if figures is None:
        return charge.counter
    return f"{figures.limit} {exact_amount(figures.unit, charge.millionths)} {FIELD_OF_UNIT[figures.unit]}"
