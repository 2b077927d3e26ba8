"""The store on a Redis or Valkey Cluster: each key's command to the master that has its slot."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final, Unpack

from llm_sidecar.contract.redis_url import InvalidStoreURL
from llm_sidecar.redis_breaker import OnChange
from llm_sidecar.redis_cluster_node import ClusterNode
from llm_sidecar.redis_connection import Parsed, ServerError, packed
from llm_sidecar.redis_dial import ask
from llm_sidecar.redis_endpoint import Address, RedisServers
from llm_sidecar.redis_node import NodeOptions
from llm_sidecar.redis_slots import ASK_MAP, SlotMap, nodes_of, probe_for, redirected, slot_map, slot_of
from llm_sidecar.redis_store import values_of
from llm_sidecar.store import Reason, Reply, Script, StoreUnavailable

_MAX_REDIRECTIONS: Final = 5
"""More only where nodes disagree about a slot, and then the time-out is near anyway."""

_REMAP_SECONDS: Final = 0.05
"""Maps are asked for no more often: while slots move, every other answer is a redirection."""

_REFUSED_ALIVE: Final = frozenset({"MOVED", "ASK", "TRYAGAIN", "CROSSSLOT"})
"""Answers of a node that works, about this key alone."""


class ClusterStore:
    """A `Store` over one connection to each master.

    `available` while any of them is: what is known of one node says nothing about the keys of another. `reason` and
    `on_change` tell of the whole: they speak as soon as one master with slots is away.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_bundle: str | None = None,
        on_change: OnChange | None = None,
        **options: Unpack[NodeOptions],
    ) -> None:
        self._servers = RedisServers(url, ca_bundle=ca_bundle)
        if self._servers.url.kind != "cluster":
            raise InvalidStoreURL("the store's URL names no Cluster: begin it with redis+cluster://")
        self._options = options
        self._timeout_seconds = options.get("timeout_seconds", 0.05)
        self._open_seconds = options.get("open_seconds", 1.0)
        self._on_change = on_change
        self._owners: SlotMap | None = None
        self._nodes: dict[Address, ClusterNode] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._map_reason: Reason = "connection"
        self._told: Reason | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def available(self) -> bool:
        """False while the whole Cluster is known to be away."""
        if self._closed:
            return False
        if self._owners is None:
            return self._told is None  # nothing is known yet: calls wait for the first map
        return any(node.available for node in self._nodes.values())

    @property
    def reason(self) -> Reason | None:
        """Why a part of the Cluster is away, or None."""
        return self._told

    async def connect(self) -> bool:
        """Make the first connections and tell whether all stand. Never raises: it goes on trying in the background."""
        self._start()
        await self._first_map.wait()
        stand = await asyncio.gather(*(node.connect() for node in self._nodes.values()))
        return bool(stand) and all(stand)

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        reply = await self._call(slot_of(key), packed("GET", key))
        if reply is None or isinstance(reply, bytes):
            return reply
        raise StoreUnavailable("protocol")

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of their keys; each server is asked once: what one turn sends leaves in one write."""
        by_slot: dict[int, list[str]] = {}
        for key in keys:
            by_slot.setdefault(slot_of(key), []).append(key)
        replies = await asyncio.gather(*(self._call(slot, packed("MGET", *some)) for slot, some in by_slot.items()))
        found: dict[str, bytes | None] = {}
        for some, reply in zip(by_slot.values(), replies, strict=True):
            found.update(zip(some, values_of(reply, len(some)), strict=True))
        return [found[key] for key in keys]

    async def set(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        """Store a value that expires."""
        await self._call(slot_of(key), packed("SET", key, value, "EX", ttl_seconds))

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Reply:
        """Run a script; all its keys must hash to one Cluster slot."""
        slots = {slot_of(key) for key in keys}
        if len(slots) > 1:
            raise StoreUnavailable("cluster", maybe_executed=False)
        slot = slots.pop() if slots else 0
        tail = (len(keys), *keys, *arguments)
        reply, node = await self._send(slot, packed("EVALSHA", script.digest, *tail))
        if isinstance(reply, ServerError) and reply.code == "NOSCRIPT":
            reply, node = await self._send(slot, packed("EVAL", script.source, *tail))
        return self._checked(reply, node, otherwise="script")

    async def close(self) -> None:
        """Close the connections. Pending calls fail."""
        self._closed = True
        tasks = [task for task in (self._keeper, *self._leaving) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._keeper is not None:
            self._first_map.set()
        await asyncio.gather(*(node.close() for node in self._nodes.values()))

    async def _call(self, slot: int, command: bytes) -> Reply:
        reply, node = await self._send(slot, command)
        return self._checked(reply, node, otherwise="protocol")

    async def _send(self, slot: int, command: bytes) -> tuple[Parsed, ClusterNode]:
        deadline = asyncio.get_running_loop().time() + self._timeout_seconds
        owners = self._owners
        if owners is None:
            owners = await self._awaited_map(deadline)
        address = owners[slot]
        if address is None:
            self._want_map()
            raise StoreUnavailable("cluster", maybe_executed=False)
        node = self._node(address)
        reply = await node.send(command, deadline=deadline)
        if isinstance(reply, ServerError) and reply.redirection:
            return await self._follow(reply, node, command, deadline)
        return reply, node

    async def _follow(
        self, reply: ServerError, node: ClusterNode, command: bytes, deadline: float
    ) -> tuple[Parsed, ClusterNode]:
        """Repeat, until the caller's time is over, a command of which a node said that another one has to do it."""
        answer: Parsed = reply
        try:
            async with asyncio.timeout_at(deadline):
                for _ in range(_MAX_REDIRECTIONS):
                    if not (isinstance(answer, ServerError) and answer.redirection):
                        break
                    node.worked()
                    slot, address = redirected(answer.redirection, asked=node.address)
                    node = self._node(address)
                    if answer.code == "ASK":
                        answer = await node.send_asking(command, deadline=deadline)
                    else:
                        self._learn(slot, address)
                        answer = await node.send(command, deadline=deadline)
        except TimeoutError:
            raise StoreUnavailable("timeout") from None
        return answer, node

    def _checked(self, reply: Parsed, node: ClusterNode, *, otherwise: Reason) -> Reply:
        if isinstance(reply, ServerError) and reply.code in _REFUSED_ALIVE:
            node.worked()
            raise StoreUnavailable("cluster", maybe_executed=False)
        return node.checked(reply, otherwise=otherwise)

    def _learn(self, slot: int, address: Address) -> None:
        """A redirection is newer than the map, and tells of one slot; the others are asked for."""
        if self._owners is not None:
            self._owners[slot] = address
        self._want_map()

    def _node(self, address: Address) -> ClusterNode:
        if self._closed:
            raise StoreUnavailable("connection", maybe_executed=False)
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = ClusterNode(
                address,
                self._servers.at(address),
                probe=probe_for(address, self._owners or ()),
                on_lost=self._want_map,
                on_change=self._node_changed,
                **self._options,
            )
        return node

    def _start(self) -> None:
        if self._keeper is None:
            self._first_map = asyncio.Event()
            self._map_wanted = asyncio.Event()
            self._map_wanted.set()
            self._keeper = asyncio.get_running_loop().create_task(self._keep_map(), name="store cluster map")

    def _want_map(self) -> None:
        if self._keeper is not None:
            self._map_wanted.set()

    async def _awaited_map(self, deadline: float) -> SlotMap:
        """The first map. Once it could not be had, calls fail at once."""
        if self._closed:
            raise StoreUnavailable("connection", maybe_executed=False)
        self._start()
        if not self._first_map.is_set():
            try:
                async with asyncio.timeout_at(deadline):
                    await self._first_map.wait()
            except TimeoutError:
                raise StoreUnavailable("timeout", maybe_executed=False) from None
        if self._owners is None:
            raise StoreUnavailable(self._map_reason, maybe_executed=False)
        return self._owners

    async def _keep_map(self) -> None:
        while True:
            await self._map_wanted.wait()
            self._map_wanted.clear()
            try:
                owners = await self._ask_map()
            except StoreUnavailable as unavailable:
                self._map_reason = unavailable.reason
                self._map_wanted.set()
            else:
                self._take(owners)
            self._first_map.set()
            self._tell()
            await asyncio.sleep(self._pause_seconds())
            if self._told is not None:  # a replica may have taken over, which nobody tells
                self._map_wanted.set()

    def _pause_seconds(self) -> float:
        jitter = random.uniform(1.0, 1.25)  # noqa: S311 - spreads a fleet, guards nothing
        return (_REMAP_SECONDS if self._told is None else self._open_seconds) * jitter

    async def _ask_map(self) -> SlotMap:
        """Ask those whom we know, then those of the URL: pods that were all replaced have other addresses."""
        connected = [node for node in self._nodes.values() if node.is_connected]
        random.shuffle(connected)
        for node in connected:
            try:
                return slot_map(await node.send(ASK_MAP), asked=node.address)
            except StoreUnavailable:
                continue
        failure = StoreUnavailable("connection", maybe_executed=False)
        seeds = [*self._servers.url.addresses, *(self._nodes.keys() - set(self._servers.url.addresses))]
        for address in random.sample(seeds, len(seeds)):
            try:
                return slot_map(await ask(self._servers.at(address), ASK_MAP), asked=address)
            except StoreUnavailable as unavailable:
                failure = unavailable
        raise failure

    def _take(self, owners: SlotMap) -> None:
        self._owners = owners
        masters = nodes_of(owners)
        for address in self._nodes.keys() - masters.keys():
            task = asyncio.get_running_loop().create_task(self._retire(self._nodes.pop(address)))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        for address in masters:
            node = self._node(address)
            node.probe = probe_for(address, owners)
            node.begin()

    async def _retire(self, node: ClusterNode) -> None:
        """Close a node that has no slots any more, after the answers to what was sent there."""
        try:
            await asyncio.sleep(self._timeout_seconds)
        finally:
            await node.close()

    def _node_changed(self, _available: bool, _reason: Reason | None) -> None:  # noqa: FBT001 - the node's callback
        self._want_map()
        self._tell()

    def _tell(self) -> None:
        """Tell of the first master that goes away, and that all are back."""
        if self._closed:
            return
        away = [node.reason for node in self._nodes.values() if not node.available]
        reason = self._map_reason if self._owners is None else next(iter(away), None)
        if reason is None and self._told is not None and not all(node.is_proven for node in self._nodes.values()):
            return  # not all back yet: a map names nodes that nobody has reached
        changed = (reason is None) != (self._told is None)
        self._told = reason
        if changed and self._on_change is not None:
            self._on_change(reason is None, reason)
