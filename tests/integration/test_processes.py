"""The harness itself: a server that ends badly must fail the test that started it."""

from __future__ import annotations

import sys

import pytest

from tests.integration.processes import reserved_ports, start_process

WAIT_FOR_TERM = "import signal, sys; signal.sigwait({signal.SIGTERM})"
BLOCK_TERM = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); print('up', flush=True); "


@pytest.mark.parametrize(
    ("program", "complaint"),
    [("sys.exit(3)", "ended with code 3"), ("print('Traceback (most recent call last):', file=sys.stderr)", "defect")],
)
def test_a_server_that_ends_badly_fails_its_test(program: str, complaint: str) -> None:
    server = start_process((sys.executable, "-c", f"{BLOCK_TERM}{WAIT_FOR_TERM}; {program}"), {})
    server.stdout.wait_for(lambda line: line == "up")

    with pytest.raises(AssertionError, match=complaint):
        server.stop()


def test_a_server_that_leaves_with_zero_and_without_complaint_passes() -> None:
    server = start_process((sys.executable, "-c", BLOCK_TERM + WAIT_FOR_TERM), {})
    server.stdout.wait_for(lambda line: line == "up")

    server.stop()


def test_a_line_that_never_comes_fails_with_those_that_came() -> None:
    server = start_process((sys.executable, "-c", "print('something else')"), {})

    with pytest.raises(AssertionError, match="something else"):
        server.stdout.wait_for(lambda line: line == "up")
    server.stop()


def test_reserved_ports_are_never_handed_out_twice_at_once() -> None:
    with reserved_ports(20) as first, reserved_ports(20) as second:
        assert len({*first, *second}) == 40
