"""One sidecar before one simulated provider for each wire language, and every request as that provider got it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import web

from llm_sidecar.app import Sidecar
from llm_sidecar.contract.names import API
from llm_sidecar.simulate.app import create_application
from llm_sidecar.simulate.settings import SimulatorSettings
from llm_sidecar.translation.registry import GENERATING
from tests.integration.background import in_background
from tests.integration.proxy.harness import TOKEN, document, provider

MODELS: Final[Mapping[API, str]] = {
    API.OPENAI_CHAT: "gpt-5-mini",
    API.OPENAI_RESPONSES: "gpt-5",
    API.ANTHROPIC_MESSAGES: "claude-haiku-4-5",
    API.GEMINI: "gemini-3-flash-preview",
}
"""By the language of the one provider that has it."""
EMBEDDERS: Final[Mapping[API, str]] = {
    API.OPENAI_EMBEDDINGS: "text-embedding-3-small",
    API.GEMINI: "gemini-embedding-001",
}
"""The same for embeddings."""
FAULTS: Final[Mapping[str, str]] = {
    "rate-limited": "status=429,retry_after_seconds=none",
    "bad-request": "status=400",
    "overloaded": "status=503,retry_after_seconds=none",
    "breaks-off": "error_after=3",
}
"""Providers that fail, by the prefix of their models' names."""
_PIECES: Final = web.RequestKey("pieces", list[bytes])
_TYPES: Final[Mapping[API, str]] = {API.ANTHROPIC_MESSAGES: "Anthropic", API.GEMINI: "Google"}


@dataclass(slots=True, kw_only=True)
class World:
    """What a cell of the matrix has around it."""

    base_url: str = ""
    """Of the sidecar, without `/v1`."""
    token: str = TOKEN
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Requests as providers got them: `path`, `query` and `body`."""
    answered: list[list[bytes]] = field(default_factory=list)
    """Answers as providers gave them, in pieces."""

    def forget(self) -> None:
        """A new cell begins."""
        self.asked.clear()
        self.answered.clear()

    def first_answer(self) -> Iterator[Any]:
        """The documents of the first answer: one, or all of a stream's."""
        text = b"".join(self.answered[0]).decode()
        if text.startswith("{"):
            yield json.loads(text)
            return
        for line in text.splitlines():
            data = line.removeprefix("data:").strip()
            if line.startswith("data:") and data != "[DONE]":
                yield json.loads(data)


def missing_languages() -> set[API]:
    """Languages that are registered and have no model here: the matrix would leave them out."""
    return set(GENERATING) - set(MODELS)


@contextmanager
def running_world() -> Iterator[World]:
    """The world, for as long as the context lasts."""
    with in_background(_world()) as world:
        yield world


@asynccontextmanager
async def _world() -> AsyncIterator[World]:
    world = World()
    async with _simulator(world) as simulator_url:
        with tempfile.TemporaryFile() as audit:
            sidecar = Sidecar(
                document(*_providers(simulator_url)),
                token=TOKEN,
                audit_descriptor=os.dup(audit.fileno()),
                grace_seconds=2,
            )
            listening = await sidecar.start(port=0, admin_port=0)
            try:
                world.base_url = f"http://127.0.0.1:{listening.port}"
                yield world
            finally:
                await sidecar.stop()


@asynccontextmanager
async def _simulator(world: World) -> AsyncIterator[str]:
    application = create_application(SimulatorSettings(port=0))
    application.middlewares.append(_recorder(world))
    application.on_response_prepare.append(_listen)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _recorder(world: World) -> Any:
    @web.middleware
    async def record(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.method != "POST":
            untold: web.StreamResponse = await handler(request)
            return untold
        body = await request.read()
        told = {"path": request.path, "query": request.query_string, "body": orjson.loads(body)}
        world.asked.append(told)
        pieces: list[bytes] = []
        world.answered.append(pieces)
        request[_PIECES] = pieces
        answer: web.StreamResponse = await handler(request)
        if isinstance(answer, web.Response) and isinstance(answer.body, bytes):
            pieces.append(answer.body)
        return answer

    return record


async def _listen(request: web.Request, response: web.StreamResponse) -> None:
    """Note what a stream says, too."""
    if isinstance(response, web.Response) or _PIECES not in request:
        return
    write = response.write

    async def noted(data: bytes) -> None:
        request[_PIECES].append(bytes(data))
        await write(data)

    response.write = noted  # type: ignore[method-assign,assignment]


def _providers(simulator_url: str) -> Iterator[dict[str, Any]]:
    for api, model in EMBEDDERS.items():
        yield _provider(f"embeds-{api.lower()}", api, simulator_url, model)
    for api, model in MODELS.items():
        yield _provider(api.lower(), api, simulator_url, model)
        for fault, specification in FAULTS.items():
            url = f"{simulator_url}/fault/{specification}"
            # Its circuit stays closed: the matrix is about errors, and has its fill of them.
            patient = {"circuitBreaker": {"failureThreshold": 1000}, "retry": {"maxAttempts": 1}}
            yield _provider(f"{fault}-{api.lower()}", api, url, f"{fault}-{model}", **patient)


def _provider(name: str, api: API, url: str, model: str, **spec: Any) -> dict[str, Any]:
    cache = {"ttlSeconds": {"generation": 0, "embeddings": 0, "tokenCount": 0}}
    return provider(name, url, type=_TYPES.get(api, "OpenAI"), apis=[api.value], models=[model], cache=cache, **spec)
