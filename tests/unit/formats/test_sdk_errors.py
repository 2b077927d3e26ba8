"""What our errors, plain and in streams, make of the real SDKs: they must raise, and keep code and message."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types

from llm_sidecar.contract.names import API
from llm_sidecar.formats.model_lists import model_list, one_model
from llm_sidecar.formats.recognise import Family
from llm_sidecar.formats.registry import FORMATS
from tests.unit.formats.streams import CHAT, GEMINI_EVENTS, MESSAGES, RESPONSES, events, observer_of, request_of

CODE = "team_quota_exceeded"
MESSAGE = "The limit `daily` of payments/payments is used up."
DETAILS = {"limit": "daily", "used": 2_000_000, "retry_after_seconds": 30}
STREAM_CODE = "upstream_stream_ended"
STREAM_MESSAGE = "The provider's stream ended before it was complete."


def answering(status: int, body: bytes, content_type: str = "application/json") -> httpx2.Client:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=body, headers={"content-type": content_type}, request=request)

    return httpx2.Client(transport=httpx2.MockTransport(answer))


def openai_client(http: httpx2.Client) -> openai.OpenAI:
    return openai.OpenAI(api_key="t", base_url="http://127.0.0.1/v1", http_client=http, max_retries=0)


def anthropic_client(http: httpx2.Client) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="t", base_url="http://127.0.0.1", http_client=http, max_retries=0)


def google_client(http: httpx2.Client) -> genai.Client:
    options = genai_types.HttpOptions(base_url="http://127.0.0.1", httpx_client=http)
    return genai.Client(api_key="t", http_options=options)


def ask_chat(http: httpx2.Client) -> None:
    with openai_client(http) as client:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])


def ask_responses(http: httpx2.Client) -> None:
    with openai_client(http) as client:
        client.responses.create(model="m", input="x")


def ask_anthropic(http: httpx2.Client) -> None:
    with anthropic_client(http) as client:
        client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}])


def ask_google(http: httpx2.Client) -> None:
    with google_client(http) as client:
        client.models.generate_content(model="m", contents="x")


@pytest.mark.parametrize(("api", "ask"), [(API.OPENAI_CHAT, ask_chat), (API.OPENAI_RESPONSES, ask_responses)])
def test_openai_raises_the_right_error_with_our_code(api: API, ask: Callable[[httpx2.Client], None]) -> None:
    body = FORMATS[api].error_body(429, CODE, MESSAGE, DETAILS)

    with pytest.raises(openai.RateLimitError) as caught:
        ask(answering(429, body))

    assert caught.value.code == CODE
    assert MESSAGE in str(caught.value)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["details"] == DETAILS


def test_anthropic_raises_the_right_error_with_our_code() -> None:
    body = FORMATS[API.ANTHROPIC_MESSAGES].error_body(429, CODE, MESSAGE, DETAILS)

    with pytest.raises(anthropic.RateLimitError) as caught:
        ask_anthropic(answering(429, body))

    assert (caught.value.error_code, caught.value.type) == (CODE, "rate_limit_error")
    assert caught.value.api_message == MESSAGE


def test_google_raises_the_right_error_with_our_code() -> None:
    body = FORMATS[API.GEMINI].error_body(429, CODE, MESSAGE, DETAILS)

    with pytest.raises(genai_errors.ClientError) as caught:
        ask_google(answering(429, body))

    assert (caught.value.code, caught.value.status, caught.value.message) == (429, "RESOURCE_EXHAUSTED", MESSAGE)
    reason, retry = caught.value.details["error"]["details"]
    assert (reason["reason"], reason["domain"]) == (CODE, "llm-sidecar.io")
    assert retry["retryDelay"] == "30s"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 429, 500, 501, 502, 503, 504, 529])
def test_every_status_is_an_error_of_every_sdk(status: int) -> None:
    for api, ask, raised in (
        (API.OPENAI_CHAT, ask_chat, openai.APIStatusError),
        (API.OPENAI_EMBEDDINGS, ask_chat, openai.APIStatusError),
        (API.ANTHROPIC_MESSAGES, ask_anthropic, anthropic.APIStatusError),
        (API.GEMINI, ask_google, genai_errors.APIError),
    ):
        body = FORMATS[api].error_body(status, CODE, MESSAGE, {})
        with pytest.raises(raised, match=r"used up"):
            ask(answering(status, body))


def test_anthropic_keeps_the_id_of_our_request() -> None:
    body = FORMATS[API.ANTHROPIC_MESSAGES].error_body(500, CODE, MESSAGE, {"request_id": "r1"})

    assert json.loads(body)["request_id"] == "r1"
    assert "request_id" not in json.loads(body)["error"]["details"]


def cut(target: str, *documents: dict[str, Any], names: bool = False, end: str = "\n\n") -> list[bytes]:
    """A begun stream with our error behind it, made by the observer and by the format alone."""
    begun = events(*documents, names=names, end=end)
    observer = observer_of(target)
    relayed = observer.feed(begun + b"data: half a fra") + observer.finish()
    request = request_of(target)
    tail = observer.error_tail(502, STREAM_CODE, STREAM_MESSAGE)
    return [relayed + tail, relayed + FORMATS[request.call.api].stream_error(request, 502, STREAM_CODE, STREAM_MESSAGE)]


def test_openai_chat_raises_at_the_end_of_a_cut_stream() -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [{"index": 0, "delta": {"content": "hel"}, "finish_reason": None}]}  # fmt: skip
    for stream in cut(CHAT, chunk):
        seen: list[Any] = []
        with openai_client(answering(200, stream, "text/event-stream")) as client:
            answer = client.chat.completions.create(model="m", messages=[], stream=True)
            with pytest.raises(openai.APIError, match=STREAM_MESSAGE) as caught:
                seen.extend(answer)

        assert [one.choices[0].delta.content for one in seen] == ["hel"]
        assert caught.value.code == STREAM_CODE


def test_openai_responses_raises_at_the_end_of_a_cut_stream() -> None:
    delta = {"type": "response.output_text.delta", "delta": "hel", "item_id": "i", "output_index": 0,
             "content_index": 0, "sequence_number": 4, "logprobs": []}  # fmt: skip
    for stream in cut(RESPONSES, delta, names=True):
        seen: list[Any] = []
        with openai_client(answering(200, stream, "text/event-stream")) as client:
            answer = client.responses.create(model="m", input="x", stream=True)
            with pytest.raises(openai.APIError, match=STREAM_MESSAGE) as caught:
                seen.extend(answer)

        assert [one.type for one in seen] == ["response.output_text.delta"]
        assert caught.value.code == STREAM_CODE


def test_anthropic_raises_at_the_end_of_a_cut_stream() -> None:
    message: dict[str, Any] = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    for stream in cut(MESSAGES, {"type": "message_start", "message": message}, names=True):
        seen: list[Any] = []
        with anthropic_client(answering(200, stream, "text/event-stream")) as client:
            answer = client.messages.create(model="m", max_tokens=1, messages=[], stream=True)
            with pytest.raises(anthropic.APIStatusError, match=STREAM_MESSAGE) as caught:
                seen.extend(answer)

        assert [one.type for one in seen] == ["message_start"]
        assert caught.value.error_code == STREAM_CODE


def test_google_raises_at_the_end_of_a_cut_stream() -> None:
    chunk = {"candidates": [{"content": {"parts": [{"text": "hel"}], "role": "model"}, "index": 0}]}
    for stream in cut(GEMINI_EVENTS, chunk, end="\r\n\r\n"):
        seen: list[Any] = []
        with google_client(answering(200, stream, "text/event-stream")) as client:
            answer = client.models.generate_content_stream(model="m", contents="x")
            with pytest.raises(genai_errors.ServerError, match=STREAM_MESSAGE) as caught:
                seen.extend(answer)

        assert [one.text for one in seen] == ["hel"]
        assert caught.value.code == 502


@pytest.mark.parametrize("target", [CHAT, MESSAGES])
def test_an_error_behind_a_frame_that_lacks_its_empty_line_stands_alone(target: str) -> None:
    observer = observer_of(target)
    relayed = observer.feed(b"data: {}\n\ndata: {}\n") + observer.finish()

    stream = relayed + observer.error_tail(502, STREAM_CODE, STREAM_MESSAGE)

    assert stream.count(b"data: {}\n\n") == 2


def test_every_sdk_reads_our_model_lists() -> None:
    names = ["gpt-5-mini", "small"]

    with openai_client(answering(200, model_list(Family.OPENAI, names))) as client:
        assert [one.id for one in client.models.list()] == names
    with anthropic_client(answering(200, model_list(Family.ANTHROPIC, names))) as other:
        assert [one.id for one in other.models.list()] == names
    with google_client(answering(200, model_list(Family.GEMINI, names))) as third:
        assert [one.name for one in third.models.list()] == [f"models/{name}" for name in names]


def test_every_sdk_reads_one_model_of_ours() -> None:
    with openai_client(answering(200, one_model(Family.OPENAI, "a"))) as client:
        assert client.models.retrieve("a").id == "a"
    with anthropic_client(answering(200, one_model(Family.ANTHROPIC, "a"))) as other:
        assert other.models.retrieve("a").display_name == "a"
    with google_client(answering(200, one_model(Family.GEMINI, "a"))) as third:
        assert third.models.get(model="a").name == "models/a"


def test_an_empty_model_list_is_a_list() -> None:
    for family in Family:
        document = json.loads(model_list(family, []))
        assert document.get("data", document.get("models")) == []
