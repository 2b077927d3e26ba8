"""What every suite shares: what a test needs of its machine, and what happens where that is missing.

On a developer's machine such a test is skipped and says why. Under `--require-all` (set in CI through
`make test REQUIRE_ALL=1`) every skip is a failure, whoever asked for it: nothing is left out silently.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

import pytest
from hypothesis import settings

# An example's time says how busy the machine is, not whether the code is right.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")

ROOT: Final = Path(__file__).resolve().parent.parent
RECORDINGS_VARIABLE: Final = "LLM_SIDECAR_RECORDINGS"

_FIGURES: Final = pytest.StashKey[list[str]]()
_Report = TypeVar("_Report", pytest.TestReport, pytest.CollectReport)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-all", action="store_true", help="fail, instead of skip, where something is missing")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "needs(*names): skip where something is missing: 'recordings', 'cluster', 'helm', a program on PATH ('git').",
    )


def pytest_sessionstart() -> None:
    # looptime asks for the current loop before each test, also before those without one. Python up to 3.13 makes one
    # then, which nobody closes; once a loop was set, be it None, it raises RuntimeError instead, as looptime expects.
    asyncio.set_event_loop(None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            missing = _missing(name)
            if missing is not None:
                pytest.skip(missing)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # An expected failure is reported as skipped, too, but the test did run.
    return report if hasattr(report, "wasxfail") else _judge(report, item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _judge((yield), collector.config)


@pytest.fixture(scope="session")
def tell_figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line with what a test measured, for the end of the run: what passes is printed nowhere else."""
    return request.config.stash.setdefault(_FIGURES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash.get(_FIGURES, [])
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(figures))


@pytest.fixture(scope="session")
def recordings_directory() -> Path:
    """The folder of recorded provider traffic. Mark the test with `needs("recordings")`."""
    return _recordings_directory()


def _judge(report: _Report, config: pytest.Config) -> _Report:
    if report.skipped and config.getoption("--require-all"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{reason.removeprefix('Skipped: ')} (a failure, because of --require-all)"
    return report


def _missing(name: str) -> str | None:
    if name == "recordings":
        if any(_recordings_directory().glob("*.jsonl")):
            return None
        return f"no recorded traffic found: set {RECORDINGS_VARIABLE} to its folder"
    if name == "cluster":
        return _no_cluster()
    if name == "helm":
        return _no_helm()
    return None if shutil.which(name) else f"`{name}` is not installed"


@cache
def _no_helm() -> str | None:
    from tests.cluster import go, one_node  # noqa: PLC0415 - only where a test needs it

    # Otherwise it is built once, and kept with the test cluster's programs.
    if shutil.which("helm") or go.installed() or one_node.why_not() is None:
        return None
    return "`helm` is not installed, nor Go, with which it could be built"


@cache
def _no_cluster() -> str | None:
    from tests.cluster import providers  # noqa: PLC0415 - only where a test needs it
    from tests.cluster.commands import ClusterUnavailable  # noqa: PLC0415

    try:
        providers.choose()
    except ClusterUnavailable as reason:
        return str(reason)
    return None


def _recordings_directory() -> Path:
    return Path(os.environ.get(RECORDINGS_VARIABLE) or ROOT.parent / "shared" / "recordings")
