"""From proxies to the controller through a real Valkey: both halves, as they are deployed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio
from pydantic import SecretStr

from llm_operator.reconcile.objects import Key
from llm_operator.reconcile.report_reader import SAMPLE, RedisReports
from llm_operator.reconcile.traffic import Traffic
from llm_sidecar.contract.config import ConfigDocument, ProviderEntry
from llm_sidecar.contract.keys import provider_openings, provider_reports
from llm_sidecar.contract.provider_reports import ProviderReport, render_report
from llm_sidecar.contract.resources import LLMProviderSpec
from llm_sidecar.embedded_store import embedded_store
from llm_sidecar.formats.told_error import FailureKind
from llm_sidecar.provider_reports import ProviderReports
from llm_sidecar.redis_store import RedisStore

NOW = 30_000.0
WINDOW = 1000
PROVIDER = Key("sys", "p")
SPEC = LLMProviderSpec.model_validate({"type": "OpenAI", "models": [{"name": "m"}]})
DOCUMENT = ConfigDocument(providers=(ProviderEntry(namespace="sys", name="p", shared=True, spec=SPEC),))


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with embedded_store() as found:
        yield found


@pytest.fixture
async def client(url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(url) as client:
        yield client


@pytest.fixture
async def reader(url: str) -> AsyncIterator[RedisReports]:
    reader = RedisReports(SecretStr(url), clock=lambda: NOW)
    yield reader
    await reader.close()


class Proxies:
    """Proxies on one store."""

    def __init__(self, url: str, number: int) -> None:
        self.stores = [RedisStore(url, timeout_seconds=5) for _ in range(number)]
        self.hints: list[list[tuple[str, str]]] = [[] for _ in range(number)]
        self.all = [self._one(number, store) for number, store in enumerate(self.stores)]

    def _one(self, number: int, store: RedisStore) -> ProviderReports:
        heard = self.hints[number]
        reports = ProviderReports(on_hint=lambda *hint: heard.append((hint[0], hint[1])), clock=lambda: NOW)
        reports.configure(DOCUMENT, store)
        return reports

    async def flush(self) -> None:
        await asyncio.gather(*(store.connect() for store in self.stores))
        for reports in self.all:
            await reports.flush()

    async def close(self) -> None:
        await asyncio.gather(*(store.close() for store in self.stores))


@pytest.fixture
async def proxies(url: str) -> AsyncIterator[Proxies]:
    proxies = Proxies(url, 3)
    yield proxies
    await proxies.close()


async def test_the_controller_reads_what_proxies_told(proxies: Proxies, reader: RedisReports) -> None:
    for reports in proxies.all:
        reports.note("p", None, 200)
    proxies.all[0].note("p", FailureKind.SERVER, 10)
    await proxies.flush()

    found = await reader.read([PROVIDER, Key("sys", "other")])

    assert found is not None
    assert replace(found[PROVIDER], error_share=0.0) == Traffic(
        reporters=3, failing=1, failures=1, milliseconds=200.0, worst="server"
    )
    assert found[PROVIDER].error_share == pytest.approx(1 / 6)
    assert found[Key("sys", "other")] == Traffic()


async def test_everything_that_is_told_expires(proxies: Proxies, client: redis.asyncio.Redis) -> None:
    proxies.all[0].note("p", None, 200)
    proxies.all[0].opened("p", "m")
    await proxies.flush()

    keys = [key async for key in client.scan_iter()]
    written = [key for key in keys if b":provider:" in key]
    assert len(written) == 2
    for key in written:
        assert 0 < await client.ttl(key) <= 180


async def test_an_opening_reaches_the_proxies_that_use_the_provider(proxies: Proxies) -> None:
    first, second, _idle = proxies.all
    second.note("p", None, 200)
    first.opened("p", "m")
    await proxies.flush()

    assert proxies.hints == [[], [("p", "m")], []]


async def test_reports_of_past_windows_count_and_older_ones_do_not(
    client: redis.asyncio.Redis, reader: RedisReports
) -> None:
    report = render_report(ProviderReport(answered=1, answered_milliseconds=1))
    for age in range(6):
        await client.hset(provider_reports("sys/p", WINDOW - age), f"reporter-{age}", report)

    found = await reader.read([PROVIDER])

    assert found is not None
    assert found[PROVIDER].reporters == 3


async def test_what_a_forger_writes_is_left_out_and_costs_little(
    client: redis.asyncio.Redis, reader: RedisReports
) -> None:
    good = render_report(ProviderReport(answered=1, answered_milliseconds=7))
    odd: Any = {b"huge": b"x" * 10**6, b"r" * 10**5: good, b"garbage": b"\xff", b"good": good}
    await client.hset(provider_reports("sys/p", WINDOW), mapping=odd)
    await client.set(provider_reports("sys/p", WINDOW - 1), "no hash at all")
    crowd: Any = {f"r{number}": good for number in range(SAMPLE * 3)}
    await client.hset(provider_reports("sys/crowd", WINDOW), mapping=crowd)

    found = await reader.read([PROVIDER, Key("sys", "crowd")])

    assert found is not None
    assert found[PROVIDER] == Traffic(reporters=1, milliseconds=7.0)
    assert found[Key("sys", "crowd")].reporters == SAMPLE


async def test_a_forger_cannot_stop_a_proxy_from_telling(proxies: Proxies, client: redis.asyncio.Redis) -> None:
    await client.set(provider_openings("sys/p", 3000), "no set at all")
    proxies.all[0].note("p", None, 200)
    proxies.all[0].opened("p", "m")
    proxies.all[1].note("p", None, 200)
    await proxies.flush()

    assert proxies.stores[0].available
    assert proxies.hints == [[], [], []]
    assert await client.hlen(provider_reports("sys/p", WINDOW)) == 2


async def test_many_providers_are_read_in_few_writes(reader: RedisReports) -> None:
    keys = [Key("sys", f"p{number}") for number in range(95)]

    found = await reader.read(keys)

    assert found == dict.fromkeys(keys, Traffic())


@pytest.mark.parametrize("url", ["redis://127.0.0.1:9/0", "nonsense://:secret@redis/0"])
async def test_a_store_that_is_away_is_told_once_and_without_its_url(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader = RedisReports(SecretStr(url))

    assert [await reader.read([PROVIDER]) for _ in range(3)] == [None, None, None]
    await reader.close()

    assert len(caplog.records) == 1
    assert "secret" not in caplog.text
    assert "127.0.0.1" not in caplog.text
