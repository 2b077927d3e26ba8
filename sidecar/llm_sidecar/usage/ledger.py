"""A team's ledger, read: one entry for each settlement, as `quota/lua/settle.lua` writes them.

Newer proxies may write fields that this program does not know, and older ones may lack some: nothing here insists.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from typing import Final

from llm_sidecar.contract.keys import quota_counters, quota_ledger
from llm_sidecar.contract.quota_counters import CounterFigures, pairs, read_counters
from llm_sidecar.store import Reply, Script, Store, StoreUnavailable

PAGE_ENTRIES: Final = 500
"""A page takes about a millisecond of the server's time, which all proxies share."""
FEMTO_PER_NANO: Final = 1_000_000


def script(name: str) -> Script:
    """One of this package's scripts."""
    return Script(name=name, source=(files("llm_sidecar.usage") / "lua" / f"{name}.lua").read_text(encoding="utf-8"))


COUNTERS: Final = script("counters")
LEDGER_PAGE: Final = script("ledger_page")
CORRECT: Final = script("correct")


@dataclass(frozen=True, slots=True)
class LedgerCharge:
    """What an entry added to one counter, in millionths of the counter's unit: of cost, those are femto-USD."""

    counter: str
    millionths: int

    @property
    def figures(self) -> CounterFigures | None:
        """The counter's name, read; None where it does not read like one."""
        return next(iter(read_counters({f"{self.counter}|used": "0"})), None)


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One entry of the stream."""

    id: str
    """The stream's own: milliseconds of the store's clock, and a number."""
    words: Mapping[str, str]

    @property
    def at_ms(self) -> int:
        """When it was written."""
        return int(self.id.partition("-")[0])

    @property
    def charges(self) -> list[LedgerCharge]:
        """What it added to counters. A line that does not read like one is left out."""
        found = (_charge(line) for line in self.words.get("charges", "").split("\n"))
        return [charge for charge in found if charge is not None]


@dataclass(frozen=True, slots=True)
class LedgerPage:
    """Entries in their order."""

    lines: list[LedgerLine]
    counters: Mapping[bytes, bytes] | None
    """As they are right after the last entry of the ledger; None where there are more entries, or nobody asked."""


async def counters_of(store: Store, team: str) -> tuple[int, list[CounterFigures]]:
    """The store's time in milliseconds, and all counters. Raises `StoreUnavailable`."""
    match await store.run(COUNTERS, [quota_counters(team)], []):
        case [bytes(seconds), bytes(microseconds), list(flat)]:
            return int(seconds) * 1000 + int(microseconds) // 1000, read_counters(_fields(flat))
        case _:
            raise StoreUnavailable("protocol")


async def pages_of(
    store: Store, team: str, *, first: str = "-", with_counters: bool = False, entries: int = PAGE_ENTRIES
) -> AsyncIterator[LedgerPage]:
    """The ledger from an id on, page by page. Raises `StoreUnavailable`."""
    keys = [quota_ledger(team), quota_counters(team)]
    while True:
        match await store.run(LEDGER_PAGE, keys, [first, entries, int(with_counters)]):
            case [list(found), list(flat)]:
                lines = [_line(entry) for entry in found]
            case _:
                raise StoreUnavailable("protocol")
        is_last = len(lines) < entries
        yield LedgerPage(lines, _fields(flat) if with_counters and is_last else None)
        if is_last:
            return
        first = f"({lines[-1].id}"


def _fields(flat: list[Reply]) -> dict[bytes, bytes]:
    return pairs(word for word in flat if isinstance(word, bytes))


def _line(entry: Reply) -> LedgerLine:
    match entry:
        case [bytes(entry_id), list(flat)]:
            words = {
                name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
                for name, value in _fields(flat).items()
            }
            return LedgerLine(entry_id.decode(), words)
        case _:
            raise StoreUnavailable("protocol")


def _charge(line: str) -> LedgerCharge | None:
    counter, *amounts = line.split("\t")
    if not amounts:
        return None
    try:
        # More than one: what was charged, less what had been charged before.
        return LedgerCharge(counter, sum(int(Decimal(amount) * FEMTO_PER_NANO) for amount in amounts))
    except (InvalidOperation, ValueError, OverflowError):
        return None
