"""Applications that ask one thing after another, hang up now and then, and note what each request came to."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Literal

import aiohttp
import orjson
from multidict import CIMultiDict

from tests.accounting.teams import TEAMS
from tests.chaos.answers import NoProperEnd, check_error, text_of
from tests.integration.proxy.api_errors import error_of, reason_of
from tests.integration.proxy.harness import Reply
from tests.integration.proxy.simulated_traffic import CALLS

if TYPE_CHECKING:
    from tests.accounting.fleet import Fleet
    from tests.accounting.settings import Plan

PATIENCE_SECONDS: Final = 20.0
PAUSE_SECONDS: Final = 0.2
"""At most, between two requests of one client."""
HANG_UP_SHARE: Final = 0.08
HANG_UP_SECONDS: Final = 0.25
GONE_PAUSE_SECONDS: Final = 0.1
KINDS: Final = ("chat", "chat-stream", "responses-stream", "messages", "messages-stream", "generate", "generate-stream")
MODELS: Final = {"openai": "model-openai", "anthropic": "model-anthropic", "gemini": "model-google"}
CAPS: Final = (160, 300, 600)
"""Every answer is shorter: a cap binds only what is reserved."""
WORDS: Final = (
    "all",
    "we",
    "asked",
    "for",
    "was",
    "one",
    "more",
    "small",
    "and",
    "honest",
    "sum",
    "of",
    "it",
    "in",
    "the",
    "end",
)

Result = Literal["answered", "error", "refused", "store away", "hung up", "sidecar gone", "improper"]
_FIGURES: Final = re.compile(
    r"limit '(?P<limit>[^']+)' .*?(?P<used>[\d.]+) (?P<unit>\S+) used and (?P<reserved>[\d.]+) reserved of "
    r"(?P<maximum>[\d.]+).*?needs (?P<requested>[\d.]+)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal's own figures, in the limit's unit."""

    limit: str
    used: int
    reserved: int
    requested: int
    maximum: int


@dataclass(slots=True, kw_only=True)
class Asked:
    """One request, as its application saw it. Times are seconds since 1970."""

    nonce: str
    team: str
    sidecar: int
    kind: str
    sent: float
    ended: float = 0.0
    result: Result | None = None
    """None where it has not ended, or ended twice: there must be none."""
    status: int = 0
    request_id: str = ""
    provider: str = ""
    refusal: Refusal | None = None
    fault: str = ""


class Crowd:
    """All applications; each has its sidecar, and each sidecar its team."""

    def __init__(self, plan: Plan, fleet: Fleet) -> None:
        self._plan = plan
        self._fleet = fleet
        self._numbers = count(1)
        self.asked: list[Asked] = []

    async def ask_until(self, stop: asyncio.Event) -> None:
        """Ask, until told to stop; every request that has begun is ended."""
        async with self._session() as session, asyncio.TaskGroup() as group:
            for number in range(self._plan.clients):
                draw = random.Random(f"{self._plan.seed}/{number}")
                group.create_task(self._client(session, number % self._plan.sidecars, draw, stop))

    async def ask_once(self, sidecar: int) -> Asked:
        """One request, which is not hung up."""
        async with self._session() as session:
            return await self._ask(session, sidecar, random.Random(sidecar), hang_up_share=0.0)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS),
            headers={"anthropic-version": "2023-06-01"},
        )

    async def _client(
        self, session: aiohttp.ClientSession, sidecar: int, draw: random.Random, stop: asyncio.Event
    ) -> None:
        share = HANG_UP_SHARE if "hang-up" in self._plan.faults else 0.0
        while not stop.is_set():
            asked = await self._ask(session, sidecar, draw, hang_up_share=share)
            pause = GONE_PAUSE_SECONDS if asked.result == "sidecar gone" else draw.random() * PAUSE_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)

    async def _ask(
        self, session: aiohttp.ClientSession, sidecar: int, draw: random.Random, *, hang_up_share: float
    ) -> Asked:
        kind = draw.choice(KINDS)
        nonce = f"id-{next(self._numbers):08x}"
        prompt = " ".join((nonce, *draw.choices(WORDS, k=draw.randint(4, 60))))
        asked = Asked(nonce=nonce, team=TEAMS[sidecar % len(TEAMS)], sidecar=sidecar, kind=kind, sent=time.time())
        self.asked.append(asked)
        path, body = _request(kind, prompt, draw.choice(CAPS), told=draw.random() < 0.5)
        patience = HANG_UP_SECONDS * draw.random() if draw.random() < hang_up_share else None
        url, token = self._fleet.address(sidecar)
        headers = {"authorization": f"Bearer {token}", "x-client-request-id": nonce}
        try:
            async with asyncio.timeout(patience):
                async with session.post(url + path, data=body, headers=headers) as answer:
                    asked.status = answer.status
                    asked.request_id = answer.headers.get("x-llm-sidecar-request-id", "")
                    asked.provider = answer.headers.get("x-llm-sidecar-provider", "")
                    content = await answer.read()
                    reply = Reply(status=answer.status, headers=CIMultiDict(answer.headers), body=content)
            _judge(asked, reply, prompt)
        except TimeoutError as error:
            if patience is None:
                asked.result, asked.fault = "improper", f"no end within {PATIENCE_SECONDS} s: {error!r}"
            else:
                asked.result = "hung up"
        except aiohttp.ClientError as error:
            asked.result, asked.fault = "sidecar gone", f"{type(error).__name__} {error}"
        asked.ended = time.time()
        return asked


def _request(kind: str, prompt: str, cap: int, *, told: bool) -> tuple[str, bytes]:
    """Path and body. `told`: whether a chat stream asks for its usage; else the sidecar does, and hides it."""
    call = CALLS[kind]
    path = call.path.replace("MODEL", MODELS[call.family])
    body: dict[str, Any] = {**call.body}
    if call.family == "gemini":
        body["contents"] = [{"role": "user", "parts": [{"text": prompt}]}]
        body["generationConfig"] = {"maxOutputTokens": cap}
        return path, orjson.dumps(body)
    body["model"] = MODELS[call.family]
    cap_name = {"chat": "max_completion_tokens", "responses": "max_output_tokens"}
    body[cap_name.get(kind.partition("-")[0], "max_tokens")] = cap
    if "input" in body:
        body["input"] = prompt
    else:
        body["messages"] = [{"role": "user", "content": prompt}]
    if not told:
        body.pop("stream_options", None)
    return path, orjson.dumps(body)


def _judge(asked: Asked, reply: Reply, prompt: str) -> None:
    """What the answer is: whole and the one to this request, or one proper error."""
    call = CALLS[asked.kind]
    try:
        text = text_of(asked.kind, reply) if reply.status == 200 else None
        if text is not None:
            is_ours = text.endswith(f"(simulated) heard: {prompt[:400]}")
            asked.result, asked.fault = (
                ("answered", "") if is_ours else ("improper", f"another's answer: {text[:200]!r}")
            )
            return
        check_error(call, reply)
    except (NoProperEnd, ValueError, KeyError, TypeError, AttributeError) as error:
        asked.result, asked.fault = "improper", f"{type(error).__name__} {error} {reply.body[-200:]!r}"
        return
    is_ours = "x-llm-sidecar-refused-by" in reply.headers
    code = reason_of(call, error_of(call, reply)) if is_ours else ""
    asked.result = {"team_quota_exceeded": "refused", "quota_store_unavailable": "store away"}.get(code, "error")  # type: ignore[assignment]  # each is a Result
    if code == "team_quota_exceeded":
        asked.refusal = _refusal(reply.json())
        if asked.refusal is None:
            asked.result, asked.fault = "improper", f"a refusal without figures: {reply.body[:300]!r}"


def _refusal(document: Any) -> Refusal | None:
    for found in _dictionaries(document):
        if {"limit", "used", "reserved", "requested", "maximum"} <= found.keys():
            return _read(found)
    told = _FIGURES.search(str(document["error"]["message"]))
    return None if told is None else _read(told.groupdict())


def _read(found: Mapping[str, Any]) -> Refusal:
    scale = 1 if found.get("unit") not in {"cost", "USD"} else 10**9
    amounts = {name: round(float(found[name]) * scale) for name in ("used", "reserved", "requested", "maximum")}
    return Refusal(limit=str(found["limit"]), **amounts)


def _dictionaries(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        yield document
        for value in document.values():
            yield from _dictionaries(value)
    elif isinstance(document, list):
        for value in document:
            yield from _dictionaries(value)
