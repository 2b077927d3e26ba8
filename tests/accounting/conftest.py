"""How long the check's storms last: bounded in CI, as long as you like elsewhere."""

from __future__ import annotations

import pytest

from tests.accounting.settings import Plan


def pytest_addoption(parser: pytest.Parser) -> None:
    plan = Plan()
    parser.addoption(
        "--accounting-seconds",
        type=float,
        default=plan.seconds,
        metavar="N",
        help="length of each of the two storms of tests/accounting, in seconds (default: %(default)s)",
    )
    parser.addoption(
        "--accounting-seed", type=int, default=plan.seed, metavar="N", help="of what is drawn (default: %(default)s)"
    )
