"""How long each slow part of having a cluster took: told at the end of a run, so that a slow one is seen to be so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

TOLD_FROM_SECONDS: Final = 0.05
"""What takes less was only looked for."""

_seconds: Final[dict[str, float]] = {}


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Whatever happens within counts for this name, also where it fails."""
    began = time.monotonic()
    try:
        yield
    finally:
        _seconds[name] = _seconds.get(name, 0.0) + time.monotonic() - began


def untold() -> str:
    """The stages of this process with their seconds, in the order of their ends. Each is told once."""
    slow = [f"{name} {seconds:.1f} s" for name, seconds in _seconds.items() if seconds >= TOLD_FROM_SECONDS]
    _seconds.clear()
    return ", ".join(slow)
