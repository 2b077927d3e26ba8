"""`llm-sidecar` with another clock: `python -m tests.accounting.sidecar_process --skew-seconds N … -- run -f …`.

The product has no option for any of this, and needs none. It is the same process otherwise: only its clock is wrong
by a constant, its leases and the calendar's minute and hour are short, so that a check of seconds sees them end.
"""

from __future__ import annotations

import argparse
import sys
import time


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.accounting.sidecar_process", description=__doc__)
    parser.add_argument("--skew-seconds", type=int, required=True)
    parser.add_argument("--lease-seconds", type=float, required=True)
    parser.add_argument("--minute-seconds", type=int, required=True)
    parser.add_argument("--hour-seconds", type=int, required=True)
    parser.add_argument("words", nargs="+")
    options = parser.parse_args()
    _shift_clock(options.skew_seconds)
    _shorten(options.lease_seconds, options.minute_seconds, options.hour_seconds)
    # After the clock, or modules would keep the right one.
    from llm_sidecar.__main__ import main as run  # noqa: PLC0415

    sys.argv = ["llm-sidecar", *options.words]
    return run() or 0


def _shift_clock(seconds: int) -> None:
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + seconds
    time.time_ns = lambda: right_ns() + seconds * 1_000_000_000


def _shorten(lease_seconds: float, minute_seconds: int, hour_seconds: int) -> None:
    from llm_sidecar.contract import windows  # noqa: PLC0415
    from llm_sidecar.quota import Quota  # noqa: PLC0415

    defaults = Quota.__init__.__kwdefaults__
    if defaults is None or "lease_seconds" not in defaults:
        raise SystemExit("Quota has no lease_seconds to shorten: adapt tests/accounting/sidecar_process.py")
    defaults["lease_seconds"] = lease_seconds
    windows._SHORT_MS[windows.Per.MINUTE] = minute_seconds * 1000
    windows._SHORT_MS[windows.Per.HOUR] = hour_seconds * 1000


if __name__ == "__main__":
    sys.exit(main())
