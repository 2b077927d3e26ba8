"""Look-ups at a store, none of which waits while it is slow: a time-out for each would cost more than a miss."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from llm_sidecar.store import StoreUnavailable

if TYPE_CHECKING:
    from llm_sidecar.store import Reply, Script, Store

TRY_AGAIN_SECONDS: Final = 0.25
"""While the store is slow, it is asked no more often than that whether it still is; no request waits for that."""


class LookUps:
    """Runs scripts that only read. What was under way waits for one time-out; after it nobody does, until the store
    was heard of again.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_slow = False
        self._trying: asyncio.Task[None] | None = None

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> Reply:
        """Its answer. Raises `StoreUnavailable`, while the store is slow at once."""
        if self._is_slow:
            raise StoreUnavailable("timeout", maybe_executed=False)
        try:
            return await self._store.run(script, keys, arguments)
        except StoreUnavailable as unavailable:
            if unavailable.reason == "timeout":
                self._is_slow = True
                if self._trying is None:
                    again = self._try_again(script, keys, arguments)
                    self._trying = asyncio.get_running_loop().create_task(again, name="cache look-up")
            raise

    def heard(self) -> None:
        """The store has answered something else in time."""
        self._is_slow = False

    async def _try_again(self, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> None:
        """One that is known to be away needs no trying: it fails at once, and tells itself when it is back."""
        try:
            while self._is_slow and self._store.available:
                await asyncio.sleep(TRY_AGAIN_SECONDS)
                with suppress(StoreUnavailable):
                    await self._store.run(script, keys, arguments)
                    return
        finally:
            self._is_slow = False
            self._trying = None
