"""`python -m tests.trace`: run the trace under every setting of the cache, print the tables, write JSON."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from llm_sidecar.contract.team_quota_resource import CachedGenerations
from tests.bench.children import BenchmarkFailed, Children, Cores
from tests.bench.measure import tell
from tests.bench.report import facts
from tests.trace import report
from tests.trace.course import Plan, ask_directly, run
from tests.trace.figures import PhaseResult, Row
from tests.trace.surroundings import start_surroundings

BROKEN_PERCENT: Final = 1.0
"""With more errors than this, the other figures tell of something that does not work."""


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.trace", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the trace (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=_positive, default=10.0, metavar="M", help="of the steady phase (default: %(default)s)"
    )
    parser.add_argument(
        "--rate", type=_positive, default=1000.0, metavar="N", help="requests a minute of it (default: %(default)s)"
    )
    parser.add_argument(
        "--connections",
        type=_positive_count,
        default=100,
        metavar="N",
        help="of the closed loop (default: %(default)s)",
    )
    parser.add_argument(
        "--closed-seconds", type=_positive, default=30.0, metavar="S", help="how long it lasts (default: %(default)s)"
    )
    parser.add_argument(
        "--generations",
        action="append",
        type=CachedGenerations,
        choices=[*CachedGenerations],
        help="what the team lets be cached; None: nothing at all. Again for more (default: all three, one by one)",
    )
    parser.add_argument(
        "--provider-milliseconds", type=int, default=300, metavar="MS", help="to its answer (default: %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("build/trace.json"), metavar="FILE", help="JSON of all figures"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not above zero")
    return number


def _positive_count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def _stop(signal_number: int, frame: object) -> NoReturn:
    # Turns a termination into the orderly end that a keyboard interrupt has: the children are ended too.
    raise SystemExit(128 + signal_number)


def _run(plan: Plan, *, provider_milliseconds: int, cores: Cores) -> tuple[Row, list[PhaseResult]]:
    with tempfile.TemporaryDirectory(prefix="llm-sidecar-trace-") as directory:
        children = Children(directory=Path(directory), cores=cores)
        try:
            surroundings = start_surroundings(children, provider_milliseconds=provider_milliseconds)
            return ask_directly(plan, surroundings), run(plan, surroundings)
        finally:
            children.stop_all()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trace. A missed target fails nothing; errors that make the figures worthless do."""
    options = _arguments(arguments)
    if sys.platform != "linux":
        tell("the run reads CPU time and memory from /proc: run it on Linux")
        return 2
    signal.signal(signal.SIGTERM, _stop)
    plan = Plan(
        seed=options.seed,
        settings=options.generations
        or (CachedGenerations.ALL, CachedGenerations.DETERMINISTIC, CachedGenerations.NONE),
        connections=options.connections,
        closed_seconds=options.closed_seconds,
        per_minute=options.rate,
        steady_seconds=60 * options.minutes,
    )
    begin, load_average = time.monotonic(), os.getloadavg()[0]
    cores = Cores.of_this_machine()
    os.sched_setaffinity(0, cores.others)
    try:
        direct, results = _run(plan, provider_milliseconds=options.provider_milliseconds, cores=cores)
    except BenchmarkFailed as error:
        tell(f"the run failed: {error}")
        return 1
    machine = facts(load_average=load_average, cores_apart=cores.measured != cores.others)
    run_of = report.RunFacts(
        plan=plan, provider_milliseconds=options.provider_milliseconds, direct=direct, machine=machine
    )
    text = report.markdown(results, run_of)
    print(text)
    _write(options.markdown, text)
    _write(options.output, json.dumps(report.document(results, run_of), indent=1) + "\n")
    tell(f"took {time.monotonic() - begin:.0f} s")
    return int(any(result.error_percent > BROKEN_PERCENT for result in results))


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
