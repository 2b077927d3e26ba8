"""The rights that `docs/redis.md` says to give are enough."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from pydantic import SecretStr

from llm_operator.redis_client import close_client, redis_client
from llm_sidecar.contract.keys import cache_entry
from llm_sidecar.store import Script
from tests.integration.store.conftest import OpenStore
from tests.integration.store.servers import Servers, cluster, move_slot, sentinel, single

pytestmark = [pytest.mark.asyncio(loop_factories=["uvloop"])]

PAGE = Path(__file__).parents[3] / "docs" / "redis.md"
SERVERS, SENTINELS = (line.split() for line in re.findall(r"^`?(ACL SETUSER [^`\n]*)", PAGE.read_text(), re.MULTILINE))
COUNT = Script(name="count", source="redis.call('TIME') return redis.call('INCR', KEYS[1])")


@pytest.mark.parametrize("kind", [single, sentinel, cluster], ids=lambda kind: kind.__name__)
async def test_a_user_with_the_documented_rights_can_do_all_that_proxy_and_controller_do(
    open_store: OpenStore, kind: Callable[[], AbstractAsyncContextManager[Servers]]
) -> None:
    async with kind() as servers:
        for node in servers.nodes:
            await node.ask(*SERVERS)
        for watcher in servers.sentinels:
            await watcher.ask(*SENTINELS)
            await watcher.ask("ACL", "SETUSER", "default", "off")
        url, key = servers.url.replace("://", "://llm:PASSWORD@"), cache_entry("team/a", "d")
        store = open_store(url)

        assert await store.connect()
        await store.set(key, b"1", ttl_seconds=60)
        assert await store.run(COUNT, [key], []) == 2
        if kind is cluster:
            owner = await servers.owner(key)
            await move_slot(servers, key, to=next(node for node in servers.nodes if node is not owner), finish=False)
        assert await store.get_many([key]) == [b"2"]
        assert await store.get(key) == b"2"
        client = redis_client(SecretStr(url), timeout_seconds=5)
        assert await client.eval("return redis.call('GET', KEYS[1])", 1, key) == b"2"
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("EVAL", COUNT.source, 1, key)
            assert await pipeline.execute() == [3]
        await close_client(client)
