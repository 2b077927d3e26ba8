"""OpenAI chat completions: requests, answers and streams."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import FrameUnreadable, MalformedRequest, StreamError, Usage
from llm_sidecar.formats.json_body import apply_splices
from llm_sidecar.formats.registry import FORMATS
from tests.unit.formats.streams import (
    CHAT,
    call_of,
    committed_and_ended,
    events,
    facts,
    observer_of,
    play,
    request_of,
    split_at,
)

FORMAT = FORMATS[API.OPENAI_CHAT]
CALL = call_of(CHAT)
PROMPT = [{"role": "user", "content": "hello"}]


def chunk(*choices: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": list(choices), **members}


OPENING = chunk({"index": 0, "delta": {"role": "assistant", "content": "", "refusal": None}, "finish_reason": None})
TEXT = chunk({"index": 0, "delta": {"content": 'é "error" 😀'}, "finish_reason": None}, usage=None)
STOP = chunk({"index": 0, "delta": {}, "finish_reason": "stop"}, usage=None)
USAGE = chunk(usage={"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14})
STREAM = events(OPENING, TEXT, STOP, USAGE, "[DONE]")


def test_the_facts_of_a_request_are_read() -> None:
    request = request_of(CHAT, messages=PROMPT, max_completion_tokens=50, n=3, stream=False)

    assert (request.model, request.stream, request.max_output_tokens) == ("m", False, 150)
    assert not request.stateful
    assert not request.deterministic


@pytest.mark.parametrize("document", [{}, {"model": None}, {"model": 5}, {"model": ""}])
def test_a_request_without_a_model_is_malformed(document: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequest, match="`model`"):
        FORMAT.parse_request(CALL, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("members", "limit"),
    [({}, None), ({"max_tokens": 7}, 7), ({"max_tokens": 7, "n": 2}, 14), ({"max_tokens": "7"}, None)],
)
def test_the_output_limit_is_over_all_choices(members: dict[str, Any], limit: int | None) -> None:
    assert request_of(CHAT, messages=PROMPT, **members).max_output_tokens == limit


@pytest.mark.parametrize(
    ("members", "deterministic"),
    [
        ({"temperature": 0}, True),
        ({"temperature": 0.0, "n": 1, "tools": [{"type": "function"}]}, True),
        ({"temperature": 0, "n": 2}, False),
        ({"temperature": 0.1}, False),
        ({"temperature": False}, False),
        ({}, False),
        ({"temperature": 0, "web_search_options": {}}, False),
        ({"temperature": 0, "tools": [{"type": "web_search"}]}, False),
    ],
)
def test_only_temperature_zero_without_server_tools_is_deterministic(
    members: dict[str, Any], deterministic: bool
) -> None:
    assert request_of(CHAT, messages=PROMPT, **members).deterministic is deterministic


@pytest.mark.parametrize(
    ("members", "stateful"),
    [
        ({"store": True}, True),
        ({"store": False}, False),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, True),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, True),
        ({"audio": {"voice": "alloy"}}, False),
        ({"tools": [{"type": "function", "function": {"parameters": {"properties": {"file_id": {}}}}}]}, False),
    ],
)
def test_what_lives_at_one_provider_makes_a_request_stateful(members: dict[str, Any], stateful: bool) -> None:
    assert request_of(CHAT, **members).stateful is stateful


def test_images_count_as_parts_and_not_by_their_size() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    with_image = request_of(CHAT, messages=[{"role": "user", "content": [image]}])
    link = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    with_link = request_of(CHAT, messages=[{"role": "user", "content": [link]}])

    assert 1600 < with_image.input_tokens_estimate < 1700
    assert 1600 < with_link.input_tokens_estimate < 1700


def test_text_is_estimated_a_little_too_high() -> None:
    words = "The quick brown fox jumps over the lazy dog. " * 100
    estimate = request_of(CHAT, messages=[{"role": "user", "content": words}]).input_tokens_estimate

    assert 1000 < estimate < 1500  # by a real tokenizer: about 1,000


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"include_usage": True}),
        ({"stream_options": None}, {"include_usage": True}),
        ({"stream_options": {}}, {"include_usage": True}),
        ({"stream_options": {"include_usage": False}}, {"include_usage": True}),
        ({"stream_options": {"include_usage": None, "x": 1}}, {"include_usage": True, "x": 1}),
        ({"stream_options": {"x": {"include_usage": 0}}}, {"include_usage": True, "x": {"include_usage": 0}}),
        ({"stream_options": "odd"}, "odd"),
    ],
)
def test_usage_is_asked_for_wherever_the_request_left_room(options: dict[str, Any], expected: object) -> None:
    request = request_of(CHAT, messages=PROMPT, **options)

    body = apply_splices(request.body, FORMAT.splices(request, model="other", ask_for_usage=True))

    assert json.loads(body) == {**request.document, "model": "other", "stream_options": expected}


def test_a_request_that_asks_for_usage_is_sent_as_it_came() -> None:
    request = request_of(CHAT, messages=PROMPT, stream_options={"include_usage": True})

    assert FORMAT.splices(request, model="m", ask_for_usage=True) == []
    assert FORMAT.splices(request, model=None, ask_for_usage=True) == []


def test_a_plain_request_is_not_asked_for_usage() -> None:
    request = request_of(CHAT, messages=PROMPT, stream=False)

    assert FORMAT.splices(request, model=None, ask_for_usage=True) == []


@given(st.text(min_size=1, max_size=10), st.lists(st.sampled_from(["model", "stream_options", "messages", "x"])))
def test_splices_change_just_what_they_say(model: str, order: list[str]) -> None:
    values = {
        "model": 'm"\\é',
        "stream_options": {"a": "include_usage"},
        "messages": ['"model":"x"'],
        "x": {"model": 1},
    }
    document: dict[str, Any] = {"stream": True, **{key: values[key] for key in order}, "model": values["model"]}
    body = json.dumps(document, indent=1).encode()
    request = FORMAT.parse_request(CALL, body)

    splices = FORMAT.splices(request, model=model, ask_for_usage=True)

    options = {**document.get("stream_options", {}), "include_usage": True}
    assert json.loads(apply_splices(body, splices)) == {**document, "model": model, "stream_options": options}
    position = 0
    for splice in splices:
        assert splice.start >= position
        position = splice.end


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
                "completion_tokens_details": {"reasoning_tokens": 15},
            },
            Usage(10, 60, 30, 20, 15),
        ),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, None, None, 0, None)),
        ({"prompt_tokens": 5}, Usage(5, None, None, None, None)),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(0, 9, None, None, None)),
        ({"prompt_tokens": -5, "completion_tokens": True}, Usage()),
        ({}, Usage()),
    ],
)
def test_usage_is_split_into_disjoint_buckets(usage: dict[str, Any], expected: Usage) -> None:
    assert FORMAT.usage(CALL, json.dumps({"usage": usage}).encode()) == expected


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"usage":null}', b"<html>"])
def test_an_answer_without_usage_tells_none(answer: bytes) -> None:
    assert FORMAT.usage(CALL, answer) is None


@pytest.mark.parametrize(
    ("choices", "complete"),
    [
        ([{"finish_reason": "stop", "message": {"content": "x"}}], True),
        ([{"finish_reason": "tool_calls", "message": {"content": None, "tool_calls": [{"id": "a"}]}}], True),
        ([{"finish_reason": "stop", "message": {"content": None, "audio": {"id": "a"}}}], True),
        ([{"finish_reason": "function_call", "message": {"function_call": {"name": "f"}}}], True),
        ([{"finish_reason": "length", "message": {"content": "x"}}], False),
        ([{"finish_reason": "stop", "message": {"content": "x"}, "error": None}], True),
        ([{"finish_reason": "stop", "message": {"content": "x"}, "error": {"code": 502}}], False),
        ([{"finish_reason": "stop", "message": {"content": [{"type": "text", "text": "x"}]}}], True),
        ([{"finish_reason": "stop", "message": {"content": [{"type": "text", "text": ""}]}}], False),
        ([{"finish_reason": "stop"}], False),
        ([{"finish_reason": "stop", "message": None}], False),
        ([{"finish_reason": "stop", "message": {"content": None}}], False),
        ([{"finish_reason": "stop", "message": {"content": "", "reasoning_content": "x"}}], False),
        ([{"finish_reason": "tool_calls", "message": {"tool_calls": []}}], False),
        ([{"finish_reason": "stop", "message": {"refusal": "no"}}], False),
        (
            [
                {"finish_reason": "stop", "message": {"content": "x"}},
                {"finish_reason": "content_filter", "message": {"content": "x"}},
            ],
            False,
        ),
        ([], False),
    ],
)
def test_only_an_answer_that_ended_by_itself_is_complete(choices: list[dict[str, Any]], complete: bool) -> None:
    assert FORMAT.is_complete(CALL, json.dumps({"choices": choices}).encode()) is complete


def test_an_answer_with_an_error_beside_it_is_not_complete() -> None:
    answer = {"choices": [{"finish_reason": "stop", "message": {"content": "x"}}]}

    assert FORMAT.is_complete(CALL, json.dumps({**answer, "error": None}).encode())
    assert not FORMAT.is_complete(CALL, json.dumps({**answer, "error": {"message": "x"}}).encode())


def test_every_split_of_a_stream_gives_the_same_bytes_and_facts() -> None:
    whole = observer_of(CHAT)
    assert play(whole, [STREAM]) == STREAM
    assert whole.usage == Usage(10, None, None, 4, None)
    for cut in range(len(STREAM)):
        observer = observer_of(CHAT)
        assert play(observer, split_at(STREAM, [cut])) == STREAM
        assert facts(observer) == facts(whole)


def test_the_opening_frame_is_no_content_and_a_finish_reason_no_end() -> None:
    observer = observer_of(CHAT)

    observer.feed(events(OPENING))
    assert committed_and_ended(observer) == (False, False)
    observer.feed(events(TEXT))
    assert committed_and_ended(observer) == (True, False)
    observer.feed(events(STOP, USAGE))
    assert committed_and_ended(observer) == (True, False)
    observer.feed(events("[DONE]"))
    assert committed_and_ended(observer) == (True, True)


@pytest.mark.parametrize(
    "delta", [{"tool_calls": [{"index": 0}]}, {"refusal": "no"}, {"reasoning_content": "hm"}, {"audio": {"id": "a"}}]
)
def test_any_delta_is_the_first_content(delta: dict[str, Any]) -> None:
    observer = observer_of(CHAT)

    observer.feed(events(chunk({"index": 0, "delta": delta})))

    assert observer.committed


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
def test_a_usage_frame_that_only_we_asked_for_is_hidden(end: str) -> None:
    stream = events(OPENING, TEXT, STOP, USAGE, "[DONE]", end=end)
    without = events(OPENING, TEXT, STOP, "[DONE]", end=end)
    for cut in range(len(stream)):
        observer = observer_of(CHAT, hide_usage=True)
        assert play(observer, split_at(stream, [cut])) == without
        assert observer.usage == Usage(10, None, None, 4, None)


def test_a_usage_frame_that_the_application_asked_for_is_never_hidden() -> None:
    request = request_of(CHAT, stream_options={"include_usage": True})
    observer = FORMAT.observe_stream(request, hide_usage=True, max_frame_bytes=1000)

    assert play(observer, [STREAM]) == STREAM


def test_usage_beside_content_is_read_but_stays() -> None:
    stream = events({**TEXT, "usage": {"prompt_tokens": 1, "completion_tokens": 2}}, "[DONE]")
    observer = observer_of(CHAT, hide_usage=True)

    assert play(observer, [stream]) == stream
    assert observer.usage == Usage(1, None, None, 2, None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "m", "type": "server_error", "code": None}, StreamError(500, "server_error", "m")),
        (
            {"message": "m", "type": "requests", "code": "rate_limit_exceeded"},
            StreamError(429, "rate_limit_exceeded", "m"),
        ),
        ({"message": "m", "code": 502}, StreamError(502, "server_error", "m")),
        ({"message": "m", "code": "503"}, StreamError(503, "503", "m")),
        ({"message": "m", "type": "overloaded_error"}, StreamError(503, "overloaded_error", "m")),
        ("odd", StreamError(500, "server_error", "odd")),
    ],
)
def test_an_error_in_a_stream_has_a_status_and_commits_nothing(error: object, expected: StreamError) -> None:
    observer = observer_of(CHAT)

    observer.feed(events(OPENING, {"error": error}, "[DONE]"))

    assert observer.error == expected
    assert not observer.committed
    assert not observer.ended


def test_a_malformed_frame_is_told_with_what_could_be_read_before_it() -> None:
    good = events(OPENING, TEXT) + b": comment\n\n"
    observer = observer_of(CHAT)

    with pytest.raises(FrameUnreadable) as caught:
        observer.feed(good + b'data: {oops _tokens"\n\n' + events(STOP, "[DONE]"))
    assert caught.value.readable == good
    assert not observer.ended


def test_the_size_of_the_content_is_known_without_usage() -> None:
    observer = observer_of(CHAT)

    observer.feed(events(OPENING, *[chunk({"index": 0, "delta": {"content": "0123456789"}})] * 20))

    assert observer.usage is None
    assert observer.content_bytes == 200
