"""From a native stream to its plain answer and back: nothing is lost, and nothing is guessed."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_sidecar.cache.streams.forms import assembled, replayed
from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, ParsedRequest
from llm_sidecar.formats.registry import FORMATS
from tests.integration.recorded_exchanges import Exchange
from tests.unit.translation.recordings import each_recorded

GENERATING = (API.OPENAI_CHAT, API.OPENAI_RESPONSES, API.ANTHROPIC_MESSAGES, API.GEMINI)
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def request(api: API, *, array: bool = False) -> ParsedRequest:
    """One that asks for a stream with usage."""
    body = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    call = Call(
        api=api,
        type=RequestType.GENERATION,
        path="/p",
        model="m" if api is API.GEMINI else None,
        stream=True,
        stream_is_json_array=array,
    )
    return FORMATS[api].parse_request(call, orjson.dumps({} if api is API.GEMINI else body))


def comes_back(api: API, answer: bytes, *, array: bool = False) -> None:
    asked = request(api, array=array)
    stream = replayed(asked, answer)
    assert stream is not None
    again = assembled(asked.call, stream)
    assert again is not None
    assert json.loads(again) == json.loads(answer)


def _recorded(api: API, exchange: Exchange, *, array: bool = False) -> None:
    complete = FORMATS[api].is_complete(request(api).call, exchange.response)
    if complete and b'"audio": {' not in exchange.response:
        comes_back(api, exchange.response, array=array)


@each_recorded(API.OPENAI_CHAT, answered=True, stream=False)
def test_a_recorded_completion_comes_back_from_its_stream(exchange: Exchange) -> None:
    _recorded(API.OPENAI_CHAT, exchange)


@each_recorded(API.OPENAI_RESPONSES, answered=True, stream=False)
def test_a_recorded_response_comes_back_from_its_stream(exchange: Exchange) -> None:
    if exchange.path == "/v1/responses":
        _recorded(API.OPENAI_RESPONSES, exchange)


@each_recorded(API.ANTHROPIC_MESSAGES, answered=True, stream=False)
def test_a_recorded_message_comes_back_from_its_stream(exchange: Exchange) -> None:
    if "count_tokens" not in exchange.path:
        _recorded(API.ANTHROPIC_MESSAGES, exchange)


@each_recorded(API.GEMINI, answered=True, stream=False)
def test_a_recorded_answer_of_gemini_comes_back_from_either_stream(exchange: Exchange) -> None:
    _recorded(API.GEMINI, exchange)
    _recorded(API.GEMINI, exchange, array=True)


def completion(message: dict[str, Any], **choice: Any) -> bytes:
    whole = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop", **choice}
    return orjson.dumps(
        {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [whole], "usage": USAGE}
    )


CALL = {"id": "i", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
CUSTOM = {"id": "j", "type": "custom", "custom": {"name": "g", "input": "free"}}
TOKEN = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}
COMPLETIONS = {
    "text": completion({"content": "hi", "refusal": None, "annotations": []}),
    "empty": completion({"content": ""}),
    "nothing": completion({"content": None}),
    "calls": completion({"content": None, "tool_calls": [CALL, CUSTOM]}, finish_reason="tool_calls"),
    "text-and-call": completion({"content": "so:", "tool_calls": [CALL]}, finish_reason="tool_calls"),
    "old-call": completion({"content": None, "function_call": {"name": "f", "arguments": "{}"}}),
    "thoughts": completion({"content": "hi", "reasoning_content": "hm"}),
    "citations": completion({"content": "hi", "annotations": [{"type": "url_citation", "url_citation": {}}]}),
    "logprobs": completion({"content": "a"}, logprobs={"content": [TOKEN], "refusal": None}),
    "no-logprobs": completion({"content": "a"}, logprobs=None),
    "of-a-server": completion({"content": "a"}, native_finish_reason="STOP", content_filter_results={"hate": {}}),
    "signed-call": completion({"content": None, "tool_calls": [{**CALL, "extra_content": {"google": {"s": "x"}}}]}),
}


@pytest.mark.parametrize("case", COMPLETIONS)
def test_a_completion_comes_back_from_its_stream(case: str) -> None:
    comes_back(API.OPENAI_CHAT, COMPLETIONS[case])


@pytest.mark.parametrize(
    "answer",
    [
        completion({"content": "a", "audio": {"id": "x"}}),
        completion({"content": "a", "of_tomorrow": [1]}),
        completion({"content": "a"}, index=1),
        completion({"tool_calls": [{"id": "i", "type": "of_tomorrow", "of_tomorrow": {}}]}),
        completion({"content": "a"}).replace(b'"usage"', b'"other"'),
        completion({"content": "a"}).replace(b'"created":1', b'"created":12345678901234567890'),
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"choices":1}',
        b'{"choices":[1]}',
        b'{"choices":[{"message":1}]}',
    ],
)
def test_what_has_no_stream_is_not_made_one(answer: bytes) -> None:
    assert replayed(request(API.OPENAI_CHAT), answer) is None


def events(*told: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % orjson.dumps(each) for each in told)


START: dict[str, Any] = {"type": "message_start", "message": {"id": "m", "content": [], "usage": {"input_tokens": 1}}}
OPEN: dict[str, Any] = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
GROW: dict[str, Any] = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
SHUT: dict[str, Any] = {"type": "content_block_stop", "index": 0}
LAST: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
STOP: dict[str, Any] = {"type": "message_stop"}
TOOL: dict[str, Any] = {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "input": {}}}


@pytest.mark.parametrize(
    ("stream", "understood"),
    [
        ((START, OPEN, GROW, SHUT, LAST, STOP), True),
        ((START, {"type": "ping"}, OPEN, SHUT, LAST, STOP), True),
        ((OPEN, GROW, SHUT, LAST, STOP), False),
        ((START, START, OPEN, SHUT, LAST, STOP), False),
        ((START, OPEN, GROW, LAST, STOP), False),
        ((START, GROW, SHUT, LAST, STOP), False),
        ((START, OPEN, SHUT, GROW, LAST, STOP), False),
        ((START, {**OPEN, "index": 1}, SHUT, LAST, STOP), False),
        ((START, OPEN, {**GROW, "delta": {"type": "of_tomorrow"}}, SHUT, LAST, STOP), False),
        ((START, OPEN, {**GROW, "delta": {"type": "thinking_delta", "thinking": "x"}}, SHUT, LAST, STOP), False),
        ((START, {"type": "of_tomorrow"}, LAST, STOP), False),
        ((START, TOOL, {**GROW, "delta": {"type": "input_json_delta", "partial_json": "{"}}, SHUT, LAST, STOP), False),
    ],
)
def test_an_event_that_is_not_known_or_not_in_its_place_is_not_understood(
    stream: tuple[dict[str, Any], ...], understood: bool
) -> None:
    assert (assembled(request(API.ANTHROPIC_MESSAGES).call, events(*stream)) is not None) is understood


def test_the_last_word_on_usage_is_kept_and_so_is_what_only_the_first_said() -> None:
    made = assembled(request(API.ANTHROPIC_MESSAGES).call, events(START, OPEN, GROW, SHUT, LAST, STOP))
    assert made is not None
    assert orjson.loads(made)["usage"] == {"input_tokens": 1, "output_tokens": 2}


def gemini(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, **more}]}


END = gemini(finishReason="STOP") | {"usageMetadata": {"totalTokenCount": 2}}


@pytest.mark.parametrize(
    ("stream", "parts"),
    [
        ((gemini({"text": "a"}), gemini({"text": "b"}), END), [{"text": "ab"}]),
        (
            (gemini({"text": "a", "thought": True}), gemini({"text": "b"}), END),
            [{"text": "a", "thought": True}, {"text": "b"}],
        ),
        (
            (gemini({"text": "a"}), gemini({"text": "", "thoughtSignature": "s"}), END),
            [{"text": "a"}, {"text": "", "thoughtSignature": "s"}],
        ),
        ((gemini({"functionCall": {"name": "f", "args": {}}}), END), [{"functionCall": {"name": "f", "args": {}}}]),
        ((gemini({"functionCall": {"name": "f", "willContinue": True}}), END), None),
        ((gemini({"text": "a"}, citationMetadata={"x": [1]}), gemini(citationMetadata={"x": [2]}), END), None),
        ((gemini({"text": "a"}), gemini(finishReason="STOP")), None),
        ((gemini({"text": "a"}), {"usageMetadata": {}}), None),
        (({"modelVersion": "1"}, {"modelVersion": "2"}, END), None),
    ],
)
def test_geminis_chunks_are_one_answer(stream: tuple[dict[str, Any], ...], parts: list[Any] | None) -> None:
    made = assembled(request(API.GEMINI).call, events(*stream))
    assert (None if made is None else orjson.loads(made)["candidates"][0]["content"]["parts"]) == parts


def test_a_response_that_forgets_its_items_is_not_taken_for_whole() -> None:
    """Some servers end with an empty output: what was streamed would be lost."""
    item = {"type": "response.output_item.done", "output_index": 0, "item": {"type": "message"}}
    whole = {"type": "response.completed", "response": {"status": "completed", "output": []}}
    call = request(API.OPENAI_RESPONSES).call
    assert assembled(call, events(whole)) is not None
    assert assembled(call, events(item, whole)) is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["type", "choices", "delta", "index", "message", "content", "text", "usage", "tool_calls", "function",
         "content_block", "candidates", "parts", "response", "output", "item", "functionCall", "finish_reason"]
    ), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300)
@given(st.sampled_from(GENERATING), st.lists(anything, max_size=4))
def test_no_shape_of_json_does_harm(api: API, frames: list[Any]) -> None:
    asked = request(api)
    assembled(asked.call, b"".join(b"data: %b\n\n" % orjson.dumps(frame) for frame in frames))
    for frame in frames:
        replayed(asked, orjson.dumps(frame))


@given(st.sampled_from(GENERATING), st.binary(max_size=200))
def test_no_bytes_do_harm(api: API, data: bytes) -> None:
    for asked in (request(api), request(api, array=True)):
        assembled(asked.call, data)
        replayed(asked, data)


def test_what_is_nested_deep_does_no_harm() -> None:
    deep = b'{"choices":' + b"[" * 600 + b"]" * 600 + b"}"
    nested = b"{" + b'"a":{' * 500 + b"}" * 500 + b"}"
    for api in GENERATING:
        for data in (deep, nested):
            assembled(request(api).call, b"data: %b\n\ndata: %b\n\n" % (data, data))
            replayed(request(api), data)
