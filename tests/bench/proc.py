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


def waited_seconds(process_id: int) -> float:
    """Time for which the first thread of a process could have run, and others had its CPU."""
    return int(Path(f"/proc/{process_id}/schedstat").read_text().split()[1]) / 1e9


def resident_bytes(process_id: int) -> int:
    """Resident set size."""
    return int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * _PAGE_SIZE


def machine_busy_seconds() -> float:
    """CPU time that all programs of the machine have used since it started, and what a hypervisor took away."""
    user, nice, system, _idle, _wait, interrupt, soft_interrupt, steal = (
        int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    )
    return (user + nice + system + interrupt + soft_interrupt + steal) / _TICKS_PER_SECOND
