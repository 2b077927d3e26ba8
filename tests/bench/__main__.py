"""`python -m tests.bench`: measure, print the tables, write JSON."""

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

from tests.bench import report
from tests.bench.children import BenchmarkFailed, Children, Cores
from tests.bench.measure import DEFAULT_EFFORT, QUICK_EFFORT, Effort, measure, tell
from tests.bench.quotas import DEFAULT_QUOTA_EFFORT, QUICK_QUOTA_EFFORT, QuotaEffort, measure_quotas
from tests.bench.results import BARE, DIRECT, EIGHT, QUOTA, Measurements
from tests.bench.targets import MINIMAL, NAMES, start_surroundings

QUOTAS: Final = "quotas"
"""The quota figures, and the targets that they are told beside."""


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("build/bench.json"), metavar="FILE", help="JSON of all figures"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    parser.add_argument("--quick", action="store_true", help="about a minute: is it broken, not how fast is it")
    parser.add_argument(
        "--only",
        action="append",
        choices=(*NAMES, QUOTAS),
        metavar="NAME",
        help=f"measure this target beside the upstream and the minimal proxy (again for more): "
        f"{', '.join(NAMES)}; or {QUOTAS}: the figures of quotas, with the targets they speak of",
    )
    return parser.parse_args(arguments)


def _stop(signal_number: int, frame: object) -> NoReturn:
    # Turns a termination into the orderly end that a keyboard interrupt has: the children are ended too.
    raise SystemExit(128 + signal_number)


def _run(names: Sequence[str], *, effort: Effort, quota_effort: QuotaEffort | None, cores: Cores) -> Measurements:
    with tempfile.TemporaryDirectory(prefix="llm-sidecar-bench-") as directory:
        children = Children(directory=Path(directory), cores=cores)
        try:
            found = measure(names, surroundings=start_surroundings(children), effort=effort)
            if quota_effort is not None:
                tell("quotas: scripts, a fleet on one team, round trips")
                found.quotas = measure_quotas(children, effort=quota_effort)
            return found
        finally:
            children.stop_all()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark. Wrong answers fail it; a missed aim does not."""
    options = _arguments(arguments)
    if sys.platform != "linux":
        tell("the benchmark reads CPU time and memory from /proc: run it on Linux")
        return 2
    signal.signal(signal.SIGTERM, _stop)
    effort = QUICK_EFFORT if options.quick else DEFAULT_EFFORT
    only = set(options.only or (*NAMES, QUOTAS))
    quota_effort = QUICK_QUOTA_EFFORT if options.quick else DEFAULT_QUOTA_EFFORT
    # Every figure is told against the first two, so they always run along.
    wanted = {DIRECT, MINIMAL, *only, *((BARE, QUOTA, EIGHT) if QUOTAS in only else ())}
    names = [name for name in NAMES if name in wanted]
    begin, load_average = time.monotonic(), os.getloadavg()[0]
    cores = Cores.of_this_machine()
    os.sched_setaffinity(0, cores.others)
    try:
        found = _run(names, effort=effort, quota_effort=quota_effort if QUOTAS in only else None, cores=cores)
    except BenchmarkFailed as error:
        tell(f"the benchmark failed: {error}")
        return 1
    machine = report.facts(load_average=load_average, cores_apart=cores.measured != cores.others)
    text = report.markdown(found, machine=machine, effort=effort)
    print(text)
    _write(options.markdown, text)
    _write(options.output, json.dumps(report.document(found, machine=machine, effort=effort), indent=1) + "\n")
    tell(f"took {time.monotonic() - begin:.0f} s")
    return 0


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
