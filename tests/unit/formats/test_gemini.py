"""Gemini: requests, answers, and streams of both kinds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import FrameTooLarge, FrameUnreadable, MalformedRequest, StreamError, Usage
from llm_sidecar.formats.json_body import apply_splices
from llm_sidecar.formats.registry import FORMATS
from tests.unit.formats.streams import (
    GEMINI_ARRAY,
    GEMINI_EVENTS,
    call_of,
    events,
    facts,
    observer_of,
    play,
    request_of,
    split_at,
)

FORMAT = FORMATS[API.GEMINI]
PLAIN = "/v1/models/m:generateContent"
BATCH = "/v1beta/models/m:batchEmbedContents"
COUNT = "/v1beta/models/m:countTokens"


def chunk(*parts: dict[str, Any], reason: str | None = None, index: int = 0, **members: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": index}
    return {"candidates": [candidate | ({"finishReason": reason} if reason else {})], **members}


FIRST = chunk({"text": 'é[{"😀\\'}, usageMetadata={"promptTokenCount": 10, "totalTokenCount": 10})
LAST = chunk({"text": "."}, reason="STOP", usageMetadata={"promptTokenCount": 10, "candidatesTokenCount": 2,
             "thoughtsTokenCount": 5, "cachedContentTokenCount": 4, "totalTokenCount": 17})  # fmt: skip
BUCKETS = Usage(6, 4, None, 7, 5)
EVENTS = events(FIRST, LAST, end="\r\n\r\n")
ARRAY = ("[" + json.dumps(FIRST, ensure_ascii=False, indent=1) + "\r\n,\r\n" + json.dumps(LAST) + "]\n").encode()


def test_the_facts_of_a_request_are_read_in_either_spelling() -> None:
    camel = request_of(PLAIN, generationConfig={"maxOutputTokens": 10, "candidateCount": 2, "temperature": 0})
    snake = request_of(PLAIN, generation_config={"max_output_tokens": 10, "temperature": 0})

    assert (camel.model, camel.stream, camel.max_output_tokens, camel.deterministic) == ("m", False, 20, False)
    assert (snake.max_output_tokens, snake.deterministic) == (10, True)


@pytest.mark.parametrize(
    ("members", "stateful"),
    [
        ({"cachedContent": "cachedContents/1"}, True),
        ({"tools": [{"fileSearch": {}}]}, True),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "https://host/v1beta/files/1"}}]}]}, True),
        ({"contents": [{"parts": [{"file_data": {"file_uri": "https://video.example/watch"}}]}]}, False),
        ({"tools": [{"functionDeclarations": [{"name": "fileData"}]}]}, False),
    ],
)
def test_what_lives_at_one_provider_makes_a_request_stateful(members: dict[str, Any], stateful: bool) -> None:
    assert request_of(PLAIN, **members).stateful is stateful


def test_a_server_side_tool_is_not_deterministic() -> None:
    config = {"temperature": 0}

    assert request_of(PLAIN, generationConfig=config, tools=[{"functionDeclarations": []}]).deterministic
    assert not request_of(PLAIN, generationConfig=config, tools=[{"googleSearch": {}}]).deterministic


def test_the_model_is_replaced_in_the_path() -> None:
    call = call_of("/v1beta/models/small:streamGenerateContent?alt=sse")

    assert FORMAT.upstream_path(call, "gemini-2.5-pro") == "/v1beta/models/gemini-2.5-pro:streamGenerateContent"
    assert FORMAT.upstream_path(call, "a/../b:c") == "/v1beta/models/a%2F..%2Fb%3Ac:streamGenerateContent"
    assert FORMAT.upstream_path(call, None) == call.path


def test_the_model_is_replaced_wherever_the_body_repeats_it() -> None:
    entry = {"model": "models/m", "content": {"parts": [{"text": '"model":"models/m"'}]}}
    batch = request_of(BATCH, requests=[entry, {**entry, "x": {"model": 1}}])
    count = request_of(COUNT, model="m", generateContentRequest={"contents": [], "model": "models/m"})

    batch_body = apply_splices(batch.body, FORMAT.splices(batch, model="new", ask_for_usage=True))
    count_body = apply_splices(count.body, FORMAT.splices(count, model="new", ask_for_usage=True))

    named = {**entry, "model": "models/new"}
    assert json.loads(batch_body) == {"requests": [named, {**named, "x": {"model": 1}}]}
    assert json.loads(count_body) == {"model": "new", "generateContentRequest": {"contents": [], "model": "models/new"}}


def test_a_request_that_repeats_no_model_is_sent_as_it_came() -> None:
    request = request_of(PLAIN, contents=[{"parts": [{"text": "model"}]}])

    assert FORMAT.splices(request, model="new", ask_for_usage=True) == []


@pytest.mark.parametrize(
    "members",
    [{"model": "models/dear"}, {"requests": [{"model": "models/m"}, {"model": "dear"}]},
     {"generateContentRequest": {"model": "models/dear"}}],
)  # fmt: skip
def test_a_body_that_names_another_model_than_the_path_is_refused(members: dict[str, Any]) -> None:
    """Limits are checked for the path's model: the body must not smuggle in another."""
    with pytest.raises(MalformedRequest, match="different models"):
        request_of(BATCH, **members)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (LAST["usageMetadata"], BUCKETS),
        (
            {"promptTokenCount": 5, "toolUsePromptTokenCount": 7, "candidatesTokenCount": 1},
            Usage(12, None, None, 1, None),
        ),
        ({"promptTokenCount": 5, "totalTokenCount": 5}, Usage(5, None, None, 0, None)),
        ({"promptTokenCount": 5}, Usage(5, None, None, None, None)),
        ({"promptTokenCount": 5, "candidatesTokenCount": 0}, Usage(5, None, None, 0, None)),
        ({}, Usage()),
    ],
)
def test_usage_is_split_into_disjoint_buckets(told: dict[str, Any], expected: Usage) -> None:
    assert FORMAT.usage(call_of(PLAIN), json.dumps({"usageMetadata": told}).encode()) == expected


def test_embeddings_and_counts_have_no_output() -> None:
    embedding = b'{"embeddings":[{"values":[1]}],"usageMetadata":{"promptTokenCount":7}}'

    assert FORMAT.usage(call_of(BATCH), embedding) == Usage(7, None, None, 0, None)
    assert FORMAT.usage(call_of(BATCH), b'{"embeddings":[]}') is None
    assert FORMAT.is_complete(call_of(BATCH), embedding)
    assert FORMAT.usage(call_of(COUNT), b'{"totalTokens":12}') == Usage(0, None, None, 0, None)
    assert request_of(COUNT).input_tokens_estimate == 0
    assert request_of(BATCH).deterministic


@pytest.mark.parametrize(
    ("answer", "complete"),
    [
        (chunk({"text": "x"}, reason="STOP"), True),
        (chunk({"text": "x"}, reason="MAX_TOKENS"), False),
        (chunk({"text": "x"}), False),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, False),
        ({}, False),
        (chunk({"functionCall": {"name": "f"}}, reason="STOP"), True),
        (chunk({"text": "x", "thought": True}, {"text": "y"}, reason="STOP"), True),
        (chunk({"text": "x", "thought": True}, reason="STOP"), False),
        (chunk({"text": "", "thoughtSignature": "x"}, reason="STOP"), False),
        (chunk({"text": ""}, reason="STOP"), False),
        (chunk(reason="STOP"), False),
        ({"candidates": [{"finishReason": "STOP", "content": {"role": "model"}}]}, False),
        ({**chunk({"text": "x"}, reason="STOP"), "error": {"code": 500}}, False),
    ],
)
def test_only_an_answer_that_ended_by_itself_is_complete(answer: dict[str, Any], complete: bool) -> None:
    assert FORMAT.is_complete(call_of(PLAIN), json.dumps(answer).encode()) is complete


@pytest.mark.parametrize(
    ("answer", "complete"),
    [
        ({"embedding": {"values": [1]}}, True),
        ({"embeddings": [{"values": [1]}, {"values": [2]}]}, True),
        ({"embeddings": [{"values": [1]}, {}]}, False),
        ({"embeddings": [{"values": [1]}, None]}, False),
        ({"embeddings": [{}]}, False),
        ({"embeddings": 1}, False),
        ({"embedding": {}}, False),
        ({"embedding": {"values": [1]}, "error": {"code": 500}}, False),
        ({}, False),
    ],
)
def test_embeddings_are_complete_with_a_vector_in_each_place(answer: dict[str, Any], complete: bool) -> None:
    assert FORMAT.is_complete(call_of(BATCH), json.dumps(answer).encode()) is complete


@pytest.mark.parametrize(
    ("target", "stream"), [(GEMINI_EVENTS, EVENTS), (GEMINI_ARRAY, ARRAY)], ids=["events", "array"]
)
def test_every_split_of_a_stream_gives_the_same_bytes_and_facts(target: str, stream: bytes) -> None:
    whole = observer_of(target)
    assert play(whole, [stream]) == stream
    assert facts(whole)[:4] == (True, True, None, BUCKETS)
    for cut in range(len(stream)):
        observer = observer_of(target)
        assert play(observer, split_at(stream, [cut])) == stream
        assert facts(observer) == facts(whole)


@pytest.mark.parametrize(
    ("first", "commits"),
    [
        (chunk({"text": ""}), False),
        (chunk({"thought": True, "text": ""}), False),
        (chunk({"functionCall": {"name": "f"}}), True),
        (chunk({"text": "", "thoughtSignature": "x"}), True),
        (chunk(reason="SAFETY"), True),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, True),
        ({"usageMetadata": {"promptTokenCount": 1}}, False),
    ],
)
def test_the_first_content_commits(first: dict[str, Any], commits: bool) -> None:
    observer = observer_of(GEMINI_EVENTS)

    observer.feed(events(first))

    assert observer.committed is commits


def test_a_stream_ends_when_every_candidate_has_finished() -> None:
    observer = observer_of(GEMINI_EVENTS)

    observer.feed(events(chunk({"text": "a"}), chunk({"text": "b"}, index=1), chunk(reason="STOP")))
    assert not observer.ended
    observer.feed(events(chunk(reason="STOP", index=1)))
    assert observer.ended


def test_an_error_in_a_stream_has_a_status() -> None:
    error = {"error": {"code": 503, "status": "UNAVAILABLE", "message": "overloaded"}}
    for target, stream in ((GEMINI_EVENTS, events(error)), (GEMINI_ARRAY, json.dumps([error]).encode())):
        observer = observer_of(target)

        observer.feed(stream)

        assert facts(observer)[:3] == (False, False, StreamError(503, "UNAVAILABLE", "overloaded"))


def test_a_cut_array_is_closed_by_an_error_wherever_it_was_cut() -> None:
    for cut in range(len(ARRAY)):
        observer = observer_of(GEMINI_ARRAY)
        relayed = play(observer, [ARRAY[:cut]])

        whole = json.loads(relayed + observer.error_tail(502, "upstream_stream_ended", "The stream ended early."))

        assert "error" in whole[-1] or observer.ended


def test_something_that_is_no_array_is_relayed_and_never_committed() -> None:
    for answer in (b'{"error": {"code": 500}}', b"<html>[]</html>", b"null"):
        observer = observer_of(GEMINI_ARRAY)

        assert play(observer, [answer[:3], answer[3:]]) == answer
        assert not observer.committed
        assert not observer.ended


@pytest.mark.parametrize("broken", [b'{"broken": ', b'{"broken": }', b"[1]"], ids=["unclosed", "closed", "no object"])
@pytest.mark.parametrize("first", [b"", json.dumps(FIRST).encode() + b",\r\n"], ids=["first", "second"])
def test_an_array_with_a_malformed_element_is_closed_by_an_error_instead_of_it(first: bytes, broken: bytes) -> None:
    observer = observer_of(GEMINI_ARRAY)
    with pytest.raises(FrameUnreadable) as raised:
        play(observer, [b"[" + first + broken + b",\r\n" + json.dumps(LAST).encode() + b"]\n"])
    observer.finish()
    document = json.loads(raised.value.readable + observer.error_tail(502, "stream_interrupted", "it broke"))

    assert [*document[-1]] == ["error"]
    assert document[:-1] == ([FIRST] if first else [])


def test_an_array_with_a_too_large_element_can_still_be_closed() -> None:
    observer = observer_of(GEMINI_ARRAY, max_frame_bytes=100)
    relayed = observer.feed(b'[{"candidates":[]},{"text":"' + b"x" * 200)

    with pytest.raises(FrameTooLarge):
        observer.feed(b"x")

    whole = json.loads(relayed + observer.error_tail(502, "upstream_frame_too_large", "An event is too large."))
    assert [list(element) for element in whole] == [["candidates"], ["error"]]
