"""What a sidecar may spend while the store is away, and what it is told when that is not enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from llm_sidecar.quota import Quota, QuotaStoreUnavailable
from llm_sidecar.quota.journal import Journal
from llm_sidecar.quota.local_share import GRANT_SECONDS, WHOLE_PPM
from llm_sidecar.quota.settlement import Settlement, SettleMode
from llm_sidecar.redis_store import RedisStore
from llm_sidecar.store import Reply, Script, StoreUnavailable
from tests.unit.quota.conftest import counters, demand, settle, settled, team_spec

OpenQuota = Callable[..., Quota]
DAILY = {"name": "daily", "per": "Day", "tokens": 1000}


class Switch:
    """A real store that can be away."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.available = True
        self.loses_reply_to: str | None = None
        """The first word of a script's arguments."""

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Reply:
        if not self.available:
            raise StoreUnavailable("connection", maybe_executed=False)
        reply = await self._store.run(script, keys, arguments)
        if self.loses_reply_to is not None and arguments[0] == self.loses_reply_to:
            self.loses_reply_to = None
            raise StoreUnavailable("timeout")
        return reply


@pytest.fixture
def switch(store: RedisStore) -> Switch:
    return Switch(store)


async def local(open_quota: OpenQuota, switch: Switch, name: str = "pod-1", **options: object) -> Quota:
    quota = open_quota(DAILY, policy="LocalShare", store=switch, sidecar=name, **options)
    await quota.share.refresh()
    return quota


async def lacking(quota: Quota, tokens: int) -> str:
    with pytest.raises(QuotaStoreUnavailable) as refused:
        await quota.reserve("refused", demand(tokens, 0))
    return refused.value.lacking


async def test_a_tenth_of_what_was_left_may_be_spent_while_the_store_is_away(
    store: RedisStore, switch: Switch, open_quota: OpenQuota
) -> None:
    quota = await local(open_quota, switch)
    settle(quota, await quota.reserve("before", demand(200, 0)), 200, "measured")
    await settled(quota)
    await quota.share.refresh()
    switch.available = False

    first = await quota.reserve("a", demand(50, 0))
    with pytest.raises(QuotaStoreUnavailable) as raised:
        await quota.reserve("b", demand(31, 0))
    assert raised.value.lacking == "this sidecar's share of limit 'daily' is spent"
    settle(quota, first, 20, "measured")
    second = await quota.reserve("c", demand(60, 0))

    switch.available = True
    settle(quota, second, 60, "measured")
    await settled(quota)
    assert (await counters(store))["daily|used"] == 280


async def test_a_sidecar_that_never_saw_the_store_has_no_share(switch: Switch, open_quota: OpenQuota) -> None:
    switch.available = False
    quota = open_quota(DAILY, policy="LocalShare", store=switch, sidecar="pod-1")
    with pytest.raises(QuotaStoreUnavailable) as raised:
        await quota.reserve("a", demand(1, 0))
    assert "has not reached the store" in raised.value.lacking


async def test_what_is_open_when_the_store_returns_counts_against_the_next_share(
    store: RedisStore, switch: Switch, open_quota: OpenQuota
) -> None:
    first = await local(open_quota, switch, "pod-1")
    switch.available = False
    open_ = [await first.reserve(f"a{number}", demand(10, 0)) for number in range(10)]

    switch.available = True
    second = await local(open_quota, switch, "pod-2")
    for quota in (first, second, first, second):  # nobody else is given what is spent, and not told
        await quota.share.refresh()
    assert (first.share.ppm, second.share.ppm) == (WHOLE_PPM, 0)

    switch.available = False
    for held in open_[:5]:
        with pytest.raises(QuotaStoreUnavailable):
            await first.reserve("more", demand(1, 0))
        settle(first, held, 10, "measured")
    with pytest.raises(QuotaStoreUnavailable):
        await first.reserve("more", demand(1, 0))
    settle(first, open_[5], 3, "measured")
    await first.reserve("in place of what was held too much", demand(7, 0))

    switch.available = True
    for held in open_[6:]:
        first.release(held)
    await settled(first)
    assert (await counters(store))["daily|used"] == 53


async def test_what_changes_its_model_without_the_store_gives_its_share_back(
    switch: Switch, open_quota: OpenQuota
) -> None:
    dear = {"name": "dear", "per": "Day", "tokens": 1000, "models": ["dear*"]}
    quota = open_quota(dear, DAILY, policy="LocalShare", store=switch, sidecar="pod-1")
    await quota.share.refresh()
    switch.available = False
    moved = await quota.reserve("a", demand(100, 0, model="dear-1"))
    await quota.revise(moved, demand(50, 0, model="cheap-1"))
    settle(quota, moved, 50, "measured")

    await quota.reserve("b", demand(50, 0, model="dear-1"))


async def test_a_share_that_is_spent_by_nobody_is_not_told_to_be(
    store: RedisStore, switch: Switch, open_quota: OpenQuota
) -> None:
    first = await local(open_quota, switch, "pod-1")
    second = await local(open_quota, switch, "pod-2")
    switch.available = False
    assert "other sidecars still had all of it" in await lacking(second, 1)
    assert "is smaller than what this request needs" in await lacking(first, 101)

    switch.available = True
    settle(first, await first.reserve("all", demand(1000, 0)), 1000, "measured")
    await settled(first)
    await first.share.refresh()
    switch.available = False
    assert "nothing was left of the limit" in await lacking(first, 1)


async def test_a_sidecar_whose_clock_is_wrong_is_granted_a_part_of_the_stores_window(
    switch: Switch, open_quota: OpenQuota, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = await local(open_quota, switch, "pod-1")
    settle(right, await right.reserve("before", demand(900, 0)), 900, "measured")
    await settled(right)
    await right.close(timeout_seconds=1)
    time_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: time_ns() + 48 * 3600 * 10**9)
    wrong = open_quota(DAILY, policy="LocalShare", store=switch, sidecar="pod-2")
    wrong.release(await wrong.reserve("it is told the time", demand(1, 0)))
    await settled(wrong)
    await wrong.share.refresh()

    switch.available = False
    with pytest.raises(QuotaStoreUnavailable):
        await wrong.reserve("a", demand(11, 0))
    await wrong.reserve("b", demand(10, 0))


async def test_a_share_ends_by_itself(switch: Switch, open_quota: OpenQuota) -> None:
    quota = await local(open_quota, switch)
    assert quota.share.ppm == WHOLE_PPM
    before = quota.share._monotonic()
    quota.share._monotonic = lambda: before + GRANT_SECONDS + 1
    assert quota.share.ppm == 0


async def test_a_window_that_begins_meanwhile_may_be_spent_by_its_own_tenth(
    switch: Switch, open_quota: OpenQuota
) -> None:
    shift_ms = 0

    def clock_ms() -> int:
        return time.time_ns() // 1_000_000 + shift_ms

    quota = await local(open_quota, switch, clock_ms=clock_ms)
    switch.available = False
    await quota.reserve("a", demand(100, 0))
    with pytest.raises(QuotaStoreUnavailable):
        await quota.reserve("b", demand(1, 0))
    shift_ms = 24 * 3600 * 1000
    await quota.reserve("c", demand(100, 0))


async def test_a_request_without_the_store_holds_all_limits_or_none(switch: Switch, open_quota: OpenQuota) -> None:
    quota = open_quota(
        DAILY, {"name": "calls", "per": "Day", "requests": 10}, policy="LocalShare", store=switch, sidecar="p"
    )
    await quota.share.refresh()
    switch.available = False
    with pytest.raises(QuotaStoreUnavailable, match="connection"):
        await quota.reserve("a", demand(500, 0))
    await quota.reserve("b", demand(10, 0))
    with pytest.raises(QuotaStoreUnavailable):
        await quota.reserve("c", demand(10, 0))


async def test_what_was_spent_meanwhile_survives_a_restart(
    store: RedisStore, switch: Switch, open_quota: OpenQuota, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    killed = await local(open_quota, switch, journal=Journal(path))
    switch.available = False
    settle(killed, await killed.reserve("a", demand(40, 0)), 40, "measured")
    await killed.close(timeout_seconds=0)
    path.write_bytes(path.read_bytes() + b'["cut off')

    switch.available = True
    restarted = open_quota(DAILY, policy="LocalShare", store=switch, sidecar="pod-1", journal=Journal(path))
    await settled(restarted)
    assert (await counters(store))["daily|used"] == 40
    assert not path.exists()

    again = Journal(path)
    again.keep(
        Settlement(
            request_id="a", mode=SettleMode.UNBACKED, amounts=(("daily|tokens|Day|0|9007199254740991", 40, 0, 1, ""),)
        )
    )
    again.close()
    third = open_quota(DAILY, policy="LocalShare", store=switch, sidecar="pod-1", journal=Journal(path))
    await settled(third)
    assert (await counters(store))["daily|used"] == 40


def test_a_journal_that_cannot_be_written_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path / "missing" / "journal")
    for number in range(3):
        journal.keep(Settlement(request_id=str(number), mode=SettleMode.UNBACKED, amounts=()))
    assert len(caplog.records) == 1
    assert "kept in memory alone" in caplog.text


async def test_a_configuration_that_comes_while_a_share_is_asked_for_ends_no_renewal(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    class Reconfiguring(Switch):
        async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Reply:
            reply = await super().run(script, keys, arguments)
            if script.name == "share":
                quota.configure(team_spec({"name": "hourly", "per": "Hour", "tokens": 50}, DAILY, policy="LocalShare"))
            return reply

    switch = Reconfiguring(store)
    quota: Quota = open_quota(DAILY, policy="LocalShare", store=switch, sidecar="pod-1")
    await quota.share.refresh()
    switch.available = False
    assert "share of limit 'hourly'" in await lacking(quota, 60)
    await quota.reserve("small", demand(5, 0))


async def test_a_share_is_asked_for_while_ordinary_settlements_are_on_their_way(
    store: RedisStore, switch: Switch, open_quota: OpenQuota
) -> None:
    """A busy sidecar always has some; the store still counts what they hold. What it knows nothing of it must hear."""
    quota = await local(open_quota, switch)
    backed = await quota.reserve("a", demand(10, 0))
    unbacked = await quota.reserve("b", demand(10, 0))
    settle(quota, backed, 10, "measured")
    pending = quota.pending_settlements
    is_asked_for = quota._is_settled()
    unbacked.mode = SettleMode.UNBACKED
    settle(quota, unbacked, 10, "measured")
    assert (pending, is_asked_for, quota._is_settled()) == (1, True, False)
    await settled(quota)
    assert quota._is_settled()
