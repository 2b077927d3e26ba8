"""How an answer lies in the store."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from llm_sidecar.cache.answers import MAX_ENTRY_BYTES, AnswerCache, CachedAnswer, decode_entry, encode_entry
from llm_sidecar.formats.base import Usage
from llm_sidecar.store import Reply, Script, StoreUnavailable

ANSWER = CachedAnswer(b'{"a":\n1}', "application/json; charset=utf-8", Usage(1, None, 0, 2, None), 1000.5)


class Shelf:
    """A store in memory, which can be away."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[bytes, int]] = {}
        self.available = True

    async def get(self, key: str) -> bytes | None:
        self._check()
        return self.entries.get(key, (None, 0))[0]

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [await self.get(key) for key in keys]

    async def set(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        self._check()
        self.entries[key] = (value, ttl_seconds)

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Reply:
        raise NotImplementedError

    async def close(self) -> None:
        pass

    def _check(self) -> None:
        if not self.available:
            raise StoreUnavailable("timeout")


@pytest.mark.parametrize("answer", [ANSWER, CachedAnswer(b"", "", None, 0.0), CachedAnswer(bytes(256), "x", None, 1.0)])
def test_what_is_written_is_read_again(answer: CachedAnswer) -> None:
    assert decode_entry("d", encode_entry("d", answer)) == answer


def test_an_entry_of_another_request_is_a_miss() -> None:
    assert decode_entry("e", encode_entry("d", ANSWER)) is None


def test_a_cut_entry_is_a_miss_wherever_it_is_cut() -> None:
    entry = encode_entry("d", ANSWER)
    assert all(decode_entry("d", entry[:length]) is None for length in range(len(entry)))
    assert decode_entry("d", entry + b"x") is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"version":2', b'"version":3'),
        (b'"version":2', b'"version":null'),
        (b'"usage":{', b'"usage":{"new_kind":1,'),
        (b'"stored_at":1000.5', b'"stored_at":"x"'),
        (b'"stored_at"', b'"at"'),
    ],
)
def test_an_entry_that_is_not_quite_ours_is_a_miss(old: bytes, new: bytes) -> None:
    entry = encode_entry("d", ANSWER)
    assert old in entry
    assert decode_entry("d", entry.replace(old, new)) is None


@pytest.mark.parametrize("entry", [b"", b"\n", b"null\n", b"[]\n", b"{}\n", b"\xff\n", b"{}"])
def test_garbage_is_a_miss(entry: bytes) -> None:
    assert decode_entry("d", entry) is None


async def test_answers_are_kept_by_team_for_their_time() -> None:
    shelf = Shelf()
    cache = AnswerCache(shelf, "ns/team")
    assert await cache.find("d") is None
    assert await cache.keep("d", ANSWER, ttl_seconds=60)
    assert await cache.find("d") == ANSWER
    assert await AnswerCache(shelf, "ns/other").find("d") is None
    [(key, (_, ttl_seconds))] = shelf.entries.items()
    assert "{ns/team}" in key
    assert ttl_seconds == 60


async def test_a_store_that_is_away_makes_a_miss_and_no_error() -> None:
    shelf = Shelf()
    shelf.available = False
    cache = AnswerCache(shelf, "ns/team")
    assert await cache.find("d") is None
    assert await cache.keep("d", ANSWER, ttl_seconds=60) is False


async def test_what_is_too_large_is_not_kept() -> None:
    shelf = Shelf()
    answer = CachedAnswer(b"x" * (MAX_ENTRY_BYTES + 1), "", None, 0.0)
    assert await AnswerCache(shelf, "t").keep("d", answer, ttl_seconds=60) is False
    assert not shelf.entries


def test_the_age_is_never_negative() -> None:
    assert CachedAnswer(b"", "", None, time.time() + 100).age_seconds == 0
    assert CachedAnswer(b"", "", None, time.time() - 100).age_seconds in {100, 101}
