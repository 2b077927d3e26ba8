"""A crowd of applications, each asking one thing after another, and what each of them gets."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
import orjson
from multidict import CIMultiDict

from tests.chaos.answers import NoProperEnd, check_error, text_of
from tests.integration.processes import Sidecar
from tests.integration.proxy.harness import Reply
from tests.integration.proxy.simulated_traffic import CALLS, PROMPT

CLIENTS: Final = 100
PATIENCE_SECONDS: Final = 30.0
PAUSE_SECONDS: Final = 0.05
"""At most, between two requests of one client: what is measured is the sidecar, and not a queue."""
KINDS: Final = tuple(name for name, call in CALLS.items() if call.spends and "embed" not in name)
MODELS: Final = ("model-openai", "model-anthropic", "model-google")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one request ended for the application."""

    phase: str
    kind: str
    model: str
    ended: float
    request_id: str
    provider: str
    """Who answered; empty where nobody did."""
    committed: bool
    """A stream's head had come."""
    complete: bool
    """The answer is whole, and the one to this request; otherwise the application was told an error."""
    fault: str = ""
    """What is neither."""


class Crowd:
    """Asks without end, until told to stop."""

    def __init__(self, sidecar: Sidecar, *, seed: int) -> None:
        self._sidecar = sidecar
        self._draw = random.Random(seed)
        self._number = 0
        self.phase = ""
        self.outcomes: list[Outcome] = []

    @asynccontextmanager
    async def asking(self, phase: str) -> AsyncIterator[None]:
        """Ask for as long as the context lasts, and let every request end."""
        self.phase, stop = phase, asyncio.Event()
        async with self.session() as session, asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._client(session, stop))
            try:
                yield
            finally:
                stop.set()

    def session(self) -> aiohttp.ClientSession:
        """The applications' connections."""
        return aiohttp.ClientSession(
            self._sidecar.base_url,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS),
            headers={"authorization": f"Bearer {self._sidecar.token}", "anthropic-version": "2023-06-01"},
            read_bufsize=2**20,
        )

    def drawn(self, kinds: Sequence[str] = KINDS) -> tuple[str, str, str, str, bytes]:
        """Kind, model, prompt, path and body of the next request: like no other."""
        self._number += 1
        kind, model = self._draw.choice(kinds), self._draw.choice(MODELS)
        prompt = f"id-{self._number:08x} {PROMPT}"
        path, body = CALLS[kind].request(model)
        return kind, model, prompt, path, body.replace(orjson.dumps(PROMPT), orjson.dumps(prompt))

    async def _client(self, session: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.outcomes.append(await self._ask(session))
            await asyncio.sleep(self._draw.random() * PAUSE_SECONDS)

    async def _ask(self, session: aiohttp.ClientSession) -> Outcome:
        kind, model, prompt, path, body = self.drawn()
        status, headers, pieces, fault, complete = 0, CIMultiDict[str](), bytearray(), "", False
        try:
            async with session.post(path, data=body) as answer:
                status, headers = answer.status, CIMultiDict(answer.headers)
                async for piece in answer.content.iter_any():
                    pieces += piece
            complete = _is_complete(kind, prompt, Reply(status=status, headers=headers, body=bytes(pieces)))
        except (aiohttp.ClientError, TimeoutError) as error:
            fault = f"the connection did not end well: {type(error).__name__} {error}"
        except NoProperEnd as error:
            fault = str(error)
        return Outcome(
            phase=self.phase,
            kind=kind,
            model=model,
            ended=time.monotonic(),
            request_id=headers.get("x-llm-sidecar-request-id", ""),
            provider=headers.get("x-llm-sidecar-provider", ""),
            committed=status == 200 and CALLS[kind].shape != "plain",
            complete=complete,
            fault=fault,
        )


def _is_complete(kind: str, prompt: str, reply: Reply) -> bool:
    """Raises `NoProperEnd`."""
    text = None
    if reply.status == 200:
        try:
            text = text_of(kind, reply)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NoProperEnd(f"not readable ({error!r}): {reply.body[-300:]!r}") from error
    if text is None:
        check_error(CALLS[kind], reply)
        return False
    if text != f"{reply.headers['x-llm-sidecar-model']} (simulated) heard: {prompt}":
        raise NoProperEnd(f"not the answer to this request: {text[:300]!r}")
    return True
