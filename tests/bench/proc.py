"""CPU time and memory of a process, as Linux tells them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_SIZE: Final = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(process_id: int) -> float:
    """User and system time that the process has used, all its threads together (in steps of a clock tick)."""
    # The second field is the program's name in brackets and may hold anything, so fields count from its last bracket.
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def resident_bytes(process_id: int) -> int:
    """Resident set size."""
    return int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * _PAGE_SIZE
