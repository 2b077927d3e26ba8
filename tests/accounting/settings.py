"""What one course of the accounting check is: how large, how long, and what goes wrong in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

FAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "kill": "kill -9 of a sidecar, which is started again",
        "pause": "the store stands still (SIGSTOP), for longer than a call may take",
        "restart": "kill -9 of the store, which starts again with its data",
        "cut-reply": "connections to the store are cut after a command was executed, before its reply",
        "cut-frame": "connections to the store are cut within a command or within a reply",
        "partition": "one sidecar's connection to the store stands still",
        "wipe": "kill -9 of the store, which starts again empty",
        "failover": "a replica that lags takes over from the store, which refuses writes from then on or is gone",
        "skew": "the clocks of some sidecars are five minutes fast or slow",
        "provider": "providers answer 429, 500 and 503, cut streams, stall, and tell no usage",
        "hang-up": "clients hang up while they wait and in the middle of streams",
    }
)
LOSING: Final = frozenset({"wipe", "failover"})
"""After these, the store knows less than was settled."""
LASTING: Final = frozenset({"skew", "provider", "hang-up"})
"""These are there all the time; the others are drawn, one after the other."""

LEASE_SECONDS: Final = 4.0
MINUTE_SECONDS: Final = 5
"""In the sidecars of this check a minute has five seconds, and an hour fifteen: windows roll over again and again."""
HOUR_SECONDS: Final = 3 * MINUTE_SECONDS
SKEW_SECONDS: Final = 300


class UnknownFault(ValueError):
    """A name that is not among `FAULTS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One course. Equal plans draw equal requests and equal faults; their interleaving is the machine's."""

    seed: int = 5
    seconds: float = 12.0
    """Of the storm; its beginning and end take some twelve seconds more."""
    sidecars: int = 6
    clients: int = 24
    faults: frozenset[str] = frozenset(FAULTS)

    def __post_init__(self) -> None:
        if unknown := self.faults - FAULTS.keys():
            raise UnknownFault(f"unknown faults: {', '.join(sorted(unknown))}; known are {', '.join(FAULTS)}")

    @property
    def loses_data(self) -> bool:
        """True where the store may forget what was settled."""
        return bool(self.faults & LOSING)
