"""Ends a process of the operator at once and unasked, on any cluster that admits a pod to the node's processes.

It sees those of its own node: on a cluster of several, the operator would have to be on the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.cluster import pods
from tests.e2e import resources
from tests.e2e.release import Release

_NAME: Final = "killer"
_PROGRAM: Final = f"{resources.PROGRAMS_DIRECTORY}/kill_process.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Killer:
    """A pod that sees the node's processes."""

    release: Release

    def kill(self, component: str) -> bool:
        """Kill a component's processes by SIGKILL; False where none runs just now.

        Its pod goes, too: another one starts at once, where the kubelet would wait longer after each such end.
        """
        killed = False
        for pod in self.release.pods(component):
            killed |= self._kill_processes_of(pod, component)
            self._remove(pod)
        return killed

    def _kill_processes_of(self, pod: Any, component: str) -> bool:
        place = f"--namespace={self.release.namespace}"
        command = ("python", _PROGRAM, pod["metadata"]["uid"], component)
        return bool(self.release.cluster.text("exec", place, _NAME, "--", *command).split())

    def _remove(self, pod: Any) -> None:
        self.release.cluster.text(
            *("delete", "pod", pod["metadata"]["name"], f"--namespace={self.release.namespace}"),
            *("--force", "--grace-period=0", "--wait=false", "--ignore-not-found"),
        )


@contextmanager
def killer(release: Release) -> Iterator[Killer]:
    """Goes away afterwards. It may do what no pod of a team may: see and end other pods' processes."""
    program = resources.program(_NAME, image=release.program_image, arguments=["none.py"])
    program["command"] = ["sh", "-c", pods.UNTIL_TOLD]
    program["securityContext"] = {"runAsUser": 0, "capabilities": {"add": ["KILL", "SYS_PTRACE"]}}
    pod = pods.pod(_NAME, resources.specification(program, hostPID=True))
    release.cluster.apply(pod, namespace=release.namespace)
    try:
        release.cluster.wait_for(f"pod/{_NAME}", "condition=Ready", namespace=release.namespace)
        yield Killer(release=release)
    finally:
        release.cluster.text("delete", "pod", _NAME, f"--namespace={release.namespace}", "--wait=false")
