"""Whose room is reserved before a call, through a proxy: of all who could answer, and for answers without a cap."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.contract.provider_resource import Model
from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.failover.routes import Candidate
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.prices import prices
from llm_sidecar.quota import Demand, Quota
from llm_sidecar.record import RequestRecord
from llm_sidecar.redis_store import RedisStore
from llm_sidecar.spending import Spending
from llm_sidecar.store import Reply, Script
from tests.integration.booked import booked
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import Answer, Proxy, Upstream, document, error, plain, provider, until

Serve = Callable[..., Awaitable[Upstream]]
TEAM = "payments/payments"
CHEAP = {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "1"}
DEAR = {"inputUSDPerMillionTokens": "1000", "outputUSDPerMillionTokens": "1000"}
"""A request of some 40 bytes, answered by 7 and 3 tokens, costs 0.01 USD."""
STRICT = {"name": "strict", "per": "Day", "tokens": 5000, "reservation": "Maximum"}


async def team_of(start_proxy: StartProxy, store_url: str, providers: list[Any], *limits: dict[str, Any]) -> Proxy:
    team = {"limits": list(limits), "cache": {"generations": "None"}}
    return await start_proxy(document(*providers, store_url=store_url, team=team))


def answer_of(completion_tokens: int) -> Answer:
    """An answer that is as long as the provider says."""
    usage = {"prompt_tokens": 7, "completion_tokens": completion_tokens, "total_tokens": 7 + completion_tokens}
    message = {"role": "assistant", "content": "pong"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return plain(
        orjson.dumps(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [choice],
                "usage": usage,
            }
        )
    )


def marked(proxy: Proxy) -> float:
    """How many requests were let in under Maximum of which nobody knew the most."""
    return proxy.metric("llm_quota_unbounded_requests_total", team=TEAM) or 0


async def explained(proxy: Proxy, request_id: str) -> list[dict[str, str]]:
    told = await proxy.ask("GET", f"/_llm-sidecar/explain/{request_id}")
    skipped: list[dict[str, str]] = told.json()["skipped"]
    return skipped


async def test_an_answer_without_any_cap_is_marked_under_maximum(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    upstream = await serve(answer_of(30_000))
    proxy = await team_of(start_proxy, store_url, [provider("p", upstream.base_url)], STRICT)

    assert (await proxy.chat()).status == 200
    await until(lambda: booked(store_url) == {"strict|used": 30_007})
    assert marked(proxy) == 1
    assert b"max" not in upstream.seen[0].body  # no cap of ours cuts the answer


@pytest.mark.parametrize(
    ("model", "request_"), [({"maxOutputTokens": 100}, {}), ({}, {"max_tokens": 100})], ids=["model", "request"]
)
async def test_an_answer_with_a_cap_is_not_marked(
    start_proxy: StartProxy, serve: Serve, store_url: str, model: dict[str, Any], request_: dict[str, Any]
) -> None:
    one = provider("p", (await serve()).base_url, models=[{"name": "m", **model}])
    proxy = await team_of(start_proxy, store_url, [one], STRICT)
    assert (await proxy.chat(**request_)).status == 200
    assert marked(proxy) == 0


async def test_after_failover_the_mark_is_that_of_who_answered(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    failing = {"retry": {"maxAttempts": 1}}
    capped, uncapped = {"name": "m", "maxOutputTokens": 4096}, {"name": "m"}
    for first, second, expected in ((uncapped, capped, 0), (capped, uncapped, 1)):
        providers = [
            provider("first", (await serve(error(500))).base_url, priority=0, models=[first], **failing),
            provider("second", (await serve()).base_url, priority=1, models=[second]),
        ]
        proxy = await team_of(start_proxy, store_url, providers, STRICT | {"tokens": 100_000})
        reply = await proxy.chat()
        assert reply.headers["x-llm-sidecar-provider"] == "second"
        assert marked(proxy) == expected


async def test_what_a_shadow_limit_would_have_refused_is_that_of_who_answered(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    shadow = {"name": "next-year", "per": "Month", "costUSD": "0.05", "onExceeded": {"action": "Shadow"}}
    failing = {"retry": {"maxAttempts": 1}}
    providers = [
        provider(
            "cheap",
            (await serve(error(500))).base_url,
            priority=0,
            models=[{"name": "m", "pricing": CHEAP}],
            **failing,
        ),
        provider("dear", (await serve()).base_url, priority=1, models=[{"name": "m", "pricing": DEAR}]),
    ]
    proxy = await team_of(start_proxy, store_url, providers, shadow)
    reply = await proxy.chat(max_tokens=100)
    assert (reply.status, reply.headers["x-llm-sidecar-provider"]) == (200, "dear")
    assert proxy.metric("llm_quota_shadow_refusals_total", team=TEAM, limit="next-year") == 1


async def test_a_small_limit_lets_in_a_model_that_could_answer_at_great_length(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    """Of the model's whole maximum not one request would fit, and so nothing would ever be learned."""
    one = provider("p", (await serve()).base_url, models=[{"name": "m", "maxOutputTokens": 128_000}])
    proxy = await team_of(start_proxy, store_url, [one], {"name": "burst", "per": "Minute", "tokens": 100_000})
    assert {(await proxy.chat()).status for _ in range(3)} == {200}
    named = await proxy.chat(max_tokens=128_000)
    assert (named.status, named.code) == (429, "team_quota_exceeded")
    assert b"ask for at most" in named.body


async def test_where_the_dearer_provider_of_a_model_does_not_fit_the_next_is_asked(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    dear, cheap = await serve(), await serve()
    providers = [
        provider("dear", dear.base_url, priority=0, models=[{"name": "m", "pricing": DEAR}]),
        provider("cheap", cheap.base_url, priority=1, models=[{"name": "m", "pricing": CHEAP}]),
    ]
    proxy = await team_of(start_proxy, store_url, providers, {"name": "budget", "per": "Day", "costUSD": "0.05"})

    reply = await proxy.chat(max_tokens=100)

    assert (reply.status, reply.headers["x-llm-sidecar-provider"]) == (200, "cheap")
    assert (len(dear.seen), len(cheap.seen)) == (0, 1)
    assert await explained(proxy, reply.headers["x-llm-sidecar-request-id"]) == [
        {"provider": "dear", "model": "m", "reason": "limit 'budget' has no room for what it may cost"}
    ]
    await until(lambda: booked(store_url) == {"budget|used": 10_000})

    refused = await proxy.chat(max_tokens=100_000)
    assert (refused.status, refused.code) == (429, "team_quota_exceeded")
    assert refused.json()["error"]["details"]["requested"] > 100_000 * 1_000_000  # of the first choice, not the last


async def test_a_full_limit_is_not_evaded_through_a_model_that_stands_in_for_failures(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    own, other = await serve(), await serve()
    providers = [
        provider("own", own.base_url),
        provider("other", other.base_url, models=[{"name": "other", "failoverFor": ["m"]}]),
    ]
    proxy = await team_of(
        start_proxy, store_url, providers, {"name": "m", "per": "Day", "requests": 1, "models": ["m"]}
    )
    assert [(await proxy.chat()).status for _ in range(2)] == [200, 429]
    assert len(other.seen) == 0


@pytest.mark.parametrize("share_a_provider", [False, True])
async def test_where_the_cheaper_models_are_full_the_next_and_then_the_asked_one_answers(
    start_proxy: StartProxy, serve: Callable[..., Awaitable[Upstream]], store_url: str, *, share_a_provider: bool
) -> None:
    twice_the_price = {"inputUSDPerMillionTokens": "2", "outputUSDPerMillionTokens": "2"}
    small: dict[str, Any] = {"name": "small", "pricing": CHEAP, "downgradeFor": ["m"]}
    middle: dict[str, Any] = {"name": "middle", "pricing": twice_the_price, "downgradeFor": ["m"]}
    providers = [provider("dear", (await serve()).base_url, models=[{"name": "m", "pricing": DEAR}])]
    if share_a_provider:
        providers.append(provider("cheap", (await serve()).base_url, models=[middle, small]))
    else:
        providers.append(provider("cheap", (await serve()).base_url, models=[small]))
        providers.append(provider("next", (await serve()).base_url, models=[middle]))
    limits: list[dict[str, Any]] = [
        {
            "name": "budget",
            "per": "Month",
            "costUSD": "1",
            "onExceeded": {"action": "Downgrade", "downgradeAtPercent": 1},
        },
        {"name": "small-a-day", "per": "Day", "requests": 1, "models": ["small"]},
        {"name": "middle-a-day", "per": "Day", "requests": 1, "models": ["middle"]},
        {"name": "dear-a-day", "per": "Day", "requests": 2, "models": ["m"]},
    ]
    proxy = await team_of(start_proxy, store_url, providers, *limits)
    replies = []
    for _ in range(5):
        replies.append(await proxy.chat(max_tokens=10))
        await until(lambda: not booked(store_url).get("budget|held"))

    assert [one.headers.get("x-llm-sidecar-model") for one in replies] == ["m", "small", "middle", "m", None]
    assert "x-llm-sidecar-downgraded-from" not in replies[3].headers
    assert replies[4].status == 429
    assert replies[4].json()["error"]["details"]["limit"] == "dear-a-day"


class _Stalling:
    """A store in which the second reservation of a quota takes for ever."""

    available = True

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._reservations = 0
        self.is_stalled = asyncio.Event()

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]) -> Reply:
        self._reservations += script.name == "reserve"
        if self._reservations == 2 and script.name == "reserve":
            self.is_stalled.set()
            await asyncio.Event().wait()
        return await self._store.run(script, keys, arguments)


async def test_who_hangs_up_while_a_cheaper_model_is_reserved_leaves_nothing_behind(store_url: str) -> None:
    budget = {"name": "budget", "per": "Month", "costUSD": "1"}
    downgrade = {"onExceeded": {"action": "Downgrade", "downgradeAtPercent": 1}}
    async with AsyncExitStack() as stack:
        store = RedisStore(store_url, timeout_seconds=5)
        stack.push_async_callback(store.close)
        stalling = _Stalling(store)

        def quota_of(store: Any, limit: dict[str, Any]) -> Quota:
            spec = TeamQuotaSpec.model_validate({"limits": [limit], "onStoreUnavailable": "Deny"})
            quota = Quota(store, team=TEAM, spec=spec, sidecar="s")
            stack.push_async_callback(quota.close, timeout_seconds=1)
            return quota

        other, quota = quota_of(store, budget), quota_of(stalling, budget | downgrade)
        dear, cheap = (
            Candidate(
                cast("Any", SimpleNamespace(provider=SimpleNamespace(name=name))),
                Model.model_validate({"name": name, "pricing": pricing}),
                name,
                API.OPENAI_CHAT,
            )
            for name, pricing in (("dear", DEAR), ("cheap", CHEAP))
        )
        assert dear.model.pricing is not None
        await other.reserve(
            "other",
            Demand(
                model="dear",
                input_tokens=0,
                expected_output_tokens=500,
                maximum_output_tokens=500,
                prices=prices(dear.model.pricing),
            ),
        )
        call = Call(api=API.OPENAI_CHAT, type=RequestType.GENERATION, path="/")
        parsed = FORMATS[API.OPENAI_CHAT].parse_request(call, b'{"model":"dear","messages":[],"max_tokens":10}')
        beginning = asyncio.create_task(
            Spending.begin(quota, RequestRecord("id", TEAM), parsed, [dear], lambda: [cheap])
        )
        async with asyncio.timeout(10):
            await stalling.is_stalled.wait()
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning

        assert quota.open_reservations == 0
        await until(lambda: booked(store_url) == {"budget|held": 500_000_000})
