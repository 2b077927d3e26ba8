"""One team's answers: in memory, in the store, and void after a purge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from llm_sidecar.cache import memory
from llm_sidecar.cache.answers import FIND, NOTHING_FOUND, AnswerCache, Place
from llm_sidecar.cache.entries import MAX_ENTRY_BYTES, CachedAnswer
from llm_sidecar.contract import keys
from llm_sidecar.store import Reply, Script, StoreUnavailable

ANSWER = CachedAnswer(b'{"a":1}', "application/json", None, 1000.5, 60)
PLACE = Place("d" * 64, "llm-system/openai", "gpt")
OTHER = Place("e" * 64, "llm-system/groq", "llama")


class Shelf:
    """A store in memory, which can be away. Of scripts it knows `find` alone."""

    available = True

    def __init__(self) -> None:
        self.entries: dict[str, tuple[bytes, int]] = {}
        self.epochs: dict[str, dict[str, bytes]] = {}
        self.looked = 0
        self.is_slow = False
        self.timed_out = 0
        self.answers: Any = None

    async def get(self, key: str) -> bytes | None:
        raise NotImplementedError

    async def get_many(self, wanted: Sequence[str]) -> list[bytes | None]:
        raise NotImplementedError

    async def set(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        self._check()
        self.entries[key] = (value, ttl_seconds)

    async def run(self, script: Script, wanted: Sequence[str], arguments: Sequence[str | int | bytes]) -> Reply:
        assert script is FIND
        self._check()
        self.looked += 1
        if self.answers is not None:
            reply: Reply = self.answers
            return reply
        epochs = self.epochs.get(wanted[1], {})
        first, *others = [self.entries.get(key, (None, 0))[0] for key in (wanted[0], *wanted[2:])]
        return [first, [epochs.get(str(field)) for field in arguments], *others]

    async def close(self) -> None:
        pass

    def _check(self) -> None:
        if not self.available:
            raise StoreUnavailable("connection")
        if self.is_slow:
            self.timed_out += 1
            raise StoreUnavailable("timeout")

    def purge(self, field: str, *, team: str = "ns/team") -> None:
        hash_ = self.epochs.setdefault(keys.cache_epochs(team), {})
        hash_[field] = str(int(hash_.get(field, b"0")) + 1).encode()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def cache(shelf: Shelf) -> AnswerCache:
    return AnswerCache(shelf, "ns/team")


async def keep(cache: AnswerCache, place: Place = PLACE, answer: CachedAnswer = ANSWER) -> bool:
    found = await cache.find([place])
    return await cache.keep(place, found.epochs[0], answer, kept_seconds=60)


async def test_answers_are_kept_by_team_for_their_time(cache: AnswerCache, shelf: Shelf) -> None:
    assert (await cache.find([PLACE])).answers[0] is None
    assert await keep(cache)
    assert (await cache.find([PLACE])).answers[0] == ANSWER
    assert (await AnswerCache(shelf, "ns/other").find([PLACE])).answers[0] is None
    [(key, (_, ttl_seconds))] = shelf.entries.items()
    assert key == keys.cache_entry("ns/team", PLACE.digest)
    assert ttl_seconds == 60


async def test_another_teams_entry_under_our_key_is_a_miss(cache: AnswerCache, shelf: Shelf) -> None:
    theirs = AnswerCache(shelf, "ns/other")
    await keep(theirs)
    [(_, entry)] = shelf.entries.items()
    shelf.entries[keys.cache_entry("ns/team", PLACE.digest)] = entry
    assert (await cache.find([PLACE])).answers[0] is None


async def test_a_store_that_is_away_makes_a_miss_and_no_error(cache: AnswerCache, shelf: Shelf) -> None:
    shelf.available = False
    assert await cache.find([PLACE]) is NOTHING_FOUND
    assert await cache.keep(PLACE, (0, 0, 0, 0), ANSWER, kept_seconds=60) is False


@pytest.mark.parametrize(
    "reply",
    [
        1,
        b"x",
        [],
        [None],
        [None, None],
        [None, []],
        [1, [None] * 5],
        [None, [b"x"] * 5],
        [None, 1],
        [None, [[]] * 5],
    ],
)
async def test_a_store_that_answers_something_else_makes_a_miss(cache: AnswerCache, shelf: Shelf, reply: Any) -> None:
    shelf.answers = reply
    assert await cache.find([PLACE]) is NOTHING_FOUND


async def test_a_team_that_never_purged_anything_is_at_the_beginning_of_all_epochs(
    cache: AnswerCache, shelf: Shelf
) -> None:
    shelf.answers = [None, 0]
    assert (await cache.find([PLACE, OTHER])).epochs == ((0, 0, 0, 0), (0, 0, 0, 0))


async def test_what_is_too_large_is_not_kept(cache: AnswerCache, shelf: Shelf) -> None:
    large = CachedAnswer(b"x" * (MAX_ENTRY_BYTES + 1), "", None, 0.0, 60)
    assert await keep(cache, answer=large) is False
    assert not shelf.entries


async def test_what_is_large_is_kept_all_the_same(cache: AnswerCache) -> None:
    """A thread packs and unpacks it."""
    large = CachedAnswer(b"x" * MAX_ENTRY_BYTES, "a/b", None, 0.0, 60)
    assert await keep(cache, answer=large)
    assert (await cache.find([PLACE])).answers[0] == large


FIELDS = [
    "team",
    "provider/llm-system/openai",
    "model/llm-system/openai/gpt",
    f"key/{PLACE.digest}",
]


@pytest.mark.parametrize("field", FIELDS)
async def test_a_purge_makes_what_is_stored_void(cache: AnswerCache, shelf: Shelf, field: str) -> None:
    await keep(cache)
    shelf.purge(field)
    assert (await cache.find([PLACE])).answers[0] is None
    assert cache.remembered(PLACE) is None


@pytest.mark.parametrize("field", FIELDS)
async def test_an_answer_that_was_asked_for_before_a_purge_is_void_when_it_comes(
    cache: AnswerCache, shelf: Shelf, field: str
) -> None:
    before = await cache.find([PLACE])
    shelf.purge(field)
    await cache.keep(PLACE, before.epochs[0], ANSWER, kept_seconds=60)
    assert (await cache.find([PLACE])).answers[0] is None
    assert await keep(cache)
    assert (await cache.find([PLACE])).answers[0] == ANSWER


@pytest.mark.parametrize(
    "field", ["provider/llm-system/groq", "model/llm-system/openai/gpt-5", f"key/{OTHER.digest}", "unknown"]
)
async def test_a_purge_of_others_leaves_it_alone(cache: AnswerCache, shelf: Shelf, field: str) -> None:
    await keep(cache)
    shelf.purge(field)
    assert (await cache.find([PLACE])).answers[0] == ANSWER


async def test_not_before_makes_older_answers_void(cache: AnswerCache, shelf: Shelf) -> None:
    await keep(cache)
    shelf.epochs[keys.cache_epochs("ns/team")] = {"not_before": b"1000"}
    assert (await cache.find([PLACE])).answers[0] == ANSWER
    shelf.epochs[keys.cache_epochs("ns/team")] = {"not_before": b"1001"}
    assert (await cache.find([PLACE])).answers[0] is None


async def test_a_look_up_tells_the_epochs_of_every_place(cache: AnswerCache, shelf: Shelf) -> None:
    """Another candidate may answer: what it was asked under has to be known before."""
    shelf.purge("team")
    shelf.purge("provider/llm-system/groq")
    found = await cache.find([PLACE, OTHER])
    assert found.epochs == ((1, 0, 0, 0), (1, 1, 0, 0))
    assert shelf.looked == 1


async def test_what_was_found_is_remembered_for_a_moment(
    cache: AnswerCache, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(cache)
    assert cache.remembered(PLACE) is None
    await cache.find([PLACE])
    assert cache.remembered(PLACE) == ANSWER
    monkeypatch.setattr(memory, "LIFETIME_SECONDS", -1.0)
    await cache.find([PLACE])
    assert cache.remembered(PLACE) is None


async def test_whoever_hears_of_a_purge_forgets_everything(cache: AnswerCache, shelf: Shelf) -> None:
    """Also where the look-up that tells it was for something else."""
    await keep(cache)
    await cache.find([PLACE])
    shelf.purge("team")
    await cache.find([OTHER])
    assert cache.remembered(PLACE) is None


async def test_more_than_one_place_is_looked_at_in_one_step(cache: AnswerCache, shelf: Shelf) -> None:
    await keep(cache)
    await keep(cache, place=OTHER)
    shelf.looked = 0
    assert (await cache.find([PLACE, OTHER], looked_at=2)).answers == (ANSWER, ANSWER)
    assert (await cache.find([PLACE, OTHER])).answers == (ANSWER,)
    assert shelf.looked == 2
    shelf.purge("provider/llm-system/openai")
    assert (await cache.find([PLACE, OTHER], looked_at=2)).answers == (None, ANSWER)
