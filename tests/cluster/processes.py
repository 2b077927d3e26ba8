"""The cluster's servers as processes that outlive the command which started them.

Each leaves a file with its id, and with the moment at which the kernel started it: an id alone may have been given to
somebody else's process since, and only ours are ever ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.commands import ClusterError, last_lines
from tests.cluster.places import LOGS, STATE

POLL_SECONDS: Final = 0.05
END_SECONDS: Final = 10.0
"""For a server to end by itself before it is killed."""

_FOLDER: Final = STATE / "processes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One of the cluster's processes, by the name of its component."""

    name: str
    pid: int
    started_ticks: int
    """In clock ticks since the machine's boot, as the kernel tells it."""

    @property
    def log(self) -> Path:
        """What it writes."""
        return log_of(self.name)

    def is_running(self) -> bool:
        """Whether the process is there, and is the one that was started."""
        return _started_ticks(self.pid) == self.started_ticks


def log_of(name: str) -> Path:
    """Where a component's output goes."""
    return LOGS / f"{name}.log"


def start(name: str, command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> Server:
    """Start a component in a session of its own, so that the terminal's Ctrl-C does not reach it."""
    LOGS.mkdir(parents=True, exist_ok=True)
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with log_of(name).open("ab") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(environment or {})},
            cwd=STATE,
            start_new_session=True,
        )
    # Not waited for: it is to outlive this program. Where it does not, `Popen` need not warn about that.
    process.returncode = 0
    server = Server(name=name, pid=process.pid, started_ticks=_started_ticks(process.pid) or 0)
    record = {"pid": server.pid, "started_ticks": server.started_ticks}
    (_FOLDER / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    return server


def known() -> tuple[Server, ...]:
    """Every component that was started and not ended by `end`, running or not."""
    return tuple(
        Server(name=path.stem, **json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(_FOLDER.glob("*.json"))
    )


def wait_until(ready: Callable[[], bool], *, server: Server, seconds: float) -> None:
    """Poll until a component is ready. Its log's end is in the message where it ends before, or takes too long."""
    deadline = time.monotonic() + seconds
    while not ready():
        check_running(server)
        if time.monotonic() > deadline:
            raise ClusterError(f"{server.name} was not ready after {seconds:.0f} s. {_log_end(server)}")
        time.sleep(POLL_SECONDS)


def check_running(server: Server) -> None:
    """Raise, with the end of its log, where a component is not running."""
    if not server.is_running():
        raise ClusterError(f"{server.name} has ended. {_log_end(server)}")


def end(server: Server) -> None:
    """End a component: politely, then by force. One that is gone, or was replaced by another process, is left alone."""
    if server.is_running():
        os.kill(server.pid, signal.SIGTERM)
        if not _wait_for_end(server, seconds=END_SECONDS):
            os.kill(server.pid, signal.SIGKILL)
            _wait_for_end(server, seconds=END_SECONDS)
    (_FOLDER / f"{server.name}.json").unlink(missing_ok=True)


def _log_end(server: Server) -> str:
    text = server.log.read_text(encoding="utf-8", errors="replace") if server.log.exists() else ""
    return f"The end of {server.log}:\n{last_lines(text)}"


def _wait_for_end(server: Server, *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while server.is_running():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _started_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in parentheses, which may hold anything: count from behind it.
    fields = stat.rpartition(")")[2].split()
    state, started = fields[0], int(fields[19])
    if state in "ZX":
        _reap(pid)
        return None
    return started


def _reap(pid: int) -> None:
    """Take leave of a child of ours that ended; other people's children are theirs."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
