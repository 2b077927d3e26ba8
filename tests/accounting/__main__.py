"""`python -m tests.accounting`: one course of the check, its figures, and exit status 1 where a promise was broken."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from tests.accounting.course import play
from tests.accounting.judge import Case
from tests.accounting.settings import FAULTS, LOSING, Plan, UnknownFault

SHOWN: int = 20
"""Of what broke a promise; more would be the same."""


def _plan(words: Sequence[str] | None) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m tests.accounting", description=__doc__)
    defaults = Plan()
    parser.add_argument("--seed", type=int, default=defaults.seed, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="of the storm (default: %(default)s)")
    parser.add_argument("--sidecars", type=int, default=defaults.sidecars, help="(default: %(default)s)")
    parser.add_argument("--clients", type=int, default=defaults.clients, help="(default: %(default)s)")
    parser.add_argument(
        "--faults",
        default=",".join(FAULTS),
        help="comma-separated, of: "
        + "; ".join(f"{name}: {meaning}" for name, meaning in FAULTS.items())
        + f". Without {' and '.join(sorted(LOSING))} every counter must be exact (default: all)",
    )
    options = parser.parse_args(words)
    try:
        return Plan(
            seed=options.seed,
            seconds=options.seconds,
            sidecars=options.sidecars,
            clients=options.clients,
            faults=frozenset(filter(None, options.faults.split(","))),
        )
    except UnknownFault as error:
        parser.error(str(error))


def main(words: Sequence[str] | None = None) -> int:
    plan = _plan(words)
    evidence = asyncio.run(play(plan))
    print("faults: " + ", ".join(f"{name} {count}" for name, count in evidence.met.most_common()))
    broken = 0
    for verdict in Case(evidence).verdicts():
        print(f"{'BROKEN' if verdict.broken else 'kept'}: {verdict.promise}: {verdict.figures}")
        broken += len(verdict.broken)
        for line in verdict.broken[:SHOWN]:
            print(f"    {line}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
