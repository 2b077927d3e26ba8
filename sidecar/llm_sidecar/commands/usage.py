"""`llm-sidecar usage`: how far a team's limits are used, its ledger, and whether the two agree."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_sidecar.commands.usage_source import Source, TeamSource
    from llm_sidecar.contract.limit_usage import LimitUsage
    from llm_sidecar.store import Store
    from llm_sidecar.usage.recompute import Comparison

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

OK: Final = 0
DIFFERENT: Final = 1
UNUSABLE: Final = 2
_TABLE: Final = ("limit", "per", "counts", "used", "reserved", "of", "percent", "resets")
_COMPARED: Final = ("limit", "counts", "window", "counted", "in ledger", "difference")
_DEFAULT_REASON: Final = "recomputed from the ledger"


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command's arguments."""
    parser = subparsers.add_parser(
        "usage",
        help="tell how far limits are used; export the ledger",
        description="Without an action: a table of the limits. export: the ledger, an entry for each request that was "
        "charged. recompute: compare the counters with the ledger, and with --write set them right. Ends with 0, with "
        "1 where counters differ from the ledger and were not written, with 2 where it cannot be told.",
    )
    parser.add_argument("action", nargs="?", choices=("export", "recompute"), help="default: a table of the limits")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-f",
        "--filename",
        dest="paths",
        metavar="FILE_OR_DIR",
        type=Path,
        nargs="+",
        action="extend",
        help="YAML or JSON files with the TeamQuotas, or folders of them; may be repeated",
    )
    where.add_argument("--config", type=Path, metavar="FILE", help="the config document that a pod has")
    parser.add_argument("--team", metavar="NAMESPACE/NAME", help="the team (default: all of the files)")
    parser.add_argument(
        "--redis",
        metavar="URL",
        help="the store (default: that of --config, or of the `llm-sidecar run` that runs here)",
    )
    parser.add_argument("--output", choices=("text", "json"), default="text", help="of the table (%(default)s)")
    export = parser.add_argument_group("export")
    export.add_argument("--format", choices=("csv", "jsonl"), default="csv", help="(%(default)s)")
    export.add_argument("--since", type=_since, metavar="WHEN", help="a time, or the entry after which to go on")
    recompute = parser.add_argument_group("recompute")
    recompute.add_argument("--write", action="store_true", help="set counters that differ right, and tell the ledger")
    recompute.add_argument(
        "--reason", default=_DEFAULT_REASON, metavar="TEXT", help="why, for the ledger (%(default)s)"
    )
    recompute.add_argument(
        "--ledger-is-whole",
        action="store_true",
        help="it was never cut and Redis never lost data: compare windows that began before its first entry, too",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Tell, and return the exit status."""
    from llm_sidecar.commands.usage_source import NoSource, find_source  # noqa: PLC0415 - only this command needs it
    from llm_sidecar.store import StoreUnavailable  # noqa: PLC0415

    try:
        return asyncio.run(_run(arguments, find_source(arguments)))
    except NoSource as error:
        sys.stderr.writelines(f"{line}\n" for line in error.lines)
    except StoreUnavailable as error:
        sys.stderr.write(f"the store cannot be asked ({error.reason}). Fix: check its URL, and that it runs\n")
    except BrokenPipeError:  # `… | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return UNUSABLE


def _since(text: str) -> str:
    """Where to begin, as XRANGE takes it."""
    milliseconds, dash, number = text.partition("-")
    if dash and milliseconds.isdecimal() and number.isdecimal() and len(milliseconds) > 4:
        return f"({text}"
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: write it like 2026-11-01 or 2026-11-01T12:00:00Z, or give an entry's name"
        ) from None
    return str(int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000))


async def _run(arguments: argparse.Namespace, source: Source) -> int:
    store = await source.connected()
    try:
        if arguments.action == "export":
            return await _export(arguments, source.teams, store)
        if arguments.action == "recompute":
            return max([await _recompute(arguments, team, store) for team in source.teams])
        return await _show(arguments, source.teams, store)
    finally:
        await store.close()


# --- the table


async def _show(arguments: argparse.Namespace, teams: Sequence[TeamSource], store: Store) -> int:
    from llm_sidecar.contract.limit_usage import usage_at  # noqa: PLC0415
    from llm_sidecar.usage.ledger import counters_of  # noqa: PLC0415

    told: dict[str, Any] = {}
    for team in teams:
        now_ms, counters = await counters_of(store, team.label)
        usages = usage_at(team.spec, counters, now_ms)
        zone = ZoneInfo(team.spec.time_zone)
        told[team.label] = [_document(usage, zone) for usage in usages]
        if arguments.output == "text":
            sys.stdout.write(f"{team.label}\n")
            if not usages:
                sys.stdout.write("  no limits\n")
            _print_table(_TABLE, [_row(usage, zone) for usage in usages])
    if arguments.output == "json":
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    return OK


def _document(usage: LimitUsage, zone: ZoneInfo) -> dict[str, Any]:
    from llm_sidecar.contract.limit_usage import FIELD_OF_UNIT, amount_text  # noqa: PLC0415

    return {
        "name": usage.name,
        "unit": FIELD_OF_UNIT[usage.unit],
        "used": amount_text(usage.unit, usage.used),
        "reserved": amount_text(usage.unit, usage.reserved),
        "limit": amount_text(usage.unit, usage.limit),
        "percent": usage.percent,
        "resetsAt": _time(usage.figures.end_ms, zone) if usage.has_window else None,
        "beyondExpectation": amount_text(usage.unit, usage.figures.beyond),
    }


def _row(usage: LimitUsage, zone: ZoneInfo) -> tuple[str, ...]:
    told = _document(usage, zone)
    per = usage.figures.per if usage.has_window else "-"
    percent, resets = f"{told['percent']} %", told["resetsAt"] or "-"
    return (told["name"], per, told["unit"], told["used"], told["reserved"], told["limit"], percent, resets)


def _time(at_ms: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(at_ms // 1000, zone).isoformat()


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"  {line}".rstrip() + "\n")


# --- the ledger


async def _export(arguments: argparse.Namespace, teams: Sequence[TeamSource], store: Store) -> int:
    from llm_sidecar.usage.export import as_csv, as_json, csv_header  # noqa: PLC0415
    from llm_sidecar.usage.ledger import pages_of  # noqa: PLC0415

    as_text = as_csv if arguments.format == "csv" else as_json
    if arguments.format == "csv":
        sys.stdout.write(csv_header())
    for team in teams:
        async for page in pages_of(store, team.label, first=arguments.since or "-"):
            sys.stdout.writelines(as_text(team.label, line) for line in page.lines)
            sys.stdout.flush()
    return OK


async def _recompute(arguments: argparse.Namespace, team: TeamSource, store: Store) -> int:
    from llm_sidecar.commands.usage_source import user  # noqa: PLC0415
    from llm_sidecar.usage.recompute import compare, correct  # noqa: PLC0415

    compared = await compare(store, team.label, ledger_is_whole=arguments.ledger_is_whole)
    wrong = [one for one in compared if one.is_wrong]
    uncovered = sum(not one.is_covered for one in compared)
    agreeing = len(compared) - len(wrong) - uncovered
    sys.stdout.write(f"{team.label}: {agreeing} counters agree with the ledger, {len(wrong)} do not")
    sys.stdout.write(f"; {uncovered} began before its first entry, and were not compared\n" if uncovered else "\n")
    _print_table(_COMPARED, [_compared(one) for one in wrong])
    if not wrong:
        return OK
    if not arguments.write:
        return DIFFERENT
    await correct(store, team.label, wrong, who=user(), reason=arguments.reason)
    sys.stdout.write("  set right, and written into the ledger\n")
    return OK


def _compared(one: Comparison) -> tuple[str, ...]:
    from llm_sidecar.contract.limit_usage import FIELD_OF_UNIT  # noqa: PLC0415
    from llm_sidecar.usage.export import exact_amount  # noqa: PLC0415

    unit = one.figures.unit
    amounts = (exact_amount(unit, millionths) for millionths in (one.counted, one.in_ledger, one.difference))
    return (one.figures.limit, FIELD_OF_UNIT[unit], _time(one.figures.start_ms, ZoneInfo("UTC")), *amounts)
