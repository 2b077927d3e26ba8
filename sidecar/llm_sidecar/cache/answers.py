"""One team's answers: those found last in memory, all in the shared store. A store that is away makes misses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from llm_sidecar.cache.entries import MAX_ENTRY_BYTES, CachedAnswer, decode_entry, encode_entry
from llm_sidecar.cache.known_requests import KnownRequests
from llm_sidecar.cache.look_ups import LookUps
from llm_sidecar.cache.memory import Memory
from llm_sidecar.cache.streams.forms import replayed
from llm_sidecar.contract import keys
from llm_sidecar.store import Script, StoreUnavailable

if TYPE_CHECKING:
    from llm_sidecar.formats.base import ParsedRequest
    from llm_sidecar.store import Reply, Store

FIND: Final = Script(name="find", source=(files("llm_sidecar.cache") / "lua" / "find.lua").read_text(encoding="utf-8"))
ASIDE_BYTES: Final = 64 * 1024
"""Packing and unpacking more than this would keep other requests waiting: a thread does it."""
_SHARED_FIELDS: Final = (keys.CACHE_NOT_BEFORE, keys.CACHE_EPOCH_OF_TEAM)
_KNOWN_FIELDS: Final = 4096

Epochs = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer of one model of one provider lies."""

    digest: str
    provider: str
    """`NAMESPACE/NAME`."""
    model: str
    """As the provider calls it."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Of the hash of epochs, those that are about this answer beside all others'."""
        return (*_fields(self.provider, self.model), keys.cache_epoch_of_key(self.digest))


@lru_cache(maxsize=1024)
def _fields(provider: str, model: str) -> tuple[str, str]:
    return keys.cache_epoch_of_provider(provider), keys.cache_epoch_of_model(provider, model)


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up told."""

    answers: tuple[CachedAnswer | None, ...] = ()
    """At each place that was looked at."""
    epochs: tuple[Epochs, ...] = ()
    """Of each place that was asked about: what its answer has to be stored under. Empty where nothing is known."""
    not_before: float = 0.0


NOTHING_FOUND: Final = Found()


class AnswerCache:
    """One team's answers."""

    def __init__(self, store: Store, team: str, *, look_ups: LookUps | None = None) -> None:
        self._store = store
        self._look_ups = look_ups or LookUps(store)
        self._team = team
        self._memory = Memory()
        self.known_requests = KnownRequests()
        self._known: dict[str, int] = {}
        """The latest number of each field. Once one changes, nothing that was found before is served any more."""

    def remembered(self, place: Place) -> CachedAnswer | None:
        """The answer at a place, if it was found a moment ago."""
        return self._memory.get(place.digest)

    async def find(self, places: Sequence[Place], *, looked_at: int = 1) -> Found:
        """The answers at the first places, and the epochs of all: one step at the store."""
        fields = [*_SHARED_FIELDS, *(field for place in places for field in place.fields)]
        first, *others = [keys.cache_entry(self._team, place.digest) for place in places[:looked_at]]
        wanted = (first, keys.cache_epochs(self._team), *others)
        try:
            reply = await self._look_ups.run(FIND, wanted, fields)
        except StoreUnavailable:
            return NOTHING_FOUND
        read = _read(reply, looked_at, len(fields))
        if read is None:
            return NOTHING_FOUND
        entries, numbers = read
        self._learn(fields, numbers)
        not_before, team = numbers[0], numbers[1]
        epochs = tuple((team, *numbers[start : start + 3]) for start in range(len(_SHARED_FIELDS), len(numbers), 3))
        answers = [
            None if entry is None else await self._decoded(place, seen, not_before, entry)
            for place, seen, entry in zip(places, epochs, entries, strict=False)
        ]
        return Found(tuple(answers), epochs, not_before)

    async def _decoded(self, place: Place, epochs: Epochs, not_before: float, entry: bytes) -> CachedAnswer | None:
        if len(entry) < ASIDE_BYTES:
            answer = decode_entry(self._team, place.digest, epochs, entry)
        else:
            answer = await asyncio.to_thread(decode_entry, self._team, place.digest, epochs, entry)
        if answer is None or answer.asked_at < not_before:
            return None
        self._memory.put(place.digest, answer)
        return answer

    def _learn(self, fields: list[str], numbers: list[int]) -> None:
        """Forget what is in memory as soon as it is heard of any purge: they are rare."""
        known = self._known
        if not known and not any(numbers):  # as nearly always
            return
        if len(known) > _KNOWN_FIELDS:  # models that a client types, and keys
            known.clear()
            self._memory.clear()
        for field, number in zip(fields, numbers, strict=True):
            if number != known.get(field, 0):
                known[field] = number
                self._memory.clear()

    def stream(self, place: Place, answer: CachedAnswer, request: ParsedRequest) -> bytes | None:
        """An answer as the stream that a request asks for; None where it cannot be one."""
        options = request.document.get("stream_options")
        asks_for_usage = isinstance(options, dict) and options.get("include_usage") is True
        kind = (request.call.stream_is_json_array, asks_for_usage)
        return self._memory.stream(place.digest, answer, kind, lambda: replayed(request, answer.body))

    async def keep(self, place: Place, epochs: Epochs, answer: CachedAnswer, *, kept_seconds: int) -> bool:
        """Store an answer under the epochs that its request saw; False where it is too large or the store is away."""
        if len(answer.body) > MAX_ENTRY_BYTES:
            return False
        if len(answer.body) < ASIDE_BYTES:
            entry = encode_entry(self._team, place.digest, epochs, answer)
        else:
            entry = await asyncio.to_thread(encode_entry, self._team, place.digest, epochs, answer)
        try:
            await self._store.set(keys.cache_entry(self._team, place.digest), entry, ttl_seconds=kept_seconds)
        except StoreUnavailable:
            return False
        self._look_ups.heard()
        return True


def _read(reply: Reply, entries: int, number: int) -> tuple[list[bytes | None], list[int]] | None:
    """Entries and numbers of what `find.lua` answered; None where it is anything else."""
    if not isinstance(reply, list) or len(reply) != entries + 1:
        return None
    told = reply.pop(1)
    found = [one for one in reply if one is None or isinstance(one, bytes)]
    if len(found) != entries:
        return None
    if told == 0:  # nothing was ever purged
        return found, [0] * number
    if not isinstance(told, list) or len(told) != number:
        return None
    try:
        return found, [0 if value is None else int(value) for value in told]  # type: ignore[arg-type]
    except (ValueError, TypeError):  # somebody wrote a field by hand: nobody knows what holds
        return None
