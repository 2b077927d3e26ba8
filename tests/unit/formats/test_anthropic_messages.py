"""Anthropic messages: requests, answers and streams."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import StreamError, Usage
from llm_sidecar.formats.json_body import apply_splices
from llm_sidecar.formats.registry import FORMATS
from tests.unit.formats.streams import MESSAGES, call_of, events, facts, observer_of, play, request_of, split_at

FORMAT = FORMATS[API.ANTHROPIC_MESSAGES]
CALL = call_of(MESSAGES)
START = {
    "type": "message_start",
    "message": {"usage": {"input_tokens": 10, "cache_read_input_tokens": 3, "output_tokens": 1}},
}
TEXT_BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 'é"usage"😀'}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}
STOP = {"type": "message_stop"}
STREAM = events(START, {"type": "ping"}, TEXT_BLOCK, DELTA, END, STOP, names=True)


def test_the_facts_of_a_request_are_read() -> None:
    request = request_of(MESSAGES, max_tokens=64, messages=[], temperature=0)

    assert (request.model, request.stream, request.max_output_tokens) == ("m", True, 64)
    assert request.deterministic
    assert not request.stateful


@pytest.mark.parametrize(
    ("members", "deterministic"),
    [
        ({"temperature": 0, "tools": [{"name": "f", "input_schema": {}}]}, True),
        ({"temperature": 0, "tools": [{"type": "web_search_20250305"}]}, False),
        *(
            ({"temperature": 0, "tools": [{"type": kind}]}, True)
            for kind in ("bash_20250124", "text_editor_20250728", "computer_20251124", "memory_20250818", "custom")
        ),
        *(
            ({"temperature": 0, "tools": [{"type": "bash_20250124"}, {"type": kind}]}, False)
            for kind in ("code_execution_20250825", "bash_code_execution_20250825", "memory", "bash_", {"a": 1})
        ),
        ({"temperature": 0, "mcp_servers": [{"url": "x"}]}, False),
        ({"temperature": 1}, False),
        ({}, False),
    ],
)
def test_only_temperature_zero_without_server_tools_is_deterministic(
    members: dict[str, Any], deterministic: bool
) -> None:
    assert request_of(MESSAGES, **members).deterministic is deterministic


@pytest.mark.parametrize(
    ("content", "stateful"),
    [
        ([{"type": "document", "source": {"type": "file", "file_id": "file_1"}}], True),
        ([{"type": "container_upload", "file_id": "file_1"}], True),
        ([{"type": "tool_use", "input": {"file_id": "mine"}}], False),
        ([{"type": "image", "source": {"type": "base64", "data": "AAAA"}}], False),
    ],
)
def test_files_of_an_account_make_a_request_stateful(content: list[dict[str, Any]], stateful: bool) -> None:
    assert request_of(MESSAGES, messages=[{"role": "user", "content": content}]).stateful is stateful


def test_a_container_makes_a_request_stateful() -> None:
    assert request_of(MESSAGES, container="container_1").stateful
    assert not request_of(MESSAGES, container=None).stateful


def test_the_model_is_replaced() -> None:
    request = request_of(MESSAGES, messages=[{"role": "user", "content": '"model": "x"'}])

    body = apply_splices(request.body, FORMAT.splices(request, model="claude", ask_for_usage=True))

    assert json.loads(body) == {**request.document, "model": "claude"}


def test_cached_tokens_add_to_the_input() -> None:
    usage = {
        "input_tokens": 5,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20,
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
    }

    assert FORMAT.usage(CALL, json.dumps({"usage": usage}).encode()) == Usage(5, 100, 20, 9, 4)


def test_a_token_count_spends_nothing() -> None:
    call = call_of("/v1/messages/count_tokens")

    assert FORMAT.usage(call, b'{"input_tokens":19}') == Usage(0, None, None, 0, None)
    assert FORMAT.is_complete(call, b'{"input_tokens":19}')


@pytest.mark.parametrize(
    ("reason", "complete"),
    [("end_turn", True), ("tool_use", True), ("stop_sequence", True), ("max_tokens", False), ("refusal", False),
     ("pause_turn", False), (None, False)],
)  # fmt: skip
def test_only_a_turn_that_ended_by_itself_is_complete(reason: str | None, complete: bool) -> None:
    answer = {"type": "message", "stop_reason": reason, "content": [{"type": "text", "text": "x"}]}

    assert FORMAT.is_complete(CALL, json.dumps(answer).encode()) is complete
    assert not FORMAT.is_complete(CALL, json.dumps({**answer, "error": {"type": "api_error"}}).encode())


@pytest.mark.parametrize(
    ("content", "complete"),
    [
        ([{"type": "tool_use", "name": "f"}], True),
        ([{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "x"}], True),
        ([{"type": "thinking", "thinking": "x"}, {"type": "redacted_thinking", "data": "x"}], False),
        ([{"type": "text", "text": ""}], False),
        ([], False),
        (None, False),
    ],
)
def test_a_turn_that_says_nothing_is_not_complete(content: Any, complete: bool) -> None:
    answer = {"type": "message", "stop_reason": "end_turn", "content": content}

    assert FORMAT.is_complete(CALL, json.dumps(answer).encode()) is complete


def test_every_split_of_a_stream_gives_the_same_bytes_and_facts() -> None:
    whole = observer_of(MESSAGES)
    assert play(whole, [STREAM]) == STREAM
    assert whole.usage == Usage(10, 3, None, 7, None)
    for cut in range(len(STREAM)):
        observer = observer_of(MESSAGES)
        assert play(observer, split_at(STREAM, [cut])) == STREAM
        assert facts(observer) == facts(whole)


def test_the_last_explicit_usage_wins_and_zero_is_explicit() -> None:
    observer = observer_of(MESSAGES)
    restated = {
        "input_tokens": 0,
        "cache_read_input_tokens": None,
        "cache_creation_input_tokens": 8,
        "output_tokens": 2,
    }

    observer.feed(events(START, DELTA, {**END, "usage": restated}, {**END, "usage": {"output_tokens": 5}}))

    assert observer.usage == Usage(0, 3, 8, 5, None)


@pytest.mark.parametrize(
    ("block", "commits"),
    [
        ({"type": "text", "text": ""}, False),
        ({"type": "thinking", "thinking": "", "signature": ""}, False),
        ({"type": "tool_use", "name": "f", "input": {}}, True),
        ({"type": "redacted_thinking", "data": "x"}, True),
        ({"type": "web_search_tool_result", "content": []}, True),
    ],
)
def test_a_block_commits_once_it_has_content(block: dict[str, Any], commits: bool) -> None:
    observer = observer_of(MESSAGES)

    observer.feed(events(START, {"type": "content_block_start", "content_block": block}))

    assert observer.committed is commits


def test_an_overload_after_the_start_commits_nothing() -> None:
    observer = observer_of(MESSAGES)
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}

    observer.feed(events(START, TEXT_BLOCK, error, names=True))

    assert facts(observer)[:3] == (False, False, StreamError(529, "overloaded_error", "Overloaded"))


@pytest.mark.parametrize(
    ("kind", "status"), [("rate_limit_error", 429), ("api_error", 500), ("timeout_error", 504), ("new_error", 500)]
)
def test_an_error_in_a_stream_has_the_status_of_its_type(kind: str, status: int) -> None:
    observer = observer_of(MESSAGES)

    observer.feed(events(START, DELTA, {"type": "error", "error": {"type": kind, "message": "m"}}))

    assert observer.error == StreamError(status, kind, "m")
    assert not observer.ended


def test_unknown_events_pass() -> None:
    stream = events(START, {"type": "new_event", "usage": 1}, DELTA, {"type": "newer"}, END, STOP, names=True)
    observer = observer_of(MESSAGES)

    assert play(observer, [stream]) == stream
    assert observer.ended
