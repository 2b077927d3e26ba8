"""When a change reached a running pod: as a file, and in use by its proxy."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_sidecar.contract.names import SIDECAR_CONTAINER
from tests.e2e import resources
from tests.e2e.applications import Applications

_PROGRAM: Final = (resources.PROGRAMS / "watch_config.py").read_text(encoding="utf-8")
_END_SECONDS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """`what` is `file` or `in use`; `at` is the node's time."""

    what: str
    version: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigWatch:
    """A program inside a proxy's container that looks all the time."""

    applications: Applications
    output: Path

    def changes(self) -> list[Change]:
        """What it has told so far."""
        lines = self.output.read_text(encoding="utf-8").splitlines(keepends=True)
        return [Change(**json.loads(line)) for line in lines if line.endswith("\n")]

    def wait_for(self, what: str, *, since: float) -> float:
        """Seconds from a moment until such a change."""
        found: list[Change] = []

        def is_told() -> bool:
            found[:] = [change for change in self.changes() if change.what == what and change.at > since]
            return bool(found)

        self.applications.cluster.wait_until(is_told, what=f"a changed configuration is seen: {what}")
        return found[0].at - since


@contextmanager
def watching(applications: Applications, pod: str) -> Iterator[ConfigWatch]:
    """Look at a pod's configuration inside this block."""
    cluster = applications.cluster
    command = [
        *(str(cluster.provider.kubectl), f"--kubeconfig={cluster.kubeconfig}", f"--namespace={applications.namespace}"),
        *("exec", "--stdin", pod, f"--container={SIDECAR_CONTAINER}", "--", "python", "-c", _PROGRAM),
    ]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "changes"
        with output.open("wb") as stream, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stream) as process:
            watch = ConfigWatch(applications=applications, output=output)
            try:
                # The first lines tell what is there.
                watch.wait_for("in use", since=0.0)
                watch.wait_for("file", since=0.0)
                yield watch
            finally:
                # The end of its input is what the program waits for.
                process.communicate(timeout=_END_SECONDS)
