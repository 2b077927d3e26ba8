"""A purge is instant, for every proxy, whatever is under way; and nothing else is lost by it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import pytest
import pytest_asyncio
import redis

from llm_sidecar.cache import memory
from llm_sidecar.cache import purge as purging
from llm_sidecar.cache.purge import Purge, purge
from llm_sidecar.contract import keys
from llm_sidecar.redis_kinds import make_store
from llm_sidecar.store import SharedStore
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import CHAT_ANSWER, Proxy, Upstream, document, plain, provider, until
from tests.integration.proxy.test_cache import cached, entries, twice

Serve = Callable[..., Awaitable[Upstream]]
TEAM = "payments/payments"


@pytest_asyncio.fixture
async def store(store_url: str) -> AsyncIterator[SharedStore]:
    connected = make_store(store_url)
    await connected.connect()
    yield connected
    await connected.close()


@pytest.fixture
def _nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LIFETIME_SECONDS", -1.0)


async def result(proxy: Proxy, **members: Any) -> str:
    return (await proxy.chat(temperature=0, **members)).headers["x-llm-sidecar-cache"]


@pytest.mark.usefixtures("_nothing_is_remembered")
@pytest.mark.parametrize(
    ("what", "hits"),
    [
        (Purge(), []),
        (Purge(provider="llm-system/p0"), []),
        (Purge(provider="llm-system/p1"), ["m", "m2"]),
        (Purge(provider="llm-system/p0", model="m"), ["m2"]),
        (Purge(provider="llm-system/p0", model="m3"), ["m", "m2"]),
    ],
    ids=["team", "provider", "other-provider", "model", "other-model"],
)
async def test_a_purge_reaches_what_it_names(  # noqa: PLR0917 - fixtures and parameters
    start_proxy: StartProxy, serve: Serve, store: SharedStore, store_url: str, what: Purge, hits: list[str]
) -> None:
    proxy = await cached(start_proxy, store_url, await serve(), models=["m", "m2"])
    for model in ("m", "m2"):
        await twice(proxy, store_url, temperature=0, model=model)
    await purge(store, TEAM, what)
    assert [model for model in ("m", "m2") if await result(proxy, model=model) == "hit"] == hits


@pytest.mark.usefixtures("_nothing_is_remembered")
@pytest.mark.parametrize(("seconds", "expected"), [(60, "miss"), (-60, "hit")], ids=["all-older", "much-older"])
async def test_a_purge_by_age_reaches_what_is_older(  # noqa: PLR0917 - fixtures and parameters
    start_proxy: StartProxy, serve: Serve, store: SharedStore, store_url: str, seconds: int, expected: str
) -> None:
    proxy = await cached(start_proxy, store_url, await serve())
    await twice(proxy, store_url, temperature=0)
    await purge(store, TEAM, Purge(not_before=int(time.time()) + seconds))
    assert await result(proxy) == expected


@pytest.mark.usefixtures("_nothing_is_remembered")
async def test_one_answer_is_purged_by_its_key_in_the_audit_log(
    start_proxy: StartProxy, serve: Serve, store: SharedStore, store_url: str
) -> None:
    proxy = await cached(start_proxy, store_url, await serve())
    first, _ = await twice(proxy, store_url, temperature=0)
    await twice(proxy, store_url, temperature=0, seed=1)
    line = await proxy.audit_line(first.request_id)
    await purge(store, TEAM, Purge(digest=line["cache_key"]))
    assert len(entries(store_url)) == 1
    assert [await result(proxy), await result(proxy, seed=1)] == ["miss", "hit"]


@pytest.mark.usefixtures("_nothing_is_remembered")
async def test_one_answer_that_was_asked_for_before_its_purge_is_not_served_after_it(
    start_proxy: StartProxy, serve: Serve, store: SharedStore, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor when so many others were purged since that this purge was forgotten."""
    monkeypatch.setattr(purging, "MOST_PURGED_KEYS", 3)
    proxy = await cached(start_proxy, store_url, await serve())
    first, _ = await twice(proxy, store_url, temperature=0)
    key = (await proxy.audit_line(first.request_id))["cache_key"]
    with redis.Redis.from_url(store_url) as client:
        entry = client.get(entries(store_url)[0])
        assert isinstance(entry, bytes)
        await purge(store, TEAM, Purge(digest=key))
        client.set(keys.cache_entry(TEAM, key), entry, ex=60)  # as one comes that was under way
        assert await result(proxy) == "miss"
        await proxy.sidecar._pipeline.close()  # type: ignore[union-attr]
        client.set(keys.cache_entry(TEAM, key), entry, ex=60)
        for number in range(5):
            await purge(store, TEAM, Purge(digest=f"{number:064}"))
        assert client.hget(keys.cache_epochs(TEAM), keys.cache_epoch_of_key(key)) is None
        assert await result(proxy) == "miss"


async def test_purges_of_single_answers_do_not_fill_the_store(
    store: SharedStore, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "MOST_PURGED_KEYS", 10)
    for number in range(50):
        await purge(store, TEAM, Purge(digest=f"{number:064}"))
    with redis.Redis.from_url(store_url) as client:
        assert client.zcard(keys.cache_purged_keys(TEAM)) == 10
        assert client.hlen(keys.cache_epochs(TEAM)) == 10 + 1
        assert client.hexists(keys.cache_epochs(TEAM), keys.cache_epoch_of_key(f"{49:064}"))
        assert int(client.hget(keys.cache_epochs(TEAM), keys.CACHE_NOT_BEFORE) or 0) <= time.time() + 1


async def test_a_key_that_is_purged_again_gets_a_number_that_it_never_had(store: SharedStore, store_url: str) -> None:
    told = []
    field = keys.cache_epoch_of_key("0" * 64)
    with redis.Redis.from_url(store_url) as client:
        for _ in range(5):
            await purge(store, TEAM, Purge(digest="0" * 64))
            told.append(int(client.hget(keys.cache_epochs(TEAM), field) or 0))
            if len(told) == 3:
                client.hdel(keys.cache_epochs(TEAM), field)
    assert told == sorted(set(told))


@pytest.mark.usefixtures("_nothing_is_remembered")
async def test_another_teams_purge_is_no_business_of_ours(
    start_proxy: StartProxy, serve: Serve, store: SharedStore, store_url: str
) -> None:
    proxy = await cached(start_proxy, store_url, await serve())
    await twice(proxy, store_url, temperature=0)
    await purge(store, "payments/others", Purge())
    assert await result(proxy) == "hit"


@pytest.mark.usefixtures("_nothing_is_remembered")
@pytest.mark.parametrize("field", [keys.CACHE_EPOCH_OF_TEAM, keys.cache_epoch_of_provider("llm-system/p0")])
async def test_whoever_reaches_the_store_can_purge_by_counting_up(
    start_proxy: StartProxy, serve: Serve, store_url: str, field: str
) -> None:
    """As the controller does, which knows the contract alone."""
    proxy = await cached(start_proxy, store_url, await serve())
    await twice(proxy, store_url, temperature=0)
    with redis.Redis.from_url(store_url) as client:
        client.hincrby(keys.cache_epochs(TEAM), field, 1)
    assert await result(proxy) == "miss"


async def test_not_before_only_ever_grows(store: SharedStore, store_url: str) -> None:
    for seconds in (1_000, 3_000, 2_000):
        await purge(store, TEAM, Purge(not_before=seconds))
    with redis.Redis.from_url(store_url) as client:
        assert client.hgetall(keys.cache_epochs(TEAM)) == {b"not_before": b"3000"}


@pytest.mark.usefixtures("_nothing_is_remembered")
async def test_what_was_asked_for_before_a_purge_is_not_served_after_it(
    start_proxy: StartProxy, serve: Serve, store: SharedStore, store_url: str
) -> None:
    """Though it came, and was stored, only then."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(request: Any, body: bytes) -> Any:
        asked.set()
        await go_on.wait()
        return await plain()(request, body)

    upstream = await serve(slowly)
    proxy = await cached(start_proxy, store_url, upstream)
    begun = asyncio.create_task(proxy.chat(temperature=0))
    await asked.wait()
    await purge(store, TEAM, Purge())
    go_on.set()
    assert (await begun).status == 200
    await until(lambda: len(entries(store_url)) == 1)
    assert await result(proxy) == "miss"
    await proxy.sidecar._pipeline.close()  # type: ignore[union-attr]
    assert await result(proxy) == "hit"
    assert len(upstream.seen) == 2


async def test_a_process_remembers_no_longer_than_two_seconds(
    start_proxy: StartProxy, serve: Serve, store: SharedStore, store_url: str
) -> None:
    proxy = await cached(start_proxy, store_url, await serve())
    await twice(proxy, store_url, temperature=0)
    await purge(store, TEAM, Purge())
    purged = time.monotonic()
    while await result(proxy) == "hit":
        assert time.monotonic() - purged < memory.LIFETIME_SECONDS + 0.5


@pytest.mark.usefixtures("_nothing_is_remembered")
async def test_no_order_of_requests_and_purges_serves_what_is_void(
    start_proxy: StartProxy, serve: Serve, store: SharedStore, store_url: str
) -> None:
    """Two proxies, many requests at once, an answer that changes right before each purge."""
    dice = random.Random(11)
    now = purged = 0
    hits = 0

    async def current(request: Any, body: bytes) -> Any:
        answer = CHAT_ANSWER.replace(b"pong", b"%d" % now)
        for _ in range(dice.randrange(20)):
            await asyncio.sleep(0)
        return await plain(answer)(request, body)

    upstream = await serve(current)
    proxies = [
        await start_proxy(document(provider("p0", upstream.base_url), store_url=store_url, team={})) for _ in range(2)
    ]

    async def ask(number: int) -> None:
        nonlocal hits
        for _ in range(150):
            at_least = purged
            reply = await proxies[number % 2].chat(temperature=0, seed=number % 3)
            told = int(orjson.loads(reply.body)["choices"][0]["message"]["content"])
            assert told >= at_least, (told, at_least, reply.headers["x-llm-sidecar-cache"])
            hits += reply.headers["x-llm-sidecar-cache"] == "hit"

    async def void() -> None:
        nonlocal now, purged
        while True:
            now += 1
            await purge(store, TEAM, dice.choice([Purge(), Purge(provider="llm-system/p0")]))
            purged = now
            for _ in range(dice.randrange(40)):
                await asyncio.sleep(0)

    purging = asyncio.create_task(void())
    try:
        await asyncio.gather(*map(ask, range(8)))
    finally:
        purging.cancel()
    assert purged > 20
    assert hits > 20
