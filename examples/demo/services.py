"""The programs that the demo starts: the simulator, and `llm-sidecar run` with its embedded Valkey.

Both take free ports and tell which, so nothing that runs already is in the way. Both get a session of their own: Ctrl-C
reaches the demo alone, which then ends them in order.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Found = TypeVar("Found")

START_SECONDS = 20.0
STOP_SECONDS = 10.0
RELOAD_SECONDS = 10.0
POLL_SECONDS = 0.02
MANIFESTS = Path(__file__).with_name("manifests")
SIMULATOR_ADDRESS = "http://127.0.0.1:9900"
"""As the manifests name it: the simulator's usual port."""
PROVIDER_KEY = "demo-provider-key"


class DemoFailed(Exception):
    """Something did not happen as it should. The message says what."""


class Program:
    """One started program, its output in files."""

    def __init__(self, name: str, arguments: list[str], folder: Path) -> None:
        self.name = name
        self.output = folder / f"{name}.out"
        self.errors = folder / f"{name}.err"
        with self.output.open("wb") as output, self.errors.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own program and arguments
                [sys.executable, "-m", "llm_sidecar", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    def wait_for(self, pattern: str, file: Path) -> re.Match[str]:
        """The first match in one of its files, as soon as it is there."""
        return wait_until(lambda: self._look(pattern, file), START_SECONDS, f"{self.name} did not start in time")

    def _look(self, pattern: str, file: Path) -> re.Match[str] | None:
        ended = self._process.poll() is not None
        found = re.search(pattern, file.read_text(encoding="utf-8"))
        if found is None and ended:
            told = self.errors.read_text(encoding="utf-8").strip() or "it said nothing"
            raise DemoFailed(f"{self.name} ended with code {self._process.returncode}: {told}")
        return found

    def stop(self) -> int:
        """End it in order, and return its exit code."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What runs, and how to reach it."""

    simulator_url: str
    admin_url: str
    environment: dict[str, str]
    """The export lines that `llm-sidecar run` printed."""
    manifests: Path
    audit_log: Path

    def audit_line(self, request_id: str) -> dict[str, Any]:
        """What the proxy wrote about one request, as soon as it is there."""
        return wait_until(lambda: self._find_line(request_id), START_SECONDS, f"no audit line of request {request_id}")

    def _find_line(self, request_id: str) -> dict[str, Any] | None:
        for line in self.audit_log.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n") and request_id.encode() in line:
                parsed = json.loads(line)
                if parsed["request_id"] == request_id:
                    return dict(parsed)
        return None

    def metrics(self) -> str:
        """The text of `/metrics`."""
        return _get(f"{self.admin_url}/metrics").decode()

    def config_hash(self) -> str:
        """Of the configuration in use."""
        return str(json.loads(_get(f"{self.admin_url}/readyz"))["config"]["hash"])

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a manifest, and wait until the proxy uses it."""
        path, before = self.manifests / name, self.config_hash()
        path.write_text(_replaced(path.read_text(encoding="utf-8"), old, new), encoding="utf-8")
        wait_until(lambda: self.config_hash() != before or None, RELOAD_SECONDS, f"the change of {name} was not taken")


@contextmanager
def running_services() -> Iterator[Services]:
    """Start all, and end all. Raises `DemoFailed` where one does not start, or does not end in order."""
    folder = Path(tempfile.mkdtemp(prefix="llm-sidecar-demo-"))
    programs: list[Program] = []
    try:
        yield _start(folder, programs)
    except BaseException:
        _end(programs)
        raise
    else:
        codes = _end(programs)
        if any(codes.values()):
            told = ", ".join(f"{name} {code}" for name, code in codes.items())
            raise DemoFailed(f"a program did not end in order (exit codes: {told})")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end(programs: list[Program]) -> dict[str, int]:
    """End them in order, last started first, whatever keys are pressed meanwhile. Returns their exit codes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return {program.name: program.stop() for program in reversed(programs)}


def _start(folder: Path, programs: list[Program]) -> Services:
    simulator = Program("simulator", ["simulate", "--port", "0", "--require-key", PROVIDER_KEY], folder)
    programs.append(simulator)
    simulator_url = simulator.wait_for(r"ANTHROPIC_BASE_URL=(\S+)\n", simulator.output)[1]
    manifests = folder / "manifests"
    manifests.mkdir()
    for source in MANIFESTS.glob("*.yaml"):
        text = source.read_text(encoding="utf-8").replace(SIMULATOR_ADDRESS, simulator_url)
        (manifests / source.name).write_text(text, encoding="utf-8")
    proxy = Program("proxy", ["run", "-f", str(manifests), "--port", "0", "--admin-port", "0"], folder)
    programs.append(proxy)
    proxy.wait_for(r"export GOOGLE_GEMINI_BASE_URL=.*\n", proxy.errors)
    announced = proxy.errors.read_text(encoding="utf-8")
    admin_port = proxy.wait_for(r"metrics and health on port (\d+)", proxy.errors)[1]
    return Services(
        simulator_url=simulator_url,
        admin_url=f"http://127.0.0.1:{admin_port}",
        environment=dict(re.findall(r"(\w+)=(\S+)", announced)),
        manifests=manifests,
        audit_log=proxy.output,
    )


def application_environment(services: Services) -> None:
    """Make this process look like the shell of an application, whatever keys and proxies its user has set."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "ANTHROPIC_", "GOOGLE_", "GEMINI_")):
            del os.environ[name]
    os.environ.update(services.environment)
    # The three SDKs share one environment here, so Google's finds its key under both of its names, and says so.
    logging.getLogger("google_genai").setLevel(logging.ERROR)
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"


def wait_until(look: Callable[[], Found | None], seconds: float, failure: str) -> Found:
    """What `look` returns, once it is not None. Raises `DemoFailed`."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise DemoFailed(failure)
        time.sleep(POLL_SECONDS)
    return found


def _get(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as response:
        return bytes(response.read())


def _replaced(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise DemoFailed(f"expected {old!r} once in the manifest")
    return text.replace(old, new)
