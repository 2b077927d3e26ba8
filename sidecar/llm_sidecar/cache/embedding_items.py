"""Vectors in the shared store, each by itself, so that a batch has to ask a provider only for those that are new.

As with whole answers, an entry names the team, the digest and the epochs that it belongs to; whatever does not read
exactly like that is a miss, and a store that is away makes misses.
"""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm_sidecar.cache.entries import past_time, whole_number
from llm_sidecar.cache.look_ups import LookUps
from llm_sidecar.cache.vectors import is_vector, pack, unpack
from llm_sidecar.contract import keys
from llm_sidecar.store import Script, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm_sidecar.store import Reply, Store

ITEM_VERSION: Final = 1
AT_ONCE: Final = 256
"""Items that are looked up in one step: of the usual size they come to two megabytes, which a store within reach sends
well within its time-out."""
FIND_ITEMS: Final = Script(
    name="find_items", source=(files("llm_sidecar.cache") / "lua" / "find_items.lua").read_text(encoding="utf-8")
)

Epochs = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One vector."""

    vector: bytes
    """As JSON."""
    model: str
    """As its answer named it."""
    tokens: int
    """What it cost: its share, by size, of what its batch cost."""
    asked_at: float
    """Unix seconds: its age counts from here."""


@dataclass(frozen=True, slots=True)
class NewItem:
    """One vector as a provider gave it."""

    vector: Any
    model: str
    tokens: int


@dataclass(frozen=True, slots=True)
class FoundItems:
    """What a look-up told."""

    items: Mapping[str, Item]
    """By digest."""
    epochs: Epochs | None
    """To store under. None: nothing is known, and nothing can be stored."""
    not_before: float = 0.0
    """What was asked for before that, a purge has reached."""


class ItemCache:
    """One team's vectors."""

    def __init__(self, store: Store, team: str, *, look_ups: LookUps | None = None) -> None:
        self._store = store
        self._look_ups = look_ups or LookUps(store)
        self._team = team

    async def find(self, digests: Sequence[str], *, provider: str, model: str, asked_since: float) -> FoundItems:
        """Those of one model of a provider (`NAMESPACE/NAME`) that were asked for since a time, in Unix seconds.

        Without any digest it tells what to store under.
        """
        fields = (
            keys.CACHE_NOT_BEFORE,
            keys.CACHE_EPOCH_OF_TEAM,
            keys.cache_epoch_of_provider(provider),
            keys.cache_epoch_of_model(provider, model),
        )
        found: dict[str, Item] = {}
        epochs: Epochs | None = None
        not_before = 0
        for start in range(0, max(1, len(digests)), AT_ONCE):
            some = digests[start : start + AT_ONCE]
            entry_keys = [keys.cache_entry(self._team, digest) for digest in some]
            try:
                reply = await self._look_ups.run(FIND_ITEMS, [keys.cache_epochs(self._team), *entry_keys], fields)
            except StoreUnavailable:
                return FoundItems(found, None)
            read = _read(reply, len(some), len(fields))
            if read is None:
                return FoundItems(found, None)
            entries, (not_before, *numbers) = read
            if epochs not in (None, tuple(numbers)):  # purged in between
                return FoundItems({}, None)
            epochs = tuple(numbers)
            oldest = max(asked_since, not_before)
            for digest, entry in zip(some, entries, strict=True):
                item = None if entry is None else self._decoded(digest, epochs, oldest, entry)
                if item is not None:
                    found[digest] = item
        return FoundItems(found, epochs, not_before)

    async def keep(self, items: Mapping[str, NewItem], *, epochs: Epochs, asked_at: float, ttl_seconds: int) -> bool:
        """Store vectors under the epochs that their request saw, in one write; False where the store is away."""
        writes = [
            self._store.set(
                keys.cache_entry(self._team, digest),
                self._encoded(digest, item, epochs, asked_at),
                ttl_seconds=ttl_seconds,
            )
            for digest, item in items.items()
            if is_vector(item.vector)  # there are servers that say null where they have no number
        ]
        results = await asyncio.gather(*writes, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, StoreUnavailable):
                raise result
        if any(isinstance(result, StoreUnavailable) for result in results):
            return False
        self._look_ups.heard()
        return True

    def _encoded(self, digest: str, item: NewItem, epochs: Epochs, asked_at: float) -> bytes:
        kind, packed = pack(item.vector)
        head = {
            "item": ITEM_VERSION,
            "team": self._team,
            "digest": digest,
            "epochs": epochs,
            "asked_at": asked_at,
            "model": item.model,
            "tokens": item.tokens,
            "kind": kind,
            "crc32": zlib.crc32(packed),
        }
        return orjson.dumps(head) + b"\n" + packed

    def _decoded(self, digest: str, epochs: Epochs, oldest: float, entry: bytes) -> Item | None:
        head_bytes, _, packed = entry.partition(b"\n")
        try:
            head = orjson.loads(head_bytes)
            if (head["item"], head["team"], head["digest"]) != (ITEM_VERSION, self._team, digest):
                return None
            if tuple(head["epochs"]) != epochs or head["crc32"] != zlib.crc32(packed):
                return None
            model, asked_at = head["model"], past_time(head["asked_at"])
            if asked_at < oldest or not isinstance(model, str):
                return None
            vector = unpack(head["kind"], packed)
            # It becomes a part of an answer as it is: it must be JSON, and a vector, with a number in each place.
            if head["kind"] == "json":
                is_one = is_vector(orjson.loads(vector))
            else:
                is_one = len(packed) > 0 and b"null" not in vector
            return Item(vector, model, whole_number(head["tokens"]), asked_at) if is_one else None
        except (ValueError, TypeError, KeyError):
            return None


def _read(reply: Reply, entries: int, fields: int) -> tuple[list[bytes | None], list[int]] | None:
    match reply:
        case [list(values), list(numbers)]:
            found = [one for one in values if one is None or isinstance(one, bytes)]
            told = [one for one in numbers if not isinstance(one, list)]
        case _:
            return None
    if (len(found), len(told)) != (entries, fields):
        return None
    try:
        return found, [0 if one is None else int(one) for one in told]
    except ValueError:  # somebody wrote a field by hand: nobody knows what holds
        return None
