"""Looks for what comes on standard input in every file and every process that a container can read."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path


def places() -> Iterator[Path]:
    """All regular files but the kernel's, and the environment of every process."""
    for folder, folders, names in os.walk("/"):
        if folder == "/":
            folders[:] = [name for name in folders if name not in {"proc", "sys"}]
        yield from (Path(folder) / name for name in names)
    for process in Path("/proc").glob("[0-9]*"):
        yield from (process / "environ", process / "cmdline")


def holds(path: Path, text: bytes) -> bool:
    """Whether the file can be read and holds the text."""
    try:
        return (path.is_file() or path.parts[1] == "proc") and text in path.read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    wanted = sys.stdin.read().strip().encode()
    print("\n".join(str(path) for path in places() if holds(path, wanted)))
