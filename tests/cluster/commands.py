"""Other programs, run to their end, with a failure that shows what they said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

LINES_SHOWN: Final = 25
"""Of a failed program's output: enough for the cause, which compilers and servers tell last."""


class ClusterError(Exception):
    """The cluster could not be made, or something asked of it failed."""


class ClusterUnavailable(ClusterError):
    """This machine cannot have a test cluster; the message says what is missing. Tests that need it are skipped."""


class CommandFailed(ClusterError):
    """A program ended with an error; the message holds the last lines that it wrote."""

    def __init__(self, command: Sequence[str | Path], *, status: int, output: str) -> None:
        self.status = status
        self.output = output
        super().__init__(f"`{' '.join(map(str, command))}` ended with exit code {status}:\n{last_lines(output)}")


def last_lines(text: str, *, count: int = LINES_SHOWN) -> str:
    """The end of a log or of a program's output."""
    return "\n".join(text.rstrip().splitlines()[-count:])


def run(
    *command: str | Path,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    timeout_seconds: float | None = None,
) -> str:
    """Run a program; returns its standard output. Raises `CommandFailed` with what it said otherwise."""
    try:
        finished = subprocess.run(
            [str(word) for word in command],
            input=stdin,
            env={**os.environ, **(environment or {})},
            cwd=directory,
            timeout=timeout_seconds,
            check=False,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired as error:
        said = b"".join(part for part in (error.stdout, error.stderr) if part).decode(errors="replace")
        raise CommandFailed(command, status=-1, output=f"{said}\nnot finished after {timeout_seconds} s") from None
    if finished.returncode != 0:
        raise CommandFailed(command, status=finished.returncode, output=finished.stdout + finished.stderr)
    return finished.stdout


def succeeds(*command: str | Path, timeout_seconds: float = 10) -> bool:
    """Whether a program exists and ends with success, within this time."""
    try:
        run(*command, timeout_seconds=timeout_seconds)
    except (CommandFailed, OSError):
        return False
    return True
