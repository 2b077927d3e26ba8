"""The processes of a benchmark run: each on its cores, each ended by its own id, whatever happens."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
READY_SECONDS: Final = 20.0
STOP_SECONDS: Final = 8.0
POLL_SECONDS: Final = 0.005
LOG_TAIL_SIZE: Final = 2000


class BenchmarkFailed(Exception):
    """The run can't give figures that mean anything. The message says what happened and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Who runs where: what is measured has a core of its own where there are two or more."""

    measured: frozenset[int]
    others: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> Cores:
        """Split the cores that this process may use."""
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:
            return cls(measured=frozenset(usable), others=frozenset(usable))
        return cls(measured=frozenset(usable[-1:]), others=frozenset(usable[:-1]))


@dataclass(slots=True, kw_only=True)
class Child:
    """One process that this run started."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def process_id(self) -> int:
        """Its id."""
        return self.process.pid

    def failure(self, what: str) -> BenchmarkFailed:
        """An error that shows the end of what the process had printed."""
        tail = self.log.read_bytes()[-LOG_TAIL_SIZE:].decode(errors="replace").strip()
        return BenchmarkFailed(f"{self.name}: {what}" + (f"\n--- its last output ---\n{tail}" if tail else ""))

    def stop(self) -> None:
        """End it: politely, then surely."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(slots=True, kw_only=True)
class Children:
    """All processes of the run; `stop` ends every one that still lives."""

    directory: Path
    cores: Cores
    running: list[Child] = field(default_factory=list)

    def start(self, name: str, command: Sequence[str], *, measured: bool = False) -> Child:
        """Start a process, its output into a file; what is not measured stays on this process's own cores."""
        log = self.directory / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        child = Child(name=name, process=process, log=log)
        self.running.append(child)
        if measured:
            os.sched_setaffinity(process.pid, self.cores.measured)
        return child

    def stop(self, child: Child) -> None:
        """End one."""
        child.stop()
        self.running.remove(child)

    def stop_all(self) -> None:
        """End all, the last started first."""
        for child in reversed(self.running):
            child.stop()
        self.running.clear()

    def trim_logs(self) -> None:
        """Drop what was printed so far: an audit line per request is much, over a whole run."""
        for child in self.running:
            os.truncate(child.log, 0)


def environment() -> Mapping[str, str]:
    """Ours without proxy variables: everything here stays on loopback. As in an image, modules are compiled once."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and name != "PYTHONDONTWRITEBYTECODE"
    }


def module_command(module: str, *arguments: object) -> list[str]:
    """The command line of another module of this package."""
    return [sys.executable, "-OO", "-m", f"tests.bench.{module}", *map(str, arguments)]


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(child: Child, condition: Callable[[], bool], *, what: str) -> None:
    """Ask again and again until it holds, the process ends or the time is over."""
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        if child.process.poll() is not None:
            raise child.failure(f"ended with status {child.process.returncode} before {what}")
        if time.monotonic() > deadline:
            raise child.failure(f"not {what} within {READY_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def answers_200(port: int, path: str, *, body: bytes | None = None) -> bool:
    """Whether a request gets 200 now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        headers = {"content-type": "application/json"} if body else {}
        connection.request("POST" if body else "GET", path, body=body, headers=headers)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def accepts(port: int) -> bool:
    """Whether somebody listens on a port now."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
