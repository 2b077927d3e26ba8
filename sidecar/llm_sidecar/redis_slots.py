"""Which node of a Cluster has which key: the hash of keys, and the map that a node tells."""

from __future__ import annotations

from binascii import crc_hqx
from collections import Counter
from collections.abc import Sequence
from typing import Final

from llm_sidecar.contract.keys import PREFIX
from llm_sidecar.redis_connection import Parsed, ServerError, packed
from llm_sidecar.redis_endpoint import Address
from llm_sidecar.store import StoreUnavailable

SLOTS: Final = 16384
_MOST_GUESSES: Final = 400_000
"""A node with a single slot is met in 16384 guesses on average; this many miss it once in 4·10¹⁰ times."""

SlotMap = list[Address | None]
"""The address of each slot's master; None: nobody has it."""

ASK_MAP: Final = packed("CLUSTER", "SLOTS")
"""Newer servers prefer CLUSTER SHARDS, and all of them know this one."""


def slot_of(key: str) -> int:
    """The slot of a key: of its hash tag, if it has one."""
    raw = key.encode()
    _, opened, rest = raw.partition(b"{")
    if opened:
        tag, closed, _ = rest.partition(b"}")
        if closed and tag:
            raw = tag
    return crc_hqx(raw, 0) % SLOTS


def slot_map(reply: Parsed, *, asked: Address) -> SlotMap:
    """Read the answer to `ASK_MAP`. Raises `StoreUnavailable`.

    A node that does not know its own name leaves it out: then it is the one where it was asked.
    """
    owners: SlotMap = [None] * SLOTS
    if isinstance(reply, ServerError):
        raise StoreUnavailable(reply.reason(otherwise="cluster"), maybe_executed=False)
    if not isinstance(reply, list):
        raise StoreUnavailable("cluster", maybe_executed=False)
    for entry in reply:
        match entry:
            case [int(first), int(last), [host, int(port), *_], *_] if 0 <= first <= last < SLOTS and 0 < port < 65536:
                name = host.decode(errors="replace") if isinstance(host, bytes) else ""
                if name != "?":  # it is told to give host names, and has none of that node yet
                    owners[first : last + 1] = [(name or asked[0], port)] * (last - first + 1)
            case _:
                raise StoreUnavailable("protocol", maybe_executed=False)
    if not any(owners):
        raise StoreUnavailable("cluster", maybe_executed=False)
    return owners


def redirected(redirection: str, *, asked: Address) -> tuple[int, Address]:
    """The slot and the address that MOVED and ASK name. Raises `StoreUnavailable`."""
    slot, _, place = redirection.partition(" ")
    host, _, port = place.rpartition(":")
    if not slot.isdigit() or not port.isdigit() or host == "?" or int(slot) >= SLOTS or not 0 < int(port) < 65536:
        raise StoreUnavailable("cluster", maybe_executed=False)
    return int(slot), (host or asked[0], int(port))


def nodes_of(owners: SlotMap) -> dict[Address, int]:
    """Each master, and how many slots it has."""
    return Counter(owner for owner in owners if owner is not None)


def probe_for(address: Address, owners: Sequence[Address | None]) -> bytes:
    """A write of nothing to one of this node's own slots, by which it shows that it takes writes."""
    for guess in range(_MOST_GUESSES):
        if owners[crc_hqx(b"%d" % guess, 0) % SLOTS] == address:
            return packed("SET", f"{PREFIX}:{{{guess}}}:probe", "1", "PX", 1000)
    return packed("SET", f"{PREFIX}:probe", "1", "PX", 1000)
