"""Every recorded request of each language, through a real proxy, to a provider of each other one.

The provider answers with what the real one was recorded to answer. Whatever comes of a request: it is answered in the
application's own language, whole, and with the usage that the provider told; or it is refused with the reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

import orjson
import pytest
from aiohttp import web

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.translation.events import Ended
from llm_sidecar.translation.registry import GENERATING, translator
from tests.integration.conftest import SimulatedProvider
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import Reply, Upstream, document, plain, provider, streaming
from tests.integration.recorded_exchanges import Exchange
from tests.unit.translation.recordings import recorded, recorded_gemini_embeddings

Serve = Callable[..., Awaitable[Upstream]]

TYPES: Final[Mapping[API, str]] = {API.ANTHROPIC_MESSAGES: "Anthropic", API.GEMINI: "Google"}
NO_CACHE: Final = {"ttlSeconds": {"generation": 0, "embeddings": 0, "tokenCount": 0}}


class Recorded:
    """A provider of one language that gives all its recorded answers in turn: streams to those who ask for one."""

    def __init__(self, api: API) -> None:
        self._api = api
        answers = [each for each in recorded(api) if each.status == 200]
        streams = [each for each in answers if each.is_stream]
        wholes = [each for each in answers if not each.is_stream]
        self._answers: dict[bool, Iterator[Exchange]] = {
            True: itertools.cycle(streams),
            False: itertools.cycle(wholes),
        }
        self._given: Exchange | None = None

    def take(self) -> Exchange | None:
        """What was given since the last time; None where nobody asked."""
        given, self._given = self._given, None
        return given

    async def __call__(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        in_path = ":streamGenerateContent" in request.path
        document = orjson.loads(body)
        model = request.path.rpartition("/models/")[2].partition(":")[0] if self._api is API.GEMINI else None
        path = request.path.removeprefix("/v1") if self._api not in TYPES else request.path
        call = Call(
            api=self._api,
            type=RequestType.GENERATION,
            path=path,
            model=model,
            stream=in_path if self._api is API.GEMINI else None,
        )
        FORMATS[self._api].parse_request(call, body)
        translator(self._api).decode_request(call, document)  # raises where it is none of this language
        self._given = given = next(self._answers[in_path or document.get("stream") is True])
        answer = streaming(given.response) if given.is_stream else plain(given.response)
        return await answer(request, body)


@pytest.mark.needs("recordings")
@pytest.mark.parametrize(
    ("client", "target"), [pair for pair in itertools.product(GENERATING, GENERATING) if pair[0] is not pair[1]]
)
async def test_a_recorded_request_is_answered_in_its_own_language_or_refused_with_the_reason(
    start_proxy: StartProxy, serve: Serve, client: API, target: API
) -> None:
    recordings = Recorded(target)
    upstream = await serve(recordings)
    place = provider(
        "elsewhere",
        upstream.base_url,
        type=TYPES.get(target, "OpenAI"),
        apis=[target.value],
        models=["*"],
        cache=NO_CACHE,
        retry={"maxAttempts": 1},
        circuitBreaker={"failureThreshold": 1000},
    )
    proxy = await start_proxy(document(place))
    answered: list[tuple[Reply, Exchange, Exchange]] = []
    refused = 0
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    for exchange in recorded(client):
        reply = await proxy.ask("POST", exchange.path, headers=headers, data=exchange.request_body)
        given = recordings.take()
        if given is None:
            _is_refused(reply, exchange)
            refused += 1
        else:
            answered.append((reply, exchange, given))

    await proxy.last_audit_line(refused + len(answered))
    lines = {line["request_id"]: line for line in proxy.audit_lines()}
    for reply, exchange, answer in answered:
        _is_answered(reply, client, exchange, lines[reply.request_id], answer)
    assert answered
    assert refused


def _is_refused(reply: Reply, exchange: Exchange) -> None:
    """Nobody was asked: the request cannot be said there, or is no good one in its own language."""
    assert reply.status in {400, 503}, (exchange.id, reply.body)
    if reply.status == 503:
        assert reply.code == "no_provider_available"
        assert b"was not asked" in reply.body
        assert b" cannot say " in reply.body


def _is_answered(reply: Reply, client: API, exchange: Exchange, line: dict[str, Any], given: Exchange) -> None:
    assert reply.status == 200, (exchange.id, given.id, reply.body)
    assert line["attempts"][0]["outcome"] == "answered"
    if given.usage is not None:
        assert line["usage"] == given.usage, (exchange.id, given.id)
    if not given.is_stream:
        translator(client).decode_answer(reply.json())
        return
    if "alt=sse" not in exchange.path and client is API.GEMINI:
        assert all(isinstance(each, dict) for each in reply.json())
        return
    decoder = translator(client).stream_decoder(max_frame_bytes=2**24)
    events = [*decoder.feed(reply.body), *decoder.finish()]
    assert isinstance(events[-1], Ended), (exchange.id, given.id, reply.body[-500:])


@pytest.mark.needs("recordings")
@pytest.mark.parametrize(("client", "target"), [("openai", "Google"), ("gemini", "OpenAI")])
async def test_a_recorded_request_to_embed_is_answered_by_the_other_provider_or_refused_with_the_reason(
    start_proxy: StartProxy, simulator: SimulatedProvider, client: str, target: str
) -> None:
    place = provider(
        "elsewhere", simulator.base_url, type=target, credential=simulator.key, models=["*"], cache=NO_CACHE
    )
    proxy = await start_proxy(document(place))
    exchanges = recorded(API.OPENAI_EMBEDDINGS) if client == "openai" else recorded_gemini_embeddings()
    answered = 0
    for exchange in exchanges:
        reply = await proxy.ask("POST", exchange.path, data=exchange.request_body)
        if reply.status == 503:
            _is_refused(reply, exchange)
            continue
        assert reply.status == 200, (exchange.id, reply.body)
        vectors = reply.json().get("data") or reply.json().get("embeddings") or [reply.json()["embedding"]]
        assert vectors
        answered += 1
    assert answered


SIMPLE: Final[Mapping[API, tuple[str, dict[str, Any]]]] = {
    API.OPENAI_CHAT: ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "hello"}]}),
    API.OPENAI_RESPONSES: ("/v1/responses", {"model": "m", "input": "hello"}),
    API.ANTHROPIC_MESSAGES: (
        "/v1/messages",
        {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]},
    ),
    API.GEMINI: ("/v1beta/models/m:generateContent", {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}),
}


@pytest.mark.needs("recordings")
@pytest.mark.parametrize(
    ("client", "target"), [pair for pair in itertools.product(GENERATING, GENERATING) if pair[0] is not pair[1]]
)
async def test_a_recorded_error_is_told_in_the_shape_of_the_api_that_was_called(
    start_proxy: StartProxy, serve: Serve, client: API, target: API
) -> None:
    """With its status and its own words, unless they are about our key or account."""
    errors = [each for each in recorded(target) if each.status >= 400]
    answers = iter(errors)

    async def answer(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        given = next(answers)
        return await plain(given.response, status=given.status)(request, body)

    upstream = await serve(answer)
    place = provider(
        "elsewhere",
        upstream.base_url,
        type=TYPES.get(target, "OpenAI"),
        apis=[target.value],
        models=["*"],
        retry={"maxAttempts": 1},
        circuitBreaker={"failureThreshold": 1000},
    )
    proxy = await start_proxy(document(place))
    path, request = SIMPLE[client]
    for error in errors:
        reply = await proxy.ask("POST", path, headers={"anthropic-version": "2023-06-01"}, data=orjson.dumps(request))
        told = reply.json()["error"]
        if reply.status == 503 and error.status in {401, 402, 403}:
            continue
        assert reply.status == error.status, (error.id, reply.body)
        words = orjson.loads(error.response)
        words = words[0] if isinstance(words, list) else words
        assert told["message"] == words["error"]["message"], error.id
        assert ("status" in told) == (client is API.GEMINI)
        assert (reply.json().get("type") == "error") == (client is API.ANTHROPIC_MESSAGES)
