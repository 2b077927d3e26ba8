"""What the simulator answers is right; what is cut, of another request or put together wrongly is not."""

import asyncio
from collections.abc import Callable
from itertools import islice

import aiohttp
import orjson
import pytest

from llm_sidecar.simulate import SimulatorSettings, running
from tests.trace.answers import Wrong, given_by_cache
from tests.trace.drawing import Trace
from tests.trace.requests import ANSWER_BYTES, HEADERS, ITEM_TOKENS, Kind, Request

Pair = tuple[Request, bytes]


@pytest.fixture(scope="module")
def answered() -> list[Pair]:
    """A part of the trace, asked of the provider itself."""

    async def ask() -> list[Pair]:
        settings = SimulatorSettings(port=0, faults=f"answer_bytes={ANSWER_BYTES}")
        async with running(settings) as simulator, aiohttp.ClientSession(simulator.base_url) as session:
            pairs = []
            for request in islice(Trace(5, name="answers"), 250):
                headers = HEADERS[request.family]
                async with session.post(request.path, data=request.body, headers=headers) as answer:
                    pairs.append((request, await answer.read()))
            return pairs

    return asyncio.run(ask())


def some(answered: list[Pair], *, of: Callable[[Request], bool]) -> list[Pair]:
    found = [(request, body) for request, body in answered if of(request)]
    assert len(found) > 1
    return found


def is_called(request: Request) -> bool:
    return bool(request.tool)


def is_text(request: Request) -> bool:
    return bool(request.text)


def is_batch(request: Request) -> bool:
    return len(request.items) > 1


def is_count(request: Request) -> bool:
    return request.kind is Kind.COUNT


def is_stream(request: Request) -> bool:
    return request.stream


def test_every_complete_answer_of_the_provider_is_right_and_cost_it_all(answered: list[Pair]) -> None:
    assert {request.kind for request, _ in answered} == {*Kind}
    for request, body in answered:
        assert given_by_cache(request, told="miss", body=body) == 0


@pytest.mark.parametrize("told", ["hit", "coalesced", "stale"])
def test_what_the_cache_gave_cost_nothing(answered: list[Pair], told: str) -> None:
    for request, body in answered:
        assert given_by_cache(request, told=told, body=body) == len(request.meanings)


@pytest.mark.parametrize("of", [is_called, is_text, is_batch, is_count])
def test_an_answer_to_another_request_is_wrong(answered: list[Pair], of: Callable[[Request], bool]) -> None:
    found = some(answered, of=of)
    for request, _ in found:
        for other, others in found:
            is_other = (other.text, other.tool, other.tokens, other.items) != (
                request.text,
                request.tool,
                request.tokens,
                request.items,
            )
            if is_other and (other.family, other.stream) == (request.family, request.stream):
                with pytest.raises(Wrong):
                    given_by_cache(request, told="hit", body=others)


@pytest.mark.parametrize("of", [is_called, is_text, is_batch, is_count, is_stream])
def test_an_answer_without_its_end_is_wrong(answered: list[Pair], of: Callable[[Request], bool]) -> None:
    for request, body in some(answered, of=of):
        end = -1 if not request.stream else body.rstrip().rfind(b"\n\n") + 2
        with pytest.raises(Wrong):
            given_by_cache(request, told="miss", body=body[:end])


def test_a_shortened_text_is_wrong(answered: list[Pair]) -> None:
    for request, body in some(answered, of=lambda request: is_text(request) and not request.stream):
        begin, _, _ = body.partition(b" The quick brown fox")
        rest = body[body.rfind(b" The quick") + 10 :]
        with pytest.raises(Wrong):
            given_by_cache(request, told="miss", body=begin + rest[rest.find(b'"') :])


def test_vectors_in_another_order_are_wrong(answered: list[Pair]) -> None:
    for request, body in some(answered, of=is_batch):
        document = orjson.loads(body)
        first, last = document["data"][0], document["data"][-1]
        first["embedding"], last["embedding"] = last["embedding"], first["embedding"]
        with pytest.raises(Wrong, match="another text"):
            given_by_cache(request, told="miss", body=orjson.dumps(document))


def test_items_of_a_batch_that_were_not_paid_for_came_from_the_cache(answered: list[Pair]) -> None:
    for request, body in some(answered, of=is_batch):
        document = orjson.loads(body)
        document["usage"]["prompt_tokens"] -= ITEM_TOKENS
        assert given_by_cache(request, told="miss", body=orjson.dumps(document)) == 1


@pytest.mark.parametrize("tokens", [ITEM_TOKENS - 1, -ITEM_TOKENS, 17 * ITEM_TOKENS])
def test_a_usage_that_no_number_of_items_has_is_wrong(answered: list[Pair], tokens: int) -> None:
    request, body = some(answered, of=is_batch)[0]
    document = orjson.loads(body)
    document["usage"]["prompt_tokens"] = tokens
    with pytest.raises(Wrong, match="usage"):
        given_by_cache(request, told="miss", body=orjson.dumps(document))
