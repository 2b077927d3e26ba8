from __future__ import annotations

import json
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as gemini_errors

from llm_sidecar.simulate import Faults, FaultSpecError, SimulatorHandle, SimulatorSettings, parse_faults, running
from llm_sidecar.simulate.faults import STATUSES, FaultSchedule
from tests.unit.simulate.shapes import events_of

# google-genai subclasses aiohttp's session, which aiohttp discourages at import of that class.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

VERSION = {"anthropic-version": "2026-10-21"}
MESSAGES = [{"role": "user", "content": "one two three four five six"}]
CONTENTS = [{"parts": [{"text": "one two three four five six"}]}]
STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (
        "/v1/chat/completions",
        {"model": "m", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}},
    ),
    "responses": ("/v1/responses", {"model": "m", "input": "one two three four five six", "stream": True}),
    "messages": ("/v1/messages", {"model": "m", "max_tokens": 99, "messages": MESSAGES, "stream": True}),
    "gemini": ("/v1beta/models/m:streamGenerateContent?alt=sse", {"contents": CONTENTS}),
    "gemini-array": ("/v1beta/models/m:streamGenerateContent", {"contents": CONTENTS}),
}
ALL_STREAMS = pytest.mark.parametrize(("path", "body"), STREAMS.values(), ids=STREAMS.keys())
TERMINAL_MARKERS = ("[DONE]", "response.completed", "message_stop", "finishReason")
DELTAS = ('"content":"', '"type":"response.output_text.delta"', "text_delta", '"text":"')


def asked(specification: str) -> dict[str, str]:
    return {**VERSION, "x-llm-simulate": specification}


async def ledger(http: aiohttp.ClientSession) -> list[dict[str, Any]]:
    async with http.get("/_simulate/requests") as answer:
        entries: list[dict[str, Any]] = await answer.json()
    return entries


@pytest.mark.parametrize(
    ("specification", "named"),
    [
        ("statu=500", "statu=500"),
        ("status=500,chunks", "chunks"),
        ("status=418", "status=418"),
        ("cut_after=-1", "cut_after=-1"),
        ("latency_ms=1,latency_ms=2", "latency_ms"),
        ("garbage=xml", "garbage=xml"),
        ("fail_percent=101", "fail_percent=101"),
        ("retry_after_seconds=soon", "retry_after_seconds=soon"),
    ],
)
def test_a_specification_that_cannot_be_read_names_the_part(specification: str, named: str) -> None:
    with pytest.raises(FaultSpecError, match=named):
        parse_faults(specification)


def test_later_specifications_add_to_earlier_ones() -> None:
    base = parse_faults("latency_ms=5, status=500")

    assert parse_faults("status=429", base=base) == Faults(latency_ms=5, status=429)
    assert parse_faults("", base=base) == base


def test_a_share_of_requests_fails_the_same_way_in_every_run() -> None:
    faults = parse_faults("status=500,fail_percent=30,seed=7")
    runs = [[schedule.decide(faults).status for _ in range(200)] for schedule in (FaultSchedule(), FaultSchedule())]

    assert runs[0] == runs[1]
    assert 40 <= runs[0].count(500) <= 80


async def test_a_bad_specification_is_refused_with_the_part(http: aiohttp.ClientSession) -> None:
    async with http.post("/fault/statsu=1/v1/messages", json={}) as answer:
        assert answer.status == 400
        assert "statsu=1" in (await answer.json())["error"]["message"]


OPENAI_ERRORS: dict[int, type[Exception]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    429: openai.RateLimitError,
}
ANTHROPIC_ERRORS: dict[int, type[Exception]] = {
    400: anthropic.BadRequestError,
    401: anthropic.AuthenticationError,
    403: anthropic.PermissionDeniedError,
    404: anthropic.NotFoundError,
    429: anthropic.RateLimitError,
}


@pytest.mark.parametrize("status", STATUSES)
async def test_each_sdk_raises_its_class_for_each_status(
    simulator: SimulatorHandle,
    openai_client: openai.AsyncOpenAI,
    anthropic_client: anthropic.AsyncAnthropic,
    gemini_client: genai.Client,
    status: int,
) -> None:
    headers = {"x-llm-simulate": f"status={status}"}
    messages: Any = MESSAGES
    with pytest.raises(openai.APIStatusError) as openai_raised:
        await openai_client.chat.completions.create(model="m", messages=messages, extra_headers=headers)
    with pytest.raises(anthropic.APIStatusError) as anthropic_raised:
        await anthropic_client.messages.create(model="m", max_tokens=9, messages=messages, extra_headers=headers)
    with pytest.raises(gemini_errors.APIError) as gemini_raised:
        await gemini_client.aio.models.generate_content(
            model="m", contents="Hi", config={"http_options": {"headers": headers}}
        )

    fallback = openai.InternalServerError if status >= 500 else openai.APIStatusError
    assert isinstance(openai_raised.value, OPENAI_ERRORS.get(status, fallback))
    assert openai_raised.value.status_code == status
    assert isinstance(anthropic_raised.value, ANTHROPIC_ERRORS.get(status, anthropic.APIStatusError))
    assert anthropic_raised.value.status_code == status
    assert isinstance(gemini_raised.value, gemini_errors.ServerError if status >= 500 else gemini_errors.ClientError)
    assert gemini_raised.value.code == status


async def test_a_429_tells_each_apis_own_hint(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/chat/completions", headers=asked("status=429,retry_after_seconds=1.5")) as answer:
        assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "1500")
        assert answer.headers["x-ratelimit-reset-requests"] == "1.5s"
    async with http.post("/v1/messages", headers=asked("status=429")) as answer:
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["anthropic-ratelimit-requests-remaining"] == "0"
    async with http.post("/v1/models/m:generateContent", headers=asked("status=429,retry_after_seconds=52")) as answer:
        assert "retry-after" not in answer.headers
        assert (await answer.json())["error"]["details"][-1]["retryDelay"] == "52s"
    async with http.post("/v1/messages", headers=asked("status=429,retry_after_seconds=none")) as answer:
        assert "retry-after" not in answer.headers


async def test_an_exhausted_quota_is_told_apart_from_a_rate_limit(http: aiohttp.ClientSession) -> None:
    bodies = []
    for path in ("/v1/chat/completions", "/v1/messages", "/v1beta/models/m:generateContent"):
        async with http.post(path, headers=asked("quota=exhausted")) as answer:
            assert answer.status == 429
            bodies.append((await answer.json())["error"])

    assert bodies[0]["code"] == "insufficient_quota"
    assert bodies[1]["details"]["error_code"] == "enforced_spend_limit_reached"
    assert "PerDay" in bodies[2]["details"][0]["violations"][0]["quotaId"]


@ALL_STREAMS
async def test_a_cut_stream_ends_in_the_middle_of_the_body(
    http: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> None:
    seen = b""
    with pytest.raises(aiohttp.ClientPayloadError):  # noqa: PT012 - what came before the cut counts
        async with http.post(path, json=body, headers=asked("cut_after=3")) as answer:
            async for piece in answer.content.iter_any():
                seen += piece

    assert max(seen.decode().count(delta) for delta in DELTAS) >= 3
    assert not [marker for marker in TERMINAL_MARKERS if marker in seen.decode()]


@ALL_STREAMS
async def test_an_ended_stream_lacks_only_its_terminal_marker(
    http: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> None:
    async with http.post(path, json=body, headers=asked("end_after=2")) as answer:
        text = await answer.text()

    assert text
    assert not [marker for marker in TERMINAL_MARKERS if marker in text]
    entry = (await ledger(http))[-1]
    assert (entry["outcome"], entry["usage_true"]["output_tokens"]) == ("broken on purpose", 4)


@ALL_STREAMS
async def test_an_error_comes_in_the_apis_own_way(http: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> None:
    async with http.post(path, json=body, headers=asked("error_after=1")) as answer:
        text = await answer.text()

    name, last = (None, json.loads(text)[-1]) if "alt" not in path and "Generate" in path else events_of(text)[-1]
    assert name == ("error" if path in ("/v1/responses", "/v1/messages") else None)
    assert "error" in last or last["type"] == "error"
    assert ("sequence_number" in last) == (path == "/v1/responses")


@ALL_STREAMS
async def test_a_malformed_frame_stands_between_whole_ones(
    http: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> None:
    async with http.post(path, json=body, headers=asked("malformed_after=1")) as answer:
        text = await answer.text()

    assert text.count('{"broken": ') == 1
    assert [marker for marker in TERMINAL_MARKERS if marker in text.partition('{"broken": ')[2]]


@ALL_STREAMS
async def test_a_break_beyond_the_last_piece_still_comes_before_the_end(
    http: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> None:
    async with http.post(path, json=body, headers=asked("end_after=1000")) as answer:
        text = await answer.text()

    assert "six" in text
    assert not [marker for marker in TERMINAL_MARKERS if marker in text]


@ALL_STREAMS
async def test_chunks_sets_the_number_of_pieces(http: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> None:
    async with http.post(path, json=body, headers=asked("chunks=200,chunk_interval_ms=0")) as answer:
        text = await answer.text()

    assert max(text.count(delta) for delta in DELTAS) - 200 in (0, 1, 2)


async def test_a_stalled_stream_sends_its_pieces_and_notices_that_the_client_left(
    http: aiohttp.ClientSession,
) -> None:
    path, body = STREAMS["messages"]
    async with http.post(path, json=body, headers=asked("stall_after=1,first_token_ms=1")) as answer:
        text = b""
        while b"text_delta" not in text:
            text += await answer.content.readany()
        answer.close()

    entry: dict[str, Any] = {"outcome": "open"}
    while entry["outcome"] == "open":
        entry = (await ledger(http))[0]
    assert (entry["outcome"], entry["usage_told"]) == ("client gone", None)
    assert entry["usage_true"]["output_tokens"] == 1


async def test_a_stalled_answer_does_not_hold_up_the_end() -> None:
    async with running(SimulatorSettings(port=0, faults="stall_after=0")) as handle, aiohttp.ClientSession() as session:
        answer = await session.post(f"{handle.base_url}/v1/chat/completions", json=STREAMS["chat"][1])
        assert b"assistant" in await answer.content.readany()
    answer.close()


async def test_a_plain_answer_breaks_half_way(http: aiohttp.ClientSession) -> None:
    body = {"model": "m", "messages": MESSAGES}
    async with http.post("/v1/chat/completions", json=body, headers=asked("end_after=0")) as answer:
        with pytest.raises(json.JSONDecodeError):
            json.loads(await answer.text())
    async with http.post("/v1/chat/completions", json=body, headers=asked("cut_after=0")) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_garbage_is_a_200_that_is_no_answer(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/messages", json={}, headers=asked("garbage=html")) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
    async with http.post("/v1/messages", json={}, headers=asked("garbage=json")) as answer:
        assert answer.content_type == "application/json"
        with pytest.raises(json.JSONDecodeError):
            json.loads(await answer.text())


async def test_a_redirect_points_away(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/messages", headers=asked("redirect=307"), allow_redirects=False) as answer:
        assert (answer.status, answer.headers["location"]) == (307, "/_simulate/redirected")


async def test_only_the_first_requests_fail_and_a_reset_begins_anew(http: aiohttp.ClientSession) -> None:
    async def statuses() -> list[int]:
        seen = []
        for _ in range(3):
            async with http.post(
                "/fault/status=503,fail_times=2/v1/responses", json={"model": "m", "input": "Hi"}
            ) as r:
                seen.append(r.status)
        return seen

    assert await statuses() == [503, 503, 200]
    assert await statuses() == [200, 200, 200]
    async with http.delete("/_simulate/requests") as answer:
        assert answer.status == 204
    assert await statuses() == [503, 503, 200]


async def test_sizes_and_usage_follow_the_specification(http: aiohttp.ClientSession) -> None:
    body = {"model": "m", "input": "Hi"}
    async with http.post("/v1/responses", json=body, headers=asked("answer_bytes=5000")) as answer:
        told = await answer.json()
        assert len(told["output"][0]["content"][0]["text"]) == 5000
        assert told["usage"]["output_tokens"] == 1250
    specification = "cached_tokens=2,thinking_tokens=7"
    async with http.post("/v1/responses", json=body, headers=asked(specification)) as answer:
        usage = (await answer.json())["usage"]
        assert usage["input_tokens_details"]["cached_tokens"] == 2
        assert usage["output_tokens_details"]["reasoning_tokens"] == 7
    async with http.post("/v1/responses", json=body, headers=asked("usage=none")) as answer:
        assert (await answer.json())["usage"] is None
    assert [entry["usage_told"] is None for entry in await ledger(http)] == [False, False, True]
    path, stream = STREAMS["chat"]
    async with http.post(path, json=stream, headers=asked("oversized_frame_bytes=100000")) as answer:
        assert max(map(len, (await answer.text()).split("\n\n"))) > 100_000
