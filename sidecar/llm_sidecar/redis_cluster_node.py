"""One master of a Cluster: how it shows that it works, and how a command goes there ahead of the map."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Unpack

from llm_sidecar.redis_breaker import OnChange
from llm_sidecar.redis_connection import Parsed, RedisConnection, ServerError, packed
from llm_sidecar.redis_endpoint import Address, RedisEndpoint
from llm_sidecar.redis_node import NodeOptions, RedisNode
from llm_sidecar.store import Reason, StoreUnavailable

_ASKING: Final = packed("ASKING")


class ClusterNode(RedisNode):
    """A node with a breaker of its own: where one is away, the keys of all others go on."""

    def __init__(
        self,
        address: Address,
        endpoint: RedisEndpoint,
        *,
        probe: bytes,
        on_lost: Callable[[], None],
        on_change: OnChange,
        **options: Unpack[NodeOptions],
    ) -> None:
        super().__init__(endpoint, on_change=on_change, **options)
        self.address = address
        self.probe = probe
        """A write to a slot that this node has."""
        self._on_lost = on_lost

    @property
    def is_connected(self) -> bool:
        """Whether a command would leave at once."""
        return self._connection is not None

    @property
    def is_proven(self) -> bool:
        """Whether it ever answered."""
        return self._breaker.ever_succeeded

    def worked(self) -> None:
        """Report that the server answered, be it that another should be asked."""
        self._breaker.succeeded()

    async def send_asking(self, command: bytes, *, deadline: float) -> Parsed:
        """Send a command for a slot that is on its way here."""
        if not self.is_connected:
            try:
                async with asyncio.timeout_at(deadline):
                    await self.connect()
            except TimeoutError:
                raise StoreUnavailable("timeout", maybe_executed=False) from None
            if not self.is_connected:
                raise StoreUnavailable(self.reason or "connection", maybe_executed=False)
        # Nothing may come between the two: no await, and only on a connection that stands.
        asking = self.send(_ASKING, deadline=deadline)
        reply = self.send(command, deadline=deadline)
        results = await asyncio.gather(asking, reply)
        return results[1]

    def _proof(self) -> list[bytes]:
        return [self.probe]

    def _check_proof(self, replies: list[Parsed]) -> None:
        # A slot that moved away meanwhile says nothing against the node; the map is asked for again.
        if any(isinstance(reply, ServerError) and reply.redirection for reply in replies):
            self._on_lost()
        else:
            super()._check_proof(replies)

    def _lost(self, connection: RedisConnection, reason: Reason) -> None:
        is_ours = connection is self._connection
        super()._lost(connection, reason)
        if is_ours:
            self._on_lost()
