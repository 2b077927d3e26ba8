"""Vectors in the store: what reads exactly as it was written is found, all else is a miss."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from typing import Any, cast

import orjson
import pytest

from llm_sidecar.cache.embedding_items import ItemCache, NewItem
from llm_sidecar.cache.vectors import pack
from llm_sidecar.contract import keys
from llm_sidecar.store import Store

TEAM = "ns/team"
VECTOR = [0.25, -1.5]


class Kept:
    """A store of a few entries, and of no purges."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}

    async def set(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        """As `Store.set`."""
        assert ttl_seconds > 0
        self.entries[key] = value

    async def run(self, script: object, names: Sequence[str], arguments: Sequence[str]) -> object:
        """As `find_items.lua`."""
        assert script is not None
        return [[self.entries.get(name) for name in names[1:]], [None] * len(arguments)]


async def written(*vectors: Any, asked_at: float = 1000.5) -> tuple[Kept, ItemCache]:
    store = Kept()
    cache = ItemCache(cast("Store", store), TEAM)
    items = {str(number): NewItem(vector, "model", 7) for number, vector in enumerate(vectors)}
    assert await cache.keep(items, epochs=(0, 0, 0), asked_at=asked_at, ttl_seconds=60)
    return store, cache


async def found(cache: ItemCache) -> tuple[bytes, str, int] | None:
    items = (await cache.find(["0"], provider="p/p", model="m", asked_since=0)).items
    return (items["0"].vector, items["0"].model, items["0"].tokens) if items else None


async def found_since(cache: ItemCache, asked_since: float) -> list[str]:
    found = await cache.find(["0"], provider="p/p", model="m", asked_since=asked_since)
    assert found.epochs == (0, 0, 0)
    return list(found.items)


def poisoned(entry: bytes, packed: bytes | None = None, **changes: Any) -> bytes:
    head, _, before = entry.partition(b"\n")
    body = before if packed is None else packed
    return orjson.dumps({**orjson.loads(head), "crc32": zlib.crc32(body), **changes}) + b"\n" + body


@pytest.mark.parametrize("vector", [VECTOR, [0.1, 0.2], "AACAPgAAwL8=", [1, 2]], ids=["short", "long", "base64", "int"])
async def test_what_is_written_is_read_again(vector: Any) -> None:
    _, cache = await written(vector)

    assert await found(cache) == (orjson.dumps(vector), "model", 7)


@pytest.mark.parametrize(
    "changes",
    [
        *({"tokens": tokens} for tokens in (-50, "x", 1.0, True, None, 2**40)),
        *({"model": model} for model in (None, 7, ["m"])),
        *({"asked_at": moment} for moment in (-1, "x", None, True, 10**12)),
        {"kind": "json"},
        {"kind": "f16"},
        {"kind": None},
        {"crc32": 0},
        {"team": "ns/other"},
        {"digest": "1"},
        {"epochs": [0, 1, 0]},
        {"item": 2},
    ],
    ids=str,
)
async def test_an_entry_that_is_not_quite_ours_is_a_miss(changes: dict[str, Any]) -> None:
    """A count below zero, or none, would fail where calls are counted, in the middle of an answer."""
    store, cache = await written(VECTOR)
    key = keys.cache_entry(TEAM, "0")
    store.entries[key] = poisoned(store.entries[key], **changes)

    assert await found(cache) is None


@pytest.mark.parametrize(
    ("kind", "packed"),
    [
        ("json", b'[1],"x":[2]'),
        ("json", b"null"),
        ("json", b"[]"),
        ("json", b"[null]"),
        ("json", b'{"a": 1}'),
        ("json", b"7"),
        ("json", b""),
        ("f4", b""),
        ("f4", b"\x00\x00\xc0\x7f"),
        ("f8", b"\x00\x00\x00\x00\x00\x00\xf0\x7f"),
        ("f8", b"\x00\x00\x00\x00"),
    ],
    ids=[
        "more-than-a-value",
        "null",
        "empty",
        "nulls",
        "mapping",
        "number",
        "nothing",
        "no-numbers",
        "not-a-number",
        "infinite",
        "half-a-number",
    ],
)
async def test_what_is_no_vector_is_a_miss(kind: str, packed: bytes) -> None:
    """It would go out in the middle of an answer as it is."""
    store, cache = await written(VECTOR)
    key = keys.cache_entry(TEAM, "0")
    store.entries[key] = poisoned(store.entries[key], packed, kind=kind)

    assert await found(cache) is None


async def test_an_item_from_the_future_is_a_miss_unless_clocks_may_differ_by_that() -> None:
    _, cache = await written(VECTOR, asked_at=time.time() + 30)
    assert await found(cache) is not None
    _, cache = await written(VECTOR, asked_at=time.time() + 120)
    assert await found(cache) is None


async def test_only_what_was_asked_for_since_a_time_is_found() -> None:
    _, cache = await written(VECTOR, asked_at=1000.5)

    assert await found_since(cache, 1000.5) == ["0"]
    assert await found_since(cache, 1000.6) == []


async def test_its_age_counts_from_when_it_was_asked_for() -> None:
    _, cache = await written(VECTOR, asked_at=1000.5)
    found = await cache.find(["0"], provider="p/p", model="m", asked_since=0)

    assert found.items["0"].asked_at == 1000.5


async def test_without_a_digest_it_is_told_what_to_store_under() -> None:
    _, cache = await written(VECTOR)
    found = await cache.find([], provider="p/p", model="m", asked_since=0)

    assert (found.items, found.epochs) == ({}, (0, 0, 0))


async def test_what_stands_in_the_place_of_a_vector_is_not_stored() -> None:
    store, cache = await written(VECTOR, None, [], "", [None], [0.5, None], [[1.0]], [True], 7, {"a": 1})

    assert list(store.entries) == [keys.cache_entry(TEAM, "0")]
    assert pack(None) == ("json", b"null")
    assert await found(cache) is not None
