"""What fails, how often, and in which order: drawn from a seed, so that a storm can be had again."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Final

PACE: Final = "chunk_interval_ms=10"
"""With it the first content has gone on to the application before a stream breaks."""
OVERSIZED: Final = "an oversized frame"
OVERSIZED_BYTES: Final = 17 * 1024 * 1024
OVERSIZED_AT_ONCE: Final = 2
"""The sidecar holds at most 64 MiB for all requests together: more of them would be a test of that bound."""

BEFORE_CONTENT: Final[Mapping[str, str]] = {
    "429 with a hint": "status=429,retry_after_seconds=0.3",
    "429 without a hint": "status=429,retry_after_seconds=none",
    "500": "status=500",
    "503": "status=503",
    "529": "status=529",
    "a page instead of an answer": "garbage=html",
    "silence before the first content": "stall_after=0",
    "a cut before the first content": "cut_after=0",
    "a clean end before the first content": "end_after=0",
    "a malformed frame before the first content": "malformed_after=0",
    "an error event before the first content": "error_after=0",
}
"""Nothing has reached the application yet: another provider can answer each of these."""
AFTER_CONTENT: Final[Mapping[str, str]] = {
    "a cut": f"cut_after=2,{PACE}",
    "a clean end without terminal marker": f"end_after=2,{PACE}",
    "a stall": f"stall_after=2,{PACE}",
    "a malformed frame": f"malformed_after=2,{PACE}",
    "an error event": f"error_after=2,{PACE}",
}
"""Too late for another provider, where the answer is a stream."""
MIXED: Final[Mapping[str, str]] = {**BEFORE_CONTENT, **AFTER_CONTENT}
LARGE: Final[Mapping[str, str]] = {**AFTER_CONTENT, OVERSIZED: f"oversized_frame_bytes={OVERSIZED_BYTES},{PACE}"}
ALL: Final[Mapping[str, str]] = {**MIXED, **LARGE}
HEALTHY: Final = "nothing"


class Schedule:
    """What fails next: `share` of the requests, each by one of `faults`."""

    def __init__(self, faults: Mapping[str, str], *, share: float, seed: int) -> None:
        self._faults = faults
        self._share = share
        self._draw = random.Random(seed)
        self._oversized_under_way = 0
        self.met: Counter[tuple[str, bool]] = Counter()
        """How often each was met, by name and by whether a stream was asked for."""

    def next_fault(self, *, is_stream: bool) -> tuple[str, str]:
        """The name of the next fault and what tells the simulator of it."""
        name = HEALTHY
        if self._draw.random() < self._share:
            name = self._draw.choice([*self._faults])
        if name == OVERSIZED:
            if not is_stream or self._oversized_under_way >= OVERSIZED_AT_ONCE:
                name = "a cut"
            else:
                self._oversized_under_way += 1
        self.met[name, is_stream] += 1
        return name, ALL.get(name, PACE)

    def is_over(self, name: str) -> None:
        """A request that met this fault has ended."""
        if name == OVERSIZED:
            self._oversized_under_way -= 1


def calm() -> Schedule:
    """Nothing fails."""
    return Schedule({}, share=0.0, seed=0)
