"""That the parts of all sidecars together are never more than a tenth, and which units of a limit each of them has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import combinations, count
from random import Random

import pytest

from llm_sidecar.quota import Quota, QuotaStoreUnavailable, Reservation
from llm_sidecar.quota.local_share import WHOLE_PPM
from llm_sidecar.quota.scripts import share_keys
from llm_sidecar.redis_store import RedisStore
from llm_sidecar.store import StoreUnavailable
from tests.unit.quota.conftest import TEAM, command, demand, settle
from tests.unit.quota.test_local_share import DAILY, Switch, lacking, local

OpenQuota = Callable[..., Quota]


@pytest.fixture
def switch(store: RedisStore) -> Switch:
    return Switch(store)


def _stretches(share: object) -> set[int]:
    """The thousandths of the whole that a sidecar may go by."""
    assert isinstance(share, bytes)
    return {place for stretch in share.split() for place in range(int(stretch) // 10**7, int(stretch) % 10**7, 100)}


def _overlap(pair: tuple[set[int], set[int]]) -> int:
    return len(pair[0] & pair[1])


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
            assert not any(map(_overlap, combinations(map(_stretches, shares), 2)))
    assert [quota.share.ppm for quota in quotas] == [WHOLE_PPM // 5] * 5

    await quotas[0].close(timeout_seconds=1)
    for quota in quotas[1:] * 2:
        await quota.share.refresh()
    assert quotas[-1].share.ppm == WHOLE_PPM // 4


async def test_a_share_whose_answer_was_lost_is_nobody_elses(switch: Switch, open_quota: OpenQuota) -> None:
    """It goes by its former part until it is told otherwise."""
    first = await local(open_quota, switch, "pod-1")
    second = await local(open_quota, switch, "pod-2")
    switch.loses_reply_to = "pod-1"
    with pytest.raises(StoreUnavailable):
        await first.share.refresh()
    await second.share.refresh()
    assert (first.share.ppm, second.share.ppm) == (WHOLE_PPM, 0)

    for quota in (first, first, second):
        await quota.share.refresh()
    assert (first.share.ppm, second.share.ppm) == (WHOLE_PPM // 2, WHOLE_PPM // 2)


@pytest.mark.parametrize("seed", range(6))
async def test_no_two_sidecars_ever_go_by_the_same_part(switch: Switch, open_quota: OpenQuota, seed: int) -> None:
    """Whoever joins, leaves, is killed, has something open or loses an answer, in whatever order."""
    draw, names = Random(seed), count()
    fleet: list[Quota] = []
    for _step in range(120):
        quota = draw.choice(fleet) if fleet else None
        match draw.choice(["ask", "ask", "ask", "lose", "join", "open", "leave", "kill"]):
            case "join":
                name = f"pod-{draw.randrange(100):02}-{next(names)}"
                fleet.append(open_quota(DAILY, policy="LocalShare", store=switch, sidecar=name))
            case "ask" if quota is not None:
                await quota.share.refresh()
            case "lose" if quota is not None:
                switch.loses_reply_to = quota.share._sidecar
                with suppress(StoreUnavailable):
                    await quota.share.refresh()
            case "open" if quota is not None:
                switch.available = False
                with suppress(QuotaStoreUnavailable):
                    await quota.reserve(f"r{next(names)}", demand(1, 0))
                switch.available = True
            case "leave" | "kill" as how if quota is not None and len(fleet) > 2:
                fleet.remove(quota)
                if how == "leave":
                    await quota.close(timeout_seconds=1)
        grants = [one.share._grant for one in fleet]
        taken = sorted((grant.from_ppm, grant.to_ppm) for grant in grants if grant is not None and grant.ppm)
        ends = [end for stretch in taken for end in stretch]
        assert ends == sorted(ends)
        assert not taken or 0 <= ends[0] < ends[-1] <= WHOLE_PPM


async def test_a_part_of_which_something_is_not_told_is_not_given_back(switch: Switch, open_quota: OpenQuota) -> None:
    first = await local(open_quota, switch, "pod-1")
    switch.available = False
    settle(first, await first.reserve("a", demand(100, 0)), 100, "measured")
    switch.available = True
    await first.close(timeout_seconds=0)

    assert (await local(open_quota, switch, "pod-2")).share.ppm == 0


@pytest.mark.parametrize(("sidecars", "units"), [(2, [2, 3]), (5, [1] * 5), (6, [0, 1, 1, 1, 1, 1])])
async def test_a_small_limit_is_shared_in_whole_units(
    switch: Switch, open_quota: OpenQuota, sidecars: int, units: list[int]
) -> None:
    parallel = {"name": "parallel", "concurrentRequests": 50}
    quotas = [
        open_quota(parallel, policy="LocalShare", store=switch, sidecar=f"pod-{number}") for number in range(sidecars)
    ]
    for quota in quotas * 3:
        await quota.share.refresh()
    switch.available = False

    found: list[int] = []
    for quota in quotas:
        name = f"of {quotas.index(quota)}"
        answers = await asyncio.gather(
            *(quota.reserve(f"{number} {name}", demand(1, 0)) for number in range(4)), return_exceptions=True
        )
        found.append(sum(isinstance(answer, Reservation) for answer in answers))
        told = "is 0: the limit is too small to be shared among 6 sidecars" if found[-1] == 0 else "is spent"
        assert await lacking(quota, 1) == f"this sidecar's share of limit 'parallel' {told}"
    assert sorted(found) == units
