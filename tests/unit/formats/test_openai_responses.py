"""OpenAI Responses: requests, answers and streams."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import StreamError, Usage
from llm_sidecar.formats.json_body import apply_splices
from llm_sidecar.formats.registry import FORMATS
from tests.unit.formats.streams import (
    RESPONSES,
    call_of,
    committed_and_ended,
    events,
    facts,
    observer_of,
    play,
    request_of,
    split_at,
)

FORMAT = FORMATS[API.OPENAI_RESPONSES]
CALL = call_of(RESPONSES)
USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 5},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 4},
}
BUCKETS = Usage(25, 20, 5, 9, 4)
CREATED = {"type": "response.created", "response": {"status": "in_progress", "error": None}, "sequence_number": 0}
ADDED = {"type": "response.output_item.added", "item": {"type": "message"}, "sequence_number": 1}
DELTA = {"type": "response.output_text.delta", "delta": 'é😀 "x"', "sequence_number": 2}
COMPLETED = {"type": "response.completed", "response": {"status": "completed", "usage": USAGE}, "sequence_number": 3}
STREAM = events(CREATED, ADDED, DELTA, COMPLETED, names=True)
ITEM = {"type": "message", "status": "completed", "content": [{"type": "output_text", "text": "x"}]}


def test_the_model_is_replaced_and_usage_never_asked_for() -> None:
    request = request_of(RESPONSES, input="x", text={"text": "model"}, metadata={"model": "m"})

    body = apply_splices(request.body, FORMAT.splices(request, model="gpt", ask_for_usage=True))

    assert json.loads(body) == {**request.document, "model": "gpt"}


@pytest.mark.parametrize(
    ("members", "stateful"),
    [
        ({"input": "x"}, False),
        ({"previous_response_id": "resp_1"}, True),
        ({"previous_response_id": None}, False),
        ({"conversation": "conv_1"}, True),
        ({"prompt": {"id": "pmpt_1"}}, True),
        ({"background": True}, True),
        ({"store": True}, True),
        ({"store": False, "background": False}, False),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, True),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, True),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs"]}]}, True),
        ({"tools": [{"type": "function", "parameters": {"properties": {"file_id": {"type": "string"}}}}]}, False),
    ],
)
def test_what_lives_at_one_provider_makes_a_request_stateful(members: dict[str, Any], stateful: bool) -> None:
    assert request_of(RESPONSES, **members).stateful is stateful


@pytest.mark.parametrize(
    ("members", "deterministic"),
    [
        ({"temperature": 0}, True),
        ({"temperature": 0, "tools": [{"type": "function"}]}, True),
        ({"temperature": 0, "tools": [{"type": "web_search"}]}, False),
        ({}, False),
    ],
)
def test_only_temperature_zero_without_hosted_tools_is_deterministic(
    members: dict[str, Any], deterministic: bool
) -> None:
    assert request_of(RESPONSES, **members).deterministic is deterministic


def test_a_token_count_spends_nothing() -> None:
    request = request_of("/v1/responses/input_tokens", input="a long text")

    assert (request.input_tokens_estimate, request.max_output_tokens, request.deterministic) == (0, 0, True)
    assert FORMAT.usage(request.call, b'{"input_tokens": 51}') == Usage(0, None, None, 0, None)
    assert FORMAT.is_complete(request.call, b'{"input_tokens": 51}')
    assert FORMAT.usage(request.call, b"{}") is None


@pytest.mark.parametrize(
    ("answer", "complete"),
    [
        ({"status": "completed", "error": None, "output": [ITEM]}, True),
        ({"status": "completed", "incomplete_details": None, "output": [{"type": "reasoning"}, ITEM]}, True),
        ({"status": "completed", "output": [{"type": "function_call", "status": "completed"}]}, True),
        ({"status": "completed", "output": [{**ITEM, "content": [{"type": "output_text", "text": ""}]}]}, False),
        ({"status": "completed", "output": [ITEM], "error": {"code": "x"}}, False),
        ({"status": "completed", "output": [ITEM], "incomplete_details": {"reason": "content_filter"}}, False),
        ({"status": "completed", "output": [{**ITEM, "status": "incomplete"}]}, False),
        ({"status": "completed", "output": [ITEM, {"type": "function_call", "status": "in_progress"}]}, False),
        ({"status": "completed", "output": [{"type": "message", "status": "completed", "content": []}]}, False),
        ({"status": "completed", "output": [{"type": "reasoning"}]}, False),
        ({"status": "completed", "output": []}, False),
        ({"status": "incomplete"}, False),
        ({"status": "failed", "error": {}}, False),
        ({"status": "queued"}, False),
        ({"status": "completed", "output": [{"type": "message", "content": [{"type": "refusal"}]}]}, False),
    ],
)
def test_only_an_answer_that_ended_by_itself_is_complete(answer: dict[str, Any], complete: bool) -> None:
    assert FORMAT.is_complete(CALL, json.dumps(answer).encode()) is complete


def test_a_token_count_with_an_error_is_not_complete() -> None:
    call = request_of("/v1/responses/input_tokens", input="x").call

    assert not FORMAT.is_complete(call, b'{"input_tokens": 51, "error": {}}')


def test_usage_is_split_into_disjoint_buckets() -> None:
    assert FORMAT.usage(CALL, json.dumps({"usage": USAGE}).encode()) == BUCKETS
    assert FORMAT.usage(CALL, b'{"status":"queued","usage":null}') is None


def test_every_split_of_a_stream_gives_the_same_bytes_and_facts() -> None:
    for cut in range(len(STREAM)):
        observer = observer_of(RESPONSES)
        assert play(observer, split_at(STREAM, [cut])) == STREAM
        assert facts(observer) == (
            True,
            True,
            None,
            BUCKETS,
            len(json.dumps(DELTA["delta"], ensure_ascii=False).encode()) - 2,
        )


def test_the_first_delta_commits_and_the_lifecycle_does_not() -> None:
    observer = observer_of(RESPONSES)

    observer.feed(events(CREATED, ADDED))
    assert committed_and_ended(observer) == (False, False)
    observer.feed(events(DELTA))
    assert committed_and_ended(observer) == (True, False)


def test_an_incomplete_response_ends_a_stream() -> None:
    observer = observer_of(RESPONSES)

    observer.feed(events(CREATED, {"type": "response.incomplete", "response": {"usage": USAGE}}))

    assert facts(observer) == (True, True, None, BUCKETS, 0)


def test_a_failure_before_the_first_content_commits_nothing() -> None:
    failed = {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "slow"}}}
    observer = observer_of(RESPONSES)

    observer.feed(events(CREATED, failed))

    assert not observer.committed
    assert observer.ended
    assert observer.error == StreamError(429, "rate_limit_exceeded", "slow")


@pytest.mark.parametrize(
    "error",
    [
        {"type": "error", "code": "server_error", "message": "m", "param": None},
        {"type": "error", "error": {"code": "server_error", "message": "m"}},
        {"error": {"code": "server_error", "message": "m"}},
    ],
)
def test_an_error_event_of_either_shape_is_seen(error: dict[str, Any]) -> None:
    for before in ([CREATED], [CREATED, DELTA]):
        observer = observer_of(RESPONSES)
        observer.feed(events(*before, error))
        assert observer.error == StreamError(500, "server_error", "m")
        assert observer.committed is (len(before) == 2)
        assert not observer.ended


def test_the_error_tail_goes_on_with_the_sequence_numbers() -> None:
    observer = observer_of(RESPONSES)
    observer.feed(events(CREATED, ADDED, DELTA))

    tail = observer.error_tail(502, "upstream_stream_ended", "The stream ended early.")

    assert json.loads(tail.split(b"data: ")[1])["sequence_number"] == 3
