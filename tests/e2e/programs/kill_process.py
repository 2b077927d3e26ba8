"""Ends processes of a pod by SIGKILL, as a lack of memory or a failing machine does: nothing can be put in order first.

It runs where it sees the node's processes: inside its own container, the first process never sees the signal.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path


def processes(uid: str, word: str) -> Iterator[int]:
    """Those of the pod whose command line has the word."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            groups, words = (folder / "cgroup").read_text(), (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue  # it has just ended
        # systemd's control groups write the name with underscores.
        if word in words and uid in groups.replace("_", "-"):
            yield int(folder.name)


if __name__ == "__main__":
    for number in processes(*sys.argv[1:]):
        os.kill(number, signal.SIGKILL)
        print(number)
