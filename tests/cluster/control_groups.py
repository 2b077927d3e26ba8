"""The kernel's groups below which all containers of the cluster run, so that none is overlooked at the end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.cluster.commands import ClusterError
from tests.cluster.places import CGROUP, CONTAINERD_SOCKET

_POLL_SECONDS: Final = 0.05
_END_SECONDS: Final = 10.0


def make() -> None:
    """One group in each hierarchy; the kubelet refuses to start below one that is not there."""
    for kind, root in _hierarchies():
        if kind == "cgroup2" and (root / "cgroup.controllers").read_text(encoding="utf-8").strip():
            controllers = (root / "cgroup.controllers").read_text(encoding="utf-8").split()
            (root / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers), encoding="utf-8")
        (root / CGROUP).mkdir(exist_ok=True)


def end_everything() -> None:
    """Kill what runs in the groups, and the runtime's keepers of those containers; then remove the groups."""
    deadline = time.monotonic() + _END_SECONDS
    while ids := {*_processes(), *_keepers()}:
        if time.monotonic() > deadline:
            raise ClusterError(f"processes of pods do not end: {sorted(ids)}")
        for process_id in ids:
            _kill(process_id)
        time.sleep(_POLL_SECONDS)
    for _, root in _hierarchies():
        for folder, _, _ in os.walk(root / CGROUP, topdown=False):
            Path(folder).rmdir()


def _hierarchies() -> Iterator[tuple[str, Path]]:
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, point, kind, *_ = line.split(" ")
        if kind in {"cgroup", "cgroup2"}:
            yield kind, Path(point)


def _processes() -> Iterator[int]:
    for _, root in _hierarchies():
        # `rglob` would raise where a group goes away while it is being listed; `walk` passes over it.
        for folder, _, _ in os.walk(root / CGROUP):
            try:
                yield from map(int, (Path(folder) / "cgroup.procs").read_text(encoding="utf-8").split())
            except OSError:  # the group went away meanwhile
                continue


def _keepers() -> Iterator[int]:
    """The shims of containerd, which outlive it. Ours are told by the socket on their command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "containerd-shim" in words[0] and str(CONTAINERD_SOCKET) in words:
            yield int(path.parent.name)


def _kill(process_id: int) -> None:
    try:
        os.kill(process_id, signal.SIGKILL)
    except ProcessLookupError:
        return
