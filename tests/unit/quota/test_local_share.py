"""What a sidecar may spend while the store is away, and that all of them together never spend more than a tenth."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_sidecar.quota import Quota, QuotaStoreUnavailable
from llm_sidecar.quota.journal import Journal
from llm_sidecar.quota.local_share import GRANT_SECONDS, WHOLE_PPM
from llm_sidecar.quota.scripts import share_keys
from llm_sidecar.quota.settlement import Settlement, SettleMode
from llm_sidecar.redis_store import RedisStore
from llm_sidecar.store import Reply, Script, StoreUnavailable
from tests.unit.quota.conftest import TEAM, command, counters, demand, settle, settled

OpenQuota = Callable[..., Quota]
DAILY = {"name": "daily", "per": "Day", "tokens": 1000}


class Switch:
    """A real store that can be away."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.available = True

    async def run(self, script: Script, keys: object, arguments: object) -> Reply:
        if not self.available:
            raise StoreUnavailable("connection", maybe_executed=False)
        return await self._store.run(script, keys, arguments)  # type: ignore[arg-type]


@pytest.fixture
def switch(store: RedisStore) -> Switch:
    return Switch(store)


async def local(open_quota: OpenQuota, switch: Switch, name: str = "pod-1", **options: object) -> Quota:
    quota = open_quota(DAILY, policy="LocalShare", store=switch, sidecar=name, **options)
    await quota.share.refresh()
    return quota


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


async def test_all_shares_together_are_never_more_than_the_whole(
    store: RedisStore, switch: Switch, open_quota: OpenQuota
) -> None:
    quotas = [await local(open_quota, switch, f"pod-{number}") for number in range(5)]
    assert [quota.share.ppm for quota in quotas] == [WHOLE_PPM, 0, 0, 0, 0]
    for _ in range(3):
        for quota in quotas:
            await quota.share.refresh()
            shares = await command(store, "HVALS", share_keys(TEAM)[1])
            assert isinstance(shares, list)
            assert sum(int(share) for share in shares if isinstance(share, bytes)) <= WHOLE_PPM
    assert [quota.share.ppm for quota in quotas] == [WHOLE_PPM // 5] * 5

    await quotas[0].close(timeout_seconds=1)
    for quota in quotas[1:]:
        await quota.share.refresh()
    assert quotas[-1].share.ppm == WHOLE_PPM // 4


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
