"""Every recorded answer of the real providers that may be stored comes back the same: plain, and as a stream.

Each exchange is played through a sidecar once. Then it is asked for again in both ways, and no provider hears of it:
the plain answer must be the recorded one, and the SDK must make the same message of the stream as it makes of the
recording.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from yarl import URL

from llm_sidecar.cache.policy import CachePolicy
from llm_sidecar.contract.names import RequestType
from llm_sidecar.contract.team_quota_resource import CachedGenerations
from llm_sidecar.formats.base import Call, ParsedRequest
from llm_sidecar.formats.recognise import recognise
from llm_sidecar.formats.registry import FORMATS
from tests.integration.processes import Sidecar, running_sidecar
from tests.integration.recorded_exchanges import APIS, Exchange, load
from tests.integration.replay import RECORDING_HEADER, Received, replaying
from tests.integration.sdk_messages import message_of_plain, message_of_stream
from tests.integration.test_recorded_traffic import ANTHROPIC_VERSION, MANIFESTS, UPSTREAM_KEYS

pytestmark = [pytest.mark.needs("recordings"), pytest.mark.xdist_group("recorded_traffic")]

CONCURRENT_REQUESTS: Final = 8
STORED_WITHIN_SECONDS: Final = 10.0
POLICY: Final = CachePolicy(CachedGenerations.ALL)
EVERYTHING: Final = 'models: [{name: "*"}]'


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer of the sidecar's."""

    status: int
    cache: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One exchange, and what came of it."""

    exchange: Exchange
    call: Call
    first: Reply
    is_storable: bool
    plain: Reply | None = None
    stream: Reply | None = None
    heard: int = 0
    """How often the provider was asked once the answer was stored."""


@pytest.fixture(scope="module")
def played(recordings_directory: Path, shared_store_url: str, tmp_path_factory: pytest.TempPathFactory) -> list[Played]:
    """All exchanges that are calls of the APIs, played."""
    return asyncio.run(_play(load(recordings_directory), shared_store_url, tmp_path_factory.mktemp("recorded-cache")))


async def _play(exchanges: list[Exchange], store_url: str, folder: Path) -> list[Played]:
    done: list[Played] = []
    async with replaying(exchanges) as replay:
        manifests = MANIFESTS.format(base_url=replay.base_url, keys=UPSTREAM_KEYS, rest=EVERYTHING)
        manifests = manifests.replace("generations: None", "generations: All")
        for api in APIS:
            path = folder / f"{api}.yaml"
            own = [each for each in manifests.split("---\n") if "LLMProvider" not in each or f"name: {api}}}" in each]
            path.write_text("---\n".join(own))
            async with _application(path, store_url, replay.received) as application:
                done += await application.play([one for one in exchanges if one.api == api])
    return done


@asynccontextmanager
async def _application(
    manifests: Path, store_url: str, received: dict[str, list[Received]]
) -> AsyncIterator[Application]:
    with running_sidecar(manifests, arguments=("--redis", store_url)) as sidecar:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Application(sidecar, session, received)


class Application:
    """Asks one sidecar."""

    def __init__(self, sidecar: Sidecar, session: aiohttp.ClientSession, received: dict[str, list[Received]]) -> None:
        self._received = received
        self._sidecar = sidecar
        self._session = session
        self._turns = asyncio.Semaphore(CONCURRENT_REQUESTS)

    async def play(self, exchanges: list[Exchange]) -> list[Played]:
        """All of them; what must not be stored is asked for once more after everything else."""
        done = await asyncio.gather(*[self._play_one(one) for one in exchanges if _call(one) is not None])
        return [
            one if one.is_storable else replace(one, plain=await self._ask(one.exchange, stream=None, only_cached=True))
            for one in done
        ]

    async def _play_one(self, exchange: Exchange) -> Played:
        parsed = _parsed(exchange)
        async with self._turns:
            first = await self._ask(exchange, stream=None)
            storable = _may_be_stored(exchange, parsed)
            played = Played(exchange=exchange, call=parsed.call, first=first, is_storable=storable)
            if not storable:
                return played
            await self._until_stored(exchange)
            before = len(self._received[exchange.id])
            generates = parsed.call.type is RequestType.GENERATION
            plain = await self._ask(exchange, stream=False if generates else None)
            stream = await self._ask(exchange, stream=True) if generates else None
            heard = len(self._received[exchange.id]) - before
            return replace(played, plain=plain, stream=stream, heard=heard)

    async def _until_stored(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STORED_WITHIN_SECONDS
        while (await self._ask(exchange, stream=None, only_cached=True)).status != 200:
            assert loop.time() < deadline, f"{exchange.id} {exchange.path} is not stored"
            if loop.time() > deadline - STORED_WITHIN_SECONDS / 2:  # on a busy machine, the store may time out once
                await self._ask(exchange, stream=None)

    async def _ask(self, exchange: Exchange, *, stream: bool | None, only_cached: bool = False) -> Reply:
        """As it was recorded, or as a stream, or plain."""
        path, body = _delivered(exchange, stream=stream)
        headers = {RECORDING_HEADER: exchange.id, **exchange.request_headers, "Accept-Encoding": "identity"}
        if exchange.api == "anthropic":
            headers |= {"anthropic-version": ANTHROPIC_VERSION}
        if only_cached:
            headers["Cache-Control"] = "only-if-cached"
        headers["Authorization"] = f"Bearer {self._sidecar.token}"
        async with self._session.request(
            exchange.method, URL(self._sidecar.base_url + path, encoded=True), data=body, headers=headers
        ) as response:
            return Reply(
                status=response.status,
                cache=response.headers.get("x-llm-sidecar-cache", ""),
                body=await response.read(),
            )


def _delivered(exchange: Exchange, *, stream: bool | None) -> tuple[str, bytes | None]:
    """Path and body of the same question, to be answered in another way."""
    if stream is None:
        return exchange.path, exchange.request_body
    if ":generateContent" in exchange.path or ":streamGenerateContent" in exchange.path:
        path = exchange.path.partition("?")[0].replace(":streamGenerateContent", ":generateContent")
        return path.replace(":generateContent", ":streamGenerateContent") + "?alt=sse" if stream else path, (
            exchange.request_body
        )
    document = {name: value for name, value in exchange.request.items() if name not in {"stream", "stream_options"}}
    if stream:
        document["stream"] = True
        if exchange.path == "/v1/chat/completions":
            document["stream_options"] = {"include_usage": True}
    return exchange.path, json.dumps(document).encode()


def _call(exchange: Exchange) -> Call | None:
    if not isinstance(exchange.request, dict):
        return None
    path, _, query = exchange.path.partition("?")
    found = recognise(exchange.method, path, query, exchange.request_headers)
    # Vectors are kept one by one, which is another suite's matter.
    return found if isinstance(found, Call) and found.type is not RequestType.EMBEDDINGS else None


def _parsed(exchange: Exchange) -> ParsedRequest:
    call = _call(exchange)
    assert call is not None
    return FORMATS[call.api].parse_request(call, exchange.request_body or b"")


_FINISHED: Final = re.compile(
    rb'"finish_reason"\s*:\s*"(?:stop|tool_calls)"|"type"\s*:\s*"response.completed"|"finishReason"\s*:\s*"STOP"'
    rb'|"stop_reason"\s*:\s*"(?:end_turn|tool_use|stop_sequence)"'
)
_ENDED_BY_ITSELF: Final = frozenset(
    {"stop", "tool_calls", "function_call", "end_turn", "tool_use", "stop_sequence", "STOP", "completed"}
)
"""What the SDKs' types list for an answer that is whole. They also list `length`, `content_filter`, `max_tokens`,
`pause_turn`, `refusal`, `MAX_TOKENS`, `SAFETY`, `incomplete`, `failed` and more."""


def _ended_by_itself(answer: Any) -> bool:
    """Of a plain answer, by another reading than the product's.

    Every end that it tells, wherever it stands, is a normal one; it tells one, unless it is a count; and nowhere is
    there an error or a refusal.
    """
    told: dict[str, list[Any]] = {}
    stack = [answer]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            for name, each in value.items():
                told.setdefault(name, []).append(each)
        stack += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    wrong = ("error", "refusal", "incomplete_details", "blockReason")
    if any(value for name in wrong for value in told.get(name, ())) or "refusal" in told.get("type", ()):
        return False
    ends = [end for name in ("finish_reason", "stop_reason", "finishReason") for end in told.get(name, ())]
    ends += told.get("status", ())
    return all(end in _ENDED_BY_ITSELF for end in ends) if ends else bool({"input_tokens", "totalTokens"} & set(answer))


def _may_be_stored(exchange: Exchange, parsed: ParsedRequest) -> bool:
    if exchange.status != 200 or not POLICY.allows(parsed):
        return False
    if exchange.is_stream:
        return _FINISHED.search(exchange.response) is not None
    return _ended_by_itself(json.loads(exchange.response))


def _has_no_stream(one: Played) -> bool:
    return one.stream is not None and one.stream.cache != "hit"


def _tell(wrong: list[tuple[Exchange, Any, Any]]) -> str:
    return "\n".join(
        f"{one.id} {one.path}\n  expected {expected}\n  was      {was}" for one, expected, was in wrong[:9]
    )


def test_enough_of_each_kind_is_played(played: list[Played]) -> None:
    """Else the rest of this proves nothing."""
    plain = [one for one in played if one.is_storable and not one.exchange.is_stream]
    streams = [one for one in played if one.is_storable and one.exchange.is_stream]
    assert len(plain) > 290
    assert len(streams) > 12
    assert {one.call.api for one in plain} == {one.call.api for one in streams}


def test_the_first_answer_is_the_recorded_one(played: list[Played]) -> None:
    wrong = [
        (one.exchange, one.exchange.response[:300], one.first.body[:300])
        for one in played
        if one.first.status != one.exchange.status or one.first.body != one.exchange.response
    ]
    assert not wrong, _tell(wrong)


def test_what_is_stored_is_served_without_asking_again(played: list[Played]) -> None:
    """But where it has no stream: then whoever wants one is given the provider's."""
    wrong = [
        (one.exchange, 0, one.heard)
        for one in played
        if one.is_storable and (one.plain is None or one.plain.cache != "hit" or one.heard != _has_no_stream(one))
    ]
    assert not wrong, _tell(wrong)


def test_what_may_not_be_stored_is_not(played: list[Played]) -> None:
    """Refusals, cuts, errors, state, server-side tools."""
    not_stored = [one for one in played if not one.is_storable and one.plain is not None]
    assert len(not_stored) > 50
    wrong = [(one.exchange, 504, one.plain.status) for one in not_stored if one.plain and one.plain.status != 504]
    assert not wrong, _tell(wrong)


def test_a_recorded_plain_answer_comes_back_to_the_byte(played: list[Played]) -> None:
    wrong = [
        (one.exchange, one.exchange.response[:300], one.plain.body[:300])
        for one in played
        if one.plain is not None and one.is_storable and not one.exchange.is_stream
        if one.plain.body != one.exchange.response
    ]
    assert not wrong, _tell(wrong)


def test_a_recorded_stream_comes_back_plain_as_the_message_that_the_sdk_makes_of_it(played: list[Played]) -> None:
    for one in played:
        if one.plain is not None and one.is_storable and one.exchange.is_stream:
            expected = message_of_stream(one.call.api, one.exchange.response)

            assert expected == message_of_plain(one.call.api, one.plain.body), one.exchange.id


def test_the_sdk_makes_the_same_message_of_the_stream(played: list[Played]) -> None:
    """Whether the answer was recorded plain or as a stream."""
    compared = 0
    for one in played:
        if one.stream is None or (one.stream.cache, one.stream.status) != ("hit", 200):
            continue
        recorded = message_of_stream if one.exchange.is_stream else message_of_plain
        expected = recorded(one.call.api, one.exchange.response)

        assert expected == message_of_stream(one.call.api, one.stream.body), one.exchange.id
        compared += 1
    assert compared > 290


def test_only_what_has_no_stream_is_not_streamed(played: list[Played]) -> None:
    """Sound comes plain only: its stream would come from a provider."""
    missed = [one.exchange for one in played if _has_no_stream(one)]
    assert all(b'"audio": {' in one.response for one in missed)
