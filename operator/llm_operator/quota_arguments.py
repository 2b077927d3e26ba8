"""The arguments of `llm-operator quota`; apart from what it does, which is slow to import."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name


def add_parser(commands: Subparsers) -> None:
    """Describe the command and its one action."""
    quota = commands.add_parser("quota", help="act on what a team may use")
    actions = quota.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_arguments(
        actions.add_parser(
            "adjust",
            help="grant more of a limit, or reset it, in its current window",
            description="Grant a team more of a limit, or let its use count from zero, until the current window ends. "
            "What was charged stays charged. It is written into the team's ledger, and told by an Event. Ends with 0 "
            "where it is done, 1 where Redis did not answer, 2 where it cannot be done.",
        )
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("team", metavar="NAMESPACE/NAME", help="the TeamQuota")
    parser.add_argument("--limit", required=True, metavar="NAME", help="which of its limits")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--grant", metavar="AMOUNT", help="how much more, in the limit's unit; of costUSD, US dollars")
    what.add_argument("--reset", action="store_true", help="let what is used in the current window count from zero")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why; stands in the ledger and in the Event")
    parser.add_argument("--who", metavar="NAME", help="whose decision it is (default: USER@HOST)")
    parser.add_argument(
        "--redis", metavar="URL", help="the Redis of the proxies (default: LLM_OPERATOR_REDIS_URL, or ..._FILE)"
    )
    parser.add_argument(
        "-f",
        "--filename",
        type=Path,
        metavar="FILE",
        help="read the TeamQuota from this file, not from a cluster; no Event is written then",
    )
    parser.add_argument("--no-event", action="store_true", help="write no Kubernetes Event")
