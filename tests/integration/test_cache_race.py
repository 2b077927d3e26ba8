"""Store against purge, between processes: two proxies, one Valkey, an answer that changes with every purge."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import redis
from aiohttp import web

from llm_sidecar.cache.memory import LIFETIME_SECONDS
from llm_sidecar.contract.keys import CACHE_EPOCH_OF_TEAM, cache_epoch_of_provider, cache_epochs
from tests.integration.conftest import provider_manifests
from tests.integration.processes import Sidecar, running_sidecar
from tests.integration.proxy.harness import until, upstream

TEAM: Final = "default/default"
ROUNDS: Final = 4
APPLICATIONS: Final = 6
QUESTIONS: Final = 200
MARGIN_SECONDS: Final = 0.2
"""Two processes read the clock at two moments."""


class World:
    """What the provider would answer now, and when that was last made the only answer that may be served."""

    def __init__(self) -> None:
        self.version = 0
        self.purges: list[tuple[float, int]] = [(0.0, 0)]
        """When a purge was over, and the version from before it that must not be served any more."""
        self.hits = 0
        self._dice = random.Random(5)

    async def answer(self, _request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        version = self.version
        for _ in range(self._dice.randrange(400)):  # so that some are under way when a purge comes
            await asyncio.sleep(0)
        message = {"role": "assistant", "content": str(version)}
        return web.json_response(
            {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": "gpt-5-mini",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        )

    def at_least(self, moment: float) -> int:
        """The oldest version that a request of this moment may be given."""
        return max(
            version for over, version in self.purges if over + LIFETIME_SECONDS + MARGIN_SECONDS <= moment or not over
        )


async def _ask(session: aiohttp.ClientSession, sidecar: Sidecar, question: int) -> tuple[str, int]:
    document = {"model": "gpt-5-mini", "temperature": 0, "seed": question, "messages": []}
    async with session.post(
        f"{sidecar.base_url}/v1/chat/completions",
        json=document,
        headers={"Authorization": f"Bearer {sidecar.token}"},
    ) as reply:
        told: Any = json.loads(await reply.read())
        return reply.headers["x-llm-sidecar-cache"], int(told["choices"][0]["message"]["content"])


async def _application(world: World, sidecar: Sidecar, number: int, is_over: Callable[[], bool]) -> None:
    async with aiohttp.ClientSession() as session:
        for question in itertools.cycle(range(number, number + QUESTIONS)):
            if is_over():
                return
            began = time.monotonic()
            result, version = await _ask(session, sidecar, question)
            world.hits += result == "hit"

            assert version >= world.at_least(began), (result, version, world.purges)


async def _purge(world: World, store_url: str) -> None:
    """Let the answer change, make the old one void, and wait until no memory may hold it any more."""
    fields = (CACHE_EPOCH_OF_TEAM, cache_epoch_of_provider("default/openai"))
    with redis.Redis.from_url(store_url) as client:
        for number in range(ROUNDS):
            world.version += 1
            client.hincrby(cache_epochs(TEAM), fields[number % 2], 1)
            over = time.monotonic()
            world.purges.append((over, world.version))
            await until(lambda: time.monotonic() > over + LIFETIME_SECONDS + 3 * MARGIN_SECONDS)  # noqa: B023


async def _race(store_url: str, folder: Path) -> World:
    world = World()
    async with upstream(world.answer) as provider:
        manifests = folder / "manifests.yaml"
        manifests.write_text(provider_manifests(provider.base_url, "key"))
        with (
            running_sidecar(manifests, arguments=("--redis", store_url)) as one,
            running_sidecar(manifests, arguments=("--redis", store_url)) as other,
        ):
            purging = asyncio.create_task(_purge(world, store_url))
            asking = [
                _application(world, (one, other)[number % 2], number, purging.done) for number in range(APPLICATIONS)
            ]
            try:
                await asyncio.gather(*asking)
            finally:
                purging.cancel()
    return world


def test_no_process_serves_what_another_has_purged(store_url: str, tmp_path: Path) -> None:
    world = asyncio.run(_race(store_url, tmp_path))

    assert world.version == ROUNDS
    assert world.hits > 100
