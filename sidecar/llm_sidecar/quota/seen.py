"""What this sidecar has seen of the team's counters: enough to notice that the store has lost data, and to mend it.

A server that restarts empty, or a replica that takes over before the last writes reached it, knows less than its
clients. Every script raises the caller's sequence; whoever is told a smaller one than before tells the store what it
has seen (`restore.lua`), and the first who does so names a new incarnation, so that all others do, too.

A sequence for each sidecar would be exact, and grow with every pod that ever was. So they share `SEQUENCES` of them:
two that share one, and of which one begins anew in the moment of the loss, may hide it from the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from zlib import crc32

from llm_sidecar.store import Reply

SEQUENCES: Final = 256
_KEPT_FIELDS: Final = 256


class SeenCounters:
    """The newest of what the store has told."""

    def __init__(self, sidecar: str) -> None:
        self.sequence_field = f"#sequence|{crc32(sidecar.encode()) % SEQUENCES}"
        self.sequence = 0
        self.incarnation = ""
        self._fields: dict[str, int] = {}

    def take(self, sequence: Reply, incarnation: Reply) -> None:
        """The head of an answer. Answers may come in any order."""
        if isinstance(sequence, bytes) and isinstance(incarnation, bytes):
            self.sequence = max(self.sequence, int(sequence))
            if incarnation and not self.incarnation:
                self.incarnation = incarnation.decode()

    def used(self, counter: str, amount: int) -> None:
        """What one counter has used."""
        self._keep(f"{counter}|used", amount)

    def credit(self, counter: str, amount: int) -> None:
        """What was added to its room by hand."""
        if amount:
            self._keep(f"{counter}|credit", amount)

    def _keep(self, field: str, amount: int) -> None:
        """Of one that is not told again, the window is over."""
        self._fields.pop(field, None)
        self._fields[field] = amount
        if len(self._fields) > _KEPT_FIELDS:
            del self._fields[next(iter(self._fields))]

    def settled(self, reply: Reply) -> None:
        """The answer of `settle.lua`."""
        match reply:
            case [sequence, incarnation, *counters]:
                self.take(sequence, incarnation)
                for counter, amount in zip(counters[::2], counters[1::2], strict=True):
                    if isinstance(counter, bytes) and isinstance(amount, bytes):
                        self.used(counter.decode(), int(amount))
            case _:
                pass

    def restoring(self, new_incarnation: str) -> Sequence[str | int]:
        """Arguments for `restore.lua`."""
        told: list[str | int] = [self.incarnation, new_incarnation, self.sequence_field, self.sequence]
        for field, amount in self._fields.items():
            told += (field, amount)
        return told

    def restored(self, reply: Reply) -> None:
        """The answer of `restore.lua`: what was seen before is no measure any more."""
        match reply:
            case [bytes(sequence), bytes(incarnation)]:
                self.sequence, self.incarnation = int(sequence), incarnation.decode()
            case _:
                pass
