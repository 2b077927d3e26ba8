"""How the demo is shown: headings, the commands that anybody could type, and what they print."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import Final, TextIO

WIDTH: Final = 118


class Screen:
    """Writes to a terminal, or to a file; coloured on a terminal only, and not where NO_COLOR is set."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._coloured = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def heading(self, text: str) -> None:
        """What comes next."""
        self._write(f"\n{text}", "1")

    def note(self, text: str) -> None:
        """A sentence about it."""
        self._write(textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  "), "2")

    def command(self, text: str) -> None:
        """What a person would type."""
        self._write(f"$ {text}", "36")

    def output(self, text: str) -> None:
        """What was printed, line by line. Long lines stay: they are tables."""
        self._write(text.rstrip())

    def _write(self, text: str, code: str = "") -> None:
        self._stream.write(f"\033[{code}m{text}\033[0m\n" if self._coloured and code else f"{text}\n")
        self._stream.flush()
