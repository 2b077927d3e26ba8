"""What somebody else wrote into the store, under the right name and with the right checksum, breaks no answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
import redis

from llm_sidecar.cache import memory
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import CHAT_ANSWER, Upstream, document, plain, provider, until
from tests.integration.proxy.test_embedding_items import embed, embeds, started

Serve = Callable[..., Awaitable[Upstream]]


def poison(store_url: str, **changes: Any) -> None:
    """Change the head of the only entry."""
    with redis.Redis.from_url(store_url) as client:
        (key,) = client.keys("*:cache:*")
        head, _, body = client.get(key).partition(b"\n")
        client.set(key, orjson.dumps({**orjson.loads(head), **changes}) + b"\n" + body)


def is_stored(store_url: str) -> bool:
    with redis.Redis.from_url(store_url) as client:
        return bool(client.keys("*:cache:*"))


@pytest.mark.parametrize(
    "changes",
    [
        {"usage": {"input_tokens": "x", "output_tokens": 1}},
        {"usage": {"input_tokens": -5, "output_tokens": 1}},
        {"usage": {"input_tokens": 2**63, "output_tokens": 2**63}},
        {"content_type": "text/plain\r\nset-cookie: a=b"},
        {"dropped": ["a\r\nset-cookie: a=b"]},
        {"asked_at": time.time() + 10**9},
        {"ttl_seconds": 10**15},
    ],
    ids=["no-number", "below-zero", "beyond-64-bits", "two-headers", "two-headers-of-names", "future", "forever"],
)
async def test_a_poisoned_answer_is_a_miss(
    start_proxy: StartProxy, serve: Serve, store_url: str, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """The first kinds once failed where calls are counted: an empty 500, without a line in the audit log."""
    monkeypatch.setattr(memory, "LIFETIME_SECONDS", -1.0)
    one = await serve(plain(CHAT_ANSWER))
    proxy = await start_proxy(document(provider("p", one.base_url), store_url=store_url, team={}))
    await proxy.chat(temperature=0)
    await until(lambda: is_stored(store_url))
    poison(store_url, **changes)

    reply = await proxy.chat(temperature=0)

    assert (reply.status, reply.headers["x-llm-sidecar-cache"], reply.body) == (200, "miss", CHAT_ANSWER)
    assert "set-cookie" not in reply.headers
    assert (await proxy.audit_line(reply.request_id))["cache"] == "miss"
    assert len(one.seen) == 2


@pytest.mark.parametrize("changes", [{"tokens": -50}, {"tokens": 2**63}, {"model": 7}], ids=str)
async def test_a_poisoned_vector_is_a_miss(
    start_proxy: StartProxy, serve: Serve, store_url: str, changes: dict[str, Any]
) -> None:
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one)
    await embed(proxy, ["a"], stored=1, store_url=store_url)
    poison(store_url, **changes)

    reply = await embed(proxy, ["a"])

    assert (reply.status, reply.headers["x-llm-sidecar-cache"]) == (200, "miss")
    assert (await proxy.audit_line(reply.request_id))["cache"] == "miss"
    assert len(one.seen) == 2


async def test_an_answer_with_an_error_in_it_is_not_stored(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    told = {**orjson.loads(CHAT_ANSWER), "error": {"code": 502, "message": "m"}}
    one = await serve(plain(orjson.dumps(told)))
    proxy = await start_proxy(document(provider("p", one.base_url), store_url=store_url, team={}))

    replies = [await proxy.chat(temperature=0) for _ in range(3)]

    assert [reply.headers["x-llm-sidecar-cache"] for reply in replies] == ["miss"] * 3
    assert len(one.seen) == 3
    assert not is_stored(store_url)
