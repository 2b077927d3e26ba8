"""How long the storms last: bounded in CI, as long as you like elsewhere."""

from __future__ import annotations

import pytest

from tests.chaos.course import SEED, STORM_SECONDS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chaos-seconds",
        type=float,
        default=STORM_SECONDS,
        metavar="N",
        help="length of each of the two storms of tests/chaos, in seconds (default: %(default)s)",
    )
    parser.addoption(
        "--chaos-seed", type=int, default=SEED, metavar="N", help="of their schedule (default: %(default)s)"
    )
