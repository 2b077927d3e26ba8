"""The shared Redis (or Valkey), behind an interface of our own: a few verbs and one kind of failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Literal, Protocol

Reason = Literal[
    "timeout",
    "connection",
    "readonly",
    "loading",
    "out_of_memory",
    "authentication",
    "cluster",
    "script",
    "protocol",
    "overloaded",
]
"""Why the store cannot be used: a closed set, fit for a metric's label."""


class StoreUnavailable(Exception):
    """The store did not answer in time, refused, or is known to be away. The message names no address.

    `maybe_executed` is False only where the command certainly changed nothing; otherwise its effect is unknown.
    """

    def __init__(self, reason: Reason, *, maybe_executed: bool = True) -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.maybe_executed = maybe_executed


@dataclass(frozen=True)
class Script:
    """A Lua script, sent by its digest, and in full where the server does not know it."""

    name: str
    source: str
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha1(self.source.encode(), usedforsecurity=False).hexdigest().encode())


Reply = int | bytes | None | list["Reply"]


class Store(Protocol):
    """Every call ends within the store's time-out, by an answer or by `StoreUnavailable`.

    A cancelled caller never receives another caller's answer, and never disturbs one.
    """

    @property
    def available(self) -> bool:
        """False while the store is known to be away: calls then fail at once, without waiting."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        ...

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of their keys; each server is asked once."""
        ...

    async def set(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        """Store a value that expires."""
        ...

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Reply:
        """Run a script; all its keys must hash to one Cluster slot."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class SharedStore(Store, Protocol):
    """A `Store` with the ends that its owner holds."""

    @property
    def reason(self) -> Reason | None:
        """Why the store, or a part of it, is away; None while all of it is there."""
        ...

    async def connect(self) -> bool:
        """Make the first connection and tell whether it stands. Never raises: it goes on trying in the background."""
        ...
