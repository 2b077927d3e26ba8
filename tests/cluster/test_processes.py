"""The harness ends what it started and nothing else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import processes
from tests.cluster.commands import ClusterError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the one-node cluster is for Linux")


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(processes, "STATE", tmp_path)
    monkeypatch.setattr(processes, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(processes, "_FOLDER", tmp_path / "processes")
    yield
    for server in processes.known():
        processes.end(server)


def test_a_server_is_known_to_the_next_command_until_it_is_ended() -> None:
    server = processes.start("one", ["sleep", "60"])

    assert processes.known() == (server,)
    assert server.is_running()
    processes.end(server)
    assert not server.is_running()
    assert processes.known() == ()


def test_a_server_that_ignores_a_polite_request_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "END_SECONDS", 0.2)
    server = processes.start("deaf", ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"])
    processes.wait_until(lambda: server.log.read_text() == "deaf\n", server=server, seconds=5)

    processes.end(server)

    assert not server.is_running()


def test_a_process_that_got_the_number_of_an_ended_server_is_left_alone(tmp_path: Path) -> None:
    """Here it is this test's own: ending it would show."""
    folder = tmp_path / "processes"
    folder.mkdir()
    (folder / "gone.json").write_text(json.dumps({"pid": os.getpid(), "started_ticks": 1}), encoding="utf-8")

    (server,) = processes.known()
    assert not server.is_running()
    processes.end(server)

    assert processes.known() == ()


def test_a_server_that_ends_before_it_is_ready_shows_what_it_said() -> None:
    server = processes.start("broken", ["sh", "-c", "echo the disk is full; exit 1"])

    with pytest.raises(ClusterError, match=r"broken has ended.*\n.*the disk is full"):
        processes.wait_until(lambda: False, server=server, seconds=5)


def test_a_server_that_never_gets_ready_is_not_waited_for_any_longer() -> None:
    server = processes.start("slow", ["sleep", "60"])

    with pytest.raises(ClusterError, match="slow was not ready after 0 s"):
        processes.wait_until(lambda: False, server=server, seconds=0.1)
