"""Processes under test: how they start, how they are read, and how they must end.

A server that a test starts has to leave by itself: SIGTERM gives exit code 0 within `STOP_SECONDS`, or the test that
started it fails, whatever it was about.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

START_SECONDS: Final = 15.0
STOP_SECONDS: Final = 5.0
LINE_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.01
# Below the range that Linux gives to outgoing connections: no client socket can take a port between our look and use.
PORTS: Final = range(20_000, 32_000)
INHERITED: Final = ("PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
"""What a server gets of our environment: what programs need to run at all, and where their coverage is measured."""
DEFECTS: Final = ("Traceback (most recent call last)", "Warning: ", "was never awaited", "was never retrieved")
"""What no server may ever say on standard error, whatever a test does to it."""


@contextmanager
def reserved_ports(count: int) -> Iterator[tuple[int, ...]]:
    """Ports that nobody listens on, kept from other tests (of other processes, too) until the context ends."""
    with ExitStack() as stack:
        candidates = random.Random(secrets.randbits(64)).sample(PORTS, 200)
        ports: list[int] = []
        while len(ports) < count:
            port = candidates.pop()
            if stack.enter_context(_port_lock(port)) and _is_free(port):
                ports.append(port)
        yield tuple(ports)


@contextmanager
def _port_lock(port: int) -> Iterator[bool]:
    folder = Path(tempfile.gettempdir()) / f"llm-sidecar-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / str(port)).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Lines:
    """The lines that a process writes, gathered by a thread so that the process never waits for its reader."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._stream:
            for line in self._stream:
                with self._changed:
                    self._lines.append(line.decode(errors="replace").rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def all(self) -> list[str]:
        """Every line so far."""
        with self._changed:
            return list(self._lines)

    def wait_for(self, is_wanted: Callable[[str], bool], *, timeout_seconds: float = LINE_SECONDS) -> str:
        """The first line that is wanted, whether it is there already or yet to come."""
        seen = 0
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while True:
                for line in self._lines[seen:]:
                    if is_wanted(line):
                        return line
                seen = len(self._lines)
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    raise AssertionError("the line did not come; the last ones are:\n" + "\n".join(self._lines[-20:]))
                self._changed.wait(left)

    def drain(self) -> list[str]:
        """Every line, once the process has closed its end."""
        self._thread.join(STOP_SECONDS)
        return self.all()


@dataclass(slots=True, kw_only=True)
class ServerProcess:
    """A started server."""

    command: tuple[str, ...]
    process: subprocess.Popen[bytes]
    stdout: Lines
    stderr: Lines

    def output(self) -> str:
        """Both streams, for a failure's message."""
        return "\n".join(
            [" ".join(self.command), "--- stdout", *self.stdout.all()[-60:], "--- stderr", *self.stderr.all()[-60:]]
        )

    def stop(self) -> None:
        """End it as a cluster would, and hold it to its promise. Harmless if a test has already stopped it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"SIGTERM did not end it within {STOP_SECONDS} s:\n{self.output()}") from None
        self.stdout.drain()
        self.stderr.drain()
        if code != 0:
            raise AssertionError(f"it ended with code {code} instead of 0:\n{self.output()}")
        if any(defect in line for line in self.stderr.all() for defect in DEFECTS):
            raise AssertionError(f"it told of a defect of its own:\n{self.output()}")


@dataclass(slots=True, kw_only=True)
class Sidecar(ServerProcess):
    """A running `llm-sidecar run`."""

    base_url: str
    """Without the `/v1` that OpenAI's SDK wants behind it."""
    admin_url: str
    token: str

    def sdk_environment(self) -> dict[str, str]:
        """What the webhook would put into the application's container."""
        return {
            "OPENAI_BASE_URL": f"{self.base_url}/v1",
            "OPENAI_API_KEY": self.token,
            "ANTHROPIC_BASE_URL": self.base_url,
            "ANTHROPIC_API_KEY": self.token,
            "GOOGLE_GEMINI_BASE_URL": self.base_url,
            "GEMINI_API_KEY": self.token,
            "GOOGLE_API_KEY": self.token,
        }

    def audit_line(self, request_id: str) -> dict[str, Any]:
        """The audit line of one request, as soon as it is written."""
        found: dict[str, Any] = json.loads(self.stdout.wait_for(lambda line: f'"request_id":"{request_id}"' in line))
        return found


def start_process(command: Sequence[str], environment: Mapping[str, str]) -> ServerProcess:
    """Start a server with an environment of its own (and what is `INHERITED`)."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # What leaks is told on standard error, where `stop` looks for it.
        env=inherited | {"PYTHONWARNINGS": "default", "PYTHONUNBUFFERED": "1"} | dict(environment),
    )
    if process.stdout is None or process.stderr is None:
        raise AssertionError("both streams were asked for")
    return ServerProcess(
        command=tuple(command), process=process, stdout=Lines(process.stdout), stderr=Lines(process.stderr)
    )


def wait_until_ready(server: ServerProcess, url: str) -> None:
    """Wait for 200 from `url`, or fail with what the server said."""
    deadline = time.monotonic() + START_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    answer = "nothing"
    while time.monotonic() < deadline:
        try:
            with opener.open(url, timeout=2) as response:
                if response.status == 200:
                    return
        except urllib.error.HTTPError as error:
            with error:
                answer = f"{error.code} {error.read(2000)!r}"
        except OSError as error:
            answer = str(error)
        try:
            server.process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        break
    server.process.kill()
    server.process.wait()
    server.stdout.drain()
    server.stderr.drain()
    raise AssertionError(f"it did not become ready (code {server.process.returncode}, {answer}):\n{server.output()}")


@contextmanager
def running_sidecar(
    manifests: Path, *, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[Sidecar]:
    """Run `llm-sidecar run` on the manifests until the context ends; then it must leave with 0."""
    token = secrets.token_urlsafe(24)
    with reserved_ports(2) as (port, admin_port):
        program = str(Path(sys.executable).with_name("llm-sidecar"))
        ports = ("--port", str(port), "--admin-port", str(admin_port))
        command = (program, "run", "-f", str(manifests), *ports, f"--token={token}", *arguments)
        server = start_process(command, environment or {})
        sidecar = Sidecar(
            command=command,
            process=server.process,
            stdout=server.stdout,
            stderr=server.stderr,
            base_url=f"http://127.0.0.1:{port}",
            admin_url=f"http://127.0.0.1:{admin_port}",
            token=token,
        )
        wait_until_ready(sidecar, f"{sidecar.admin_url}/readyz")
        try:
            yield sidecar
        finally:
            sidecar.stop()
