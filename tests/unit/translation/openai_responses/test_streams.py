"""Streams of the Responses API, read and written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, FrameTooLarge, Usage
from llm_sidecar.formats.openai_responses import OpenAIResponses
from llm_sidecar.translation.answer import Finish, ToldUsage
from llm_sidecar.translation.conversation import Conversation
from llm_sidecar.translation.events import (
    ChoiceEnded,
    DeltaKind,
    Ended,
    Event,
    Failed,
    PartDelta,
    PartEnded,
    PartKind,
    PartStarted,
    Started,
    UsageTold,
)
from llm_sidecar.translation.losses import Losses, Undecodable
from llm_sidecar.translation.openai_responses import OpenAIResponsesTranslator, marks
from llm_sidecar.translation.parts import (
    Media,
    MediaKind,
    Native,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolKind,
)
from tests.integration.recorded_exchanges import Exchange
from tests.unit.translation.recordings import each_recorded, recorded

TRANSLATOR = OpenAIResponsesTranslator()
CALL = Call(api=API.OPENAI_RESPONSES, type=RequestType.GENERATION, path="/responses")
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
LIMIT = 1 << 24


@dataclass
class Assembled:
    """What a stream told, once it is known to keep to the grammar."""

    parts: list[tuple[Any, ...]] = field(default_factory=list)
    finish: Finish | None = None
    usage: ToldUsage | None = None
    failed: Failed | None = None
    ended: bool = False


def assembled(events: Iterable[Event]) -> Assembled:
    """Checks each rule of `events.py` on the way."""
    found, growing = Assembled(), dict[int, tuple[PartStarted, dict[DeltaKind, str], list[Any]]]()
    told: dict[int, tuple[Any, ...]] = {}
    started = False
    for event in events:
        assert not found.ended
        assert found.failed is None
        if isinstance(event, Failed):
            found.failed = event
        elif isinstance(event, Started):
            assert not started
            started = True
        else:
            assert started
        if isinstance(event, PartStarted):
            assert found.finish is None
            assert event.part == len(told) + len(growing)
            calls = {begun.kind for begun, _, _ in growing.values()} | {event.kind}
            assert not growing or calls == {PartKind.TOOL_CALL}
            growing[event.part] = (event, {}, [])
        elif isinstance(event, PartDelta):
            _, texts, citations = growing[event.part]
            texts[event.kind] = texts.get(event.kind, "") + event.text
            citations += [event.citation] if event.citation else []
        elif isinstance(event, PartEnded):
            begun, texts, citations = growing.pop(event.part)
            told[event.part] = (begun.kind, begun.tool_id, begun.tool_name, begun.custom, begun.whole, texts, citations)
        elif isinstance(event, ChoiceEnded):
            assert not growing
            assert found.finish is None
            found.finish = event.finish
        elif isinstance(event, UsageTold):
            found.usage = event.usage
        elif isinstance(event, Ended):
            assert found.finish is not None
            found.ended = True
    found.parts = [told[number] for number in sorted(told)]
    return found


def decoded(stream: bytes, *cuts: int) -> list[Event]:
    decoder = TRANSLATOR.stream_decoder(max_frame_bytes=LIMIT)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    events = [event for a, b in pairwise(places) for event in decoder.feed(stream[a:b])]
    return events + decoder.finish()


def frames(*documents: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents)


def documents(stream: bytes) -> list[dict[str, Any]]:
    """Of a stream that was written here: each event is named, numbered, and of a type that the SDK has."""
    found = []
    for number, frame in enumerate(stream.decode().removesuffix("\n\n").split("\n\n")):
        name, data = frame.split("\n")
        document = json.loads(data.removeprefix("data: "))
        assert name == f"event: {document['type']}"
        assert document["sequence_number"] == number
        EVENT.validate_python(document)
        found.append(document)
    return found


def asked(**fields: Any) -> Conversation:
    return TRANSLATOR.decode_request(CALL, {"model": "gpt-5", "input": "Hi", "stream": True, **fields})


def written(events: Iterable[Event], **request: Any) -> tuple[bytes, list[str]]:
    losses = Losses()
    encoder = TRANSLATOR.stream_encoder(asked(**request), losses=losses)
    return encoder.encode(events), losses.names


def client(stream: bytes) -> openai.OpenAI:
    """The real SDK, whose provider answers with this stream."""
    answer = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    return openai.OpenAI(
        api_key="unused",
        base_url="http://provider.test/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(lambda _request: answer)),
    )


STARTED = Started(id="msg_01", model="claude", api=API.ANTHROPIC_MESSAGES, created_seconds=5)
USAGE = UsageTold(usage=ToldUsage(buckets=Usage(3, 4, 5, 6, 2)))


def part(number: int, kind: PartKind, *texts: str, delta: DeltaKind = DeltaKind.TEXT, **told: Any) -> list[Event]:
    deltas = [PartDelta(part=number, kind=delta, text=text) for text in texts]
    return [PartStarted(part=number, kind=kind, **told), *deltas, PartEnded(part=number)]


def stream_of(*parts: list[Event], finish: Finish = Finish.STOP) -> list[Event]:
    return [STARTED, *(event for each in parts for event in each), ChoiceEnded(finish=finish), USAGE, Ended()]


def call(number: int, tool_id: str, *texts: str, **told: Any) -> list[Event]:
    return part(number, PartKind.TOOL_CALL, *texts, delta=DeltaKind.ARGUMENTS, tool_id=tool_id, tool_name="f", **told)


RICH = stream_of(
    [
        PartStarted(part=0, kind=PartKind.THINKING),
        PartDelta(part=0, kind=DeltaKind.TEXT, text="Hm"),
        PartDelta(part=0, kind=DeltaKind.TEXT, text="m."),
        PartDelta(part=0, kind=DeltaKind.SIGNATURE, text="sig"),
        PartEnded(part=0),
    ],
    part(1, PartKind.TEXT, "Hel", "lo"),
    part(2, PartKind.REFUSAL, "But no."),
    call(3, "toolu_1", '{"a":', "1}"),
    call(4, "toolu_2"),
    call(5, "toolu_3", "free", custom=True),
    part(6, PartKind.TEXT, "Bye"),
    finish=Finish.TOOL_CALLS,
)


@each_recorded(API.OPENAI_RESPONSES, answered=True, stream=True)
def test_a_recorded_stream_tells_what_its_whole_answer_tells(exchange: Exchange) -> None:
    found = assembled(decoded(exchange.response))
    assert found.ended
    last = [line for line in exchange.response.decode().split("\n") if line.startswith("data:")][-1]
    choice = TRANSLATOR.decode_answer(json.loads(last.removeprefix("data:"))["response"]).choices[0]
    assert found.finish is choice.finish
    # Items that begin together end in another order, and OpenAI encrypts the same thoughts anew each time.
    told = [str(_without_signature(each)) for each in found.parts]
    assert sorted(told) == sorted(str(_without_signature(_as_told(each))) for each in choice.parts)
    signed = [each for each in found.parts if each[5].get(DeltaKind.SIGNATURE)]
    assert len(signed) == sum(isinstance(each, Thinking) and bool(each.signature) for each in choice.parts)


def _told(part: tuple[Any, ...]) -> tuple[Any, ...]:
    kind, tool_id, name, custom, whole, texts, citations = part
    return kind, tool_id, name, custom, whole, {k: v for k, v in texts.items() if v}, citations


def _as_told(part: Part) -> tuple[Any, ...]:
    """As `_told`, of a part of a whole answer."""
    if isinstance(part, Text):
        texts = {DeltaKind.TEXT: part.text} if part.text else {}
        if part.citations:
            texts[DeltaKind.CITATION] = ""
        return PartKind.TEXT, "", "", False, None, {k: v for k, v in texts.items() if v}, list(part.citations)
    if isinstance(part, ToolCall):
        texts = {DeltaKind.ARGUMENTS: part.arguments_text()}
        return PartKind.TOOL_CALL, part.id, part.name, part.kind is ToolKind.CUSTOM, None, texts, []
    if isinstance(part, Thinking):
        told = {DeltaKind.TEXT: part.text, DeltaKind.SIGNATURE: part.signature}
        return PartKind.THINKING, "", "", False, None, {k: v for k, v in told.items() if v}, []
    return PartKind.WHOLE, "", "", False, part, {}, []


@each_recorded(API.OPENAI_RESPONSES, answered=True, stream=True)
def test_a_recorded_streams_usage_is_what_everything_counts_by(exchange: Exchange) -> None:
    request = OpenAIResponses().parse_request(CALL, exchange.request_body or b"")
    observer = OpenAIResponses().observe_stream(request, hide_usage=False, max_frame_bytes=LIMIT)
    observer.feed(exchange.response)
    observer.finish()
    usage = assembled(decoded(exchange.response)).usage
    assert usage is not None
    assert usage.buckets == observer.usage


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 20_000), max_size=8), which=st.integers(0, 1000))
def test_any_split_of_the_bytes_gives_the_same_events(cuts: list[int], which: int) -> None:
    streams = [each.response for each in recorded(API.OPENAI_RESPONSES) if each.is_stream]
    stream = streams[which % len(streams)]
    assert decoded(stream, *cuts) == decoded(stream)


def test_a_stream_cut_after_each_byte_gives_the_same_events() -> None:
    stream, _ = written(RICH)
    assert decoded(stream, *range(len(stream))) == decoded(stream)


def test_a_stream_without_its_terminal_event_does_not_end() -> None:
    stream, _ = written(RICH)
    cut = stream[: stream.rindex(b"event: response.completed")]
    assert not any(isinstance(event, Ended) for event in decoded(cut))
    assert not any(isinstance(event, Ended) for event in decoded(stream[:-10]))
    assert isinstance(decoded(stream.rstrip())[-1], Ended)


CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "m", "created_at": 1.0}}
COMPLETED = {"type": "response.completed", "response": {"status": "completed", "usage": None}}


def test_a_server_that_leaves_out_the_frame_of_contents_is_understood() -> None:
    item = {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}
    found = assembled(
        decoded(
            frames(
                CREATED,
                {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hi"},
                {"type": "response.output_item.done", "output_index": 0, "item": item},
                {"type": "response.output_item.done", "output_index": 1, "item": {**item, "id": "msg_2"}},
                COMPLETED,
            )
        )
    )
    assert [each[5] for each in found.parts] == [{DeltaKind.TEXT: "Hi"}, {DeltaKind.TEXT: "Hi"}]


def test_items_that_only_the_whole_answer_tells_are_told() -> None:
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": t} for t in "ab"], "encrypted_content": "e"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "message", "content": [{"type": "refusal", "refusal": "No."}, {"type": "new"}]},
    ]
    completed = {"type": "response.completed", "response": {"status": "completed", "output": output}}
    found = assembled(decoded(frames(completed)))
    assert found.ended
    kinds = [PartKind.THINKING, PartKind.TOOL_CALL, PartKind.WHOLE, PartKind.REFUSAL, PartKind.WHOLE]
    assert [each[0] for each in found.parts] == kinds
    assert found.parts[0][5] == {DeltaKind.TEXT: "a\n\nb", DeltaKind.SIGNATURE: "e"}
    assert found.finish is Finish.TOOL_CALLS


def test_thoughts_are_read_from_summaries_and_from_texts() -> None:
    def delta(kind: str, name: str, index: int, text: str) -> dict[str, Any]:
        return {"type": f"response.{kind}.delta", "output_index": 0, name: index, "delta": text}

    found = assembled(
        decoded(
            frames(
                CREATED,
                {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning"}},
                delta("reasoning_summary_text", "summary_index", 0, "a"),
                delta("reasoning_summary_text", "summary_index", 0, "b"),
                delta("reasoning_summary_text", "summary_index", 1, "c"),
                delta("reasoning_text", "content_index", 0, "d"),
                {"type": "response.content_part.done", "output_index": 0, "part": {"type": "reasoning_text"}},
                {"type": "response.output_item.done", "output_index": 0, "item": {"type": "reasoning"}},
                COMPLETED,
            )
        )
    )
    assert [each[5] for each in found.parts] == [{DeltaKind.TEXT: "ab\n\nc\n\nd"}]


def test_a_whole_item_waits_until_no_other_part_grows() -> None:
    found = assembled(
        decoded(
            frames(
                CREATED,
                {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "a"},
                {"type": "response.output_item.done", "output_index": 0, "item": {"type": "mcp_call", "id": "m"}},
                {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "b"},
                COMPLETED,
            )
        )
    )
    assert [each[0] for each in found.parts] == [PartKind.TEXT, PartKind.WHOLE]
    assert found.parts[0][5] == {DeltaKind.TEXT: "ab"}


def test_unknown_content_is_told_and_unknown_stages_are_not() -> None:
    found = assembled(
        decoded(
            frames(
                CREATED,
                {"type": "response.audio.delta", "delta": "QQ=="},
                {"type": "response.mcp_call_arguments.delta", "output_index": 0, "item_id": "m", "delta": "{"},
                {"type": "response.of_tomorrow"},
                COMPLETED,
            )
        )
    )
    (whole,) = [each[4] for each in found.parts]
    assert isinstance(whole, Native)
    assert whole.kind == "response.audio.delta"


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow"}, 429, "rate_limit_exceeded"),
        ({"type": "error", "error": {"type": "server_error", "message": "slow"}}, 500, "server_error"),
        ({"error": {"code": "overloaded_error", "message": "slow"}}, 503, "overloaded_error"),
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "slow"}}},
            500,
            "server_error",
        ),
    ],
)
def test_an_error_ends_the_stream(document: dict[str, Any], status: int, code: str) -> None:
    events = decoded(frames(CREATED, document, COMPLETED))
    assert events[-1] == Failed(status=status, code=code, message="slow")


@pytest.mark.parametrize(
    "document",
    [
        {"no": "type"},
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": 3},
        {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{"},
        {"type": "response.output_item.done", "output_index": 0, "item": {"type": "message", "content": [3]}},
    ],
)
def test_a_frame_of_another_language_is_undecodable(document: dict[str, Any]) -> None:
    with pytest.raises(Undecodable):
        decoded(frames(CREATED, document))


def test_a_frame_that_is_not_json_is_undecodable_and_a_huge_one_too_large() -> None:
    with pytest.raises(Undecodable):
        decoded(b"data: [1]\n\n")
    with pytest.raises(FrameTooLarge):
        TRANSLATOR.stream_decoder(max_frame_bytes=10).feed(b"data: " + b"x" * 20)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "text", "reason"]), inner),
    max_leaves=4,
)
_ITEMS = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "reasoning", "function_call", "web_search_call"]) | _JSON},
    optional=dict.fromkeys(
        ("content", "summary", "arguments", "call_id", "encrypted_content", "extra_content", "role", "id"), _JSON
    ),
)
_KINDS = [
    "created",
    "output_item.added",
    "output_item.done",
    "content_part.added",
    "content_part.done",
    "output_text.delta",
    "output_text.annotation.added",
    "refusal.delta",
    "function_call_arguments.delta",
    "reasoning_summary_text.delta",
    "completed",
    "incomplete",
    "failed",
]
_FRAMES = st.fixed_dictionaries(
    {"type": st.sampled_from([f"response.{kind}" for kind in _KINDS]) | _JSON},
    optional={
        "output_index": st.integers(0, 1) | _JSON,
        "content_index": st.just(0) | _JSON,
        "delta": st.just("a") | _JSON,
        "item": _ITEMS,
        "part": st.fixed_dictionaries({"type": st.sampled_from(["output_text", "refusal"]) | _JSON, "text": _JSON}),
        "logprobs": _JSON,
        "annotation": _JSON,
        "error": _JSON,
        "response": st.fixed_dictionaries(
            {"status": st.just("incomplete") | _JSON},
            optional={"output": st.lists(_ITEMS | _JSON, max_size=2), "incomplete_details": _JSON, "usage": _JSON},
        ),
    },
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.lists(_FRAMES, max_size=5).map(lambda told: frames(*told)))
def test_whatever_comes_keeps_to_the_grammar_or_is_undecodable(stream: bytes) -> None:
    """And what was read can be written."""
    decoder = TRANSLATOR.stream_decoder(max_frame_bytes=LIMIT)
    events: list[Event] = []
    try:
        for frame in stream.splitlines(keepends=True):
            events += decoder.feed(frame)
        events += decoder.finish()
    except Undecodable:
        pass
    assembled(events)
    written(events)


def test_a_written_stream_has_the_whole_lifecycle() -> None:
    stream, dropped = written(stream_of(part(0, PartKind.TEXT, "Hel", "lo")))
    assert dropped == []
    told = documents(stream)
    assert [document["type"].removeprefix("response.") for document in told] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    first, last = told[0]["response"], told[-1]["response"]
    assert first["id"] == last["id"] == "resp_llmsidecar_msg_01"
    assert (first["status"], first["output"], first["usage"]) == ("in_progress", [], None)
    assert (last["status"], last["usage"]["total_tokens"], last["created_at"]) == ("completed", 18, 5)
    assert last["output"] == [told[-2]["item"]]
    assert last["output"][0]["content"][0]["text"] == "Hello"


def test_each_kind_of_part_grows_by_its_own_events() -> None:
    told = documents(written(RICH)[0])
    kinds = {document["type"] for document in told}
    for kind in ("reasoning_summary_part.added", "reasoning_summary_text.delta", "reasoning_summary_text.done"):
        assert f"response.{kind}" in kinds
    for kind in ("refusal.delta", "refusal.done", "function_call_arguments.delta", "function_call_arguments.done"):
        assert f"response.{kind}" in kinds
    assert "response.custom_tool_call_input.done" in kinds
    output = told[-1]["response"]["output"]
    types = ["reasoning", "message", "function_call", "function_call", "custom_tool_call", "message"]
    assert [item["type"] for item in output] == types
    assert [part["type"] for part in output[1]["content"]] == ["output_text", "refusal"]
    assert [item["call_id"] for item in output[2:5]] == ["toolu_1", "toolu_2", "toolu_3"]
    assert [document["item"] for document in told if document["type"].endswith("item.done")] == output
    assert marks.unseal(output[0]["encrypted_content"]) == marks.Sealed(API.ANTHROPIC_MESSAGES, "sig", None)


def test_parallel_tool_calls_may_grow_at_once() -> None:
    one, two = call(0, "a", "{", "}"), call(1, "b", "[", "]")
    both: list[Event] = []
    for pair in zip(one, two, strict=True):
        both += pair
    stream, _ = written(stream_of(both, finish=Finish.TOOL_CALLS))
    found = assembled(decoded(stream))
    assert [each[5] for each in found.parts] == [{DeltaKind.ARGUMENTS: "{}"}, {DeltaKind.ARGUMENTS: "[]"}]


def test_what_is_written_is_read_again() -> None:
    before, after = assembled(RICH), assembled(decoded(written(RICH)[0]))
    assert [_told(each) for each in after.parts[1:]] == [_told(each) for each in before.parts[1:]]
    assert after.parts[0][5][DeltaKind.TEXT] == "Hmm."
    assert after.finish is before.finish
    assert after.usage is not None
    assert after.usage.buckets == USAGE.usage.buckets


@each_recorded(API.OPENAI_RESPONSES, answered=True, stream=True)
def test_a_recorded_stream_is_written_and_read_again(exchange: Exchange) -> None:
    """But for OpenAI's own items, which are named."""
    events = decoded(exchange.response)
    before = assembled(events)
    stream, dropped = written(events)
    documents(stream)
    after = assembled(decoded(stream))
    own = [each[4].kind for each in before.parts if each[0] is PartKind.WHOLE]
    assert set(own) <= set(dropped)
    kept = [_without_signature(each) for each in before.parts if each[0] is not PartKind.WHOLE]
    assert [_without_signature(each) for each in after.parts] == kept


def _without_signature(part: tuple[Any, ...]) -> tuple[Any, ...]:
    kind, tool_id, name, custom, whole, texts, citations = _told(part)
    return kind, tool_id, name, custom, whole, {k: v for k, v in texts.items() if k != DeltaKind.SIGNATURE}, citations


def test_the_sdk_takes_a_written_stream_for_a_whole_answer() -> None:
    with client(written(RICH)[0]).responses.stream(model="gpt-5", input="Hi") as stream:
        kinds = [event.type for event in stream]
        response = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert response.output_text == "HelloBye"
    assert response.usage is not None
    assert response.usage.output_tokens == 6


@pytest.mark.parametrize(
    ("finish", "reason"), [(Finish.LENGTH, "max_output_tokens"), (Finish.SAFETY, "content_filter")]
)
def test_a_cut_answer_ends_incomplete(finish: Finish, reason: str) -> None:
    stream, _ = written(stream_of(part(0, PartKind.TEXT, "Hel"), finish=finish))
    last = documents(stream)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": reason}
    assert last["response"]["output"][0]["status"] == "incomplete"
    events = list(client(stream).responses.create(model="gpt-5", input="Hi", stream=True))
    assert events[-1].type == "response.incomplete"


def test_the_sdk_raises_at_the_error_tail() -> None:
    encoder = TRANSLATOR.stream_encoder(asked(), losses=Losses())
    begun = encoder.encode(RICH[:4])
    tail = encoder.error_tail(502, "stream_interrupted", "The provider's stream was cut.")
    assert json.loads(tail.split(b"data: ")[1])["sequence_number"] == len(documents(begun))
    with pytest.raises(openai.APIError, match="was cut"):
        list(client(begun + tail).responses.create(model="gpt-5", input="Hi", stream=True))


def test_the_sdk_raises_where_the_provider_told_an_error() -> None:
    stream, _ = written([STARTED, Failed(status=529, code="overloaded_error", message="Overloaded")])
    with pytest.raises(openai.APIError, match="Overloaded"):
        list(client(stream).responses.create(model="gpt-5", input="Hi", stream=True))


def test_the_response_tells_what_was_asked_for() -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
    request = {"instructions": "Be short.", "temperature": 0.5, "tools": [tool], "tool_choice": "required"}
    told = documents(written(stream_of(part(0, PartKind.TEXT, "a")), **request)[0])
    for document in (told[0], told[-1]):
        assert {name: document["response"][name] for name in request} == request
        assert document["response"]["store"] is False


def test_parts_in_one_piece_are_told_as_if_they_had_grown() -> None:
    wholes: list[Part] = [
        Thinking(redacted="secret", owner=API.ANTHROPIC_MESSAGES),
        Thinking(text="Hm.", signature="sig", owner=API.ANTHROPIC_MESSAGES),
        Text(text="Hello"),
        Refusal(text="No."),
        ToolCall(id="c", name="f", arguments={"a": 1}, signature="s"),
        Media(kind=MediaKind.IMAGE, media_type="image/png", data="QQ=="),
        Native(owner=API.ANTHROPIC_MESSAGES, kind="server_tool_use", value={}),
    ]
    parts = [part(number, PartKind.WHOLE, whole=whole) for number, whole in enumerate(wholes)]
    stream, dropped = written(stream_of(*parts))
    assert dropped == ["server_tool_use"]
    output = documents(stream)[-1]["response"]["output"]
    types = ["reasoning", "reasoning", "message", "function_call", "image_generation_call"]
    assert [item["type"] for item in output] == types
    assert marks.unseal(output[0]["encrypted_content"]) == marks.Sealed(API.ANTHROPIC_MESSAGES, None, "secret")
    assert marks.unseal(output[1]["encrypted_content"]) == marks.Sealed(API.ANTHROPIC_MESSAGES, "sig", None)
    assert output[3]["extra_content"] == {"google": {"thought_signature": "s"}}


def test_what_a_stream_cannot_tell_is_named() -> None:
    entry = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}
    citation = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}}
    text: list[Event] = [
        PartStarted(part=0, kind=PartKind.TEXT, extra={"odd": 1}),
        PartDelta(part=0, kind=DeltaKind.TEXT, text="a", logprobs={"content": [entry]}),
        PartDelta(part=0, kind=DeltaKind.CITATION, citation=citation),
        PartDelta(part=0, kind=DeltaKind.CITATION, citation={"type": "char_location"}),
        PartDelta(part=0, kind=DeltaKind.TEXT, text="b", logprobs={"other": 1}),
        PartDelta(part=0, kind=DeltaKind.SIGNATURE, text="s"),
        PartEnded(part=0),
        PartStarted(choice=1, part=0, kind=PartKind.TEXT),
    ]
    stream, dropped = written(stream_of(text))
    assert dropped == ["messages.content.odd", "citations", "logprobs", "thought_signature", "choices"]
    content = documents(stream)[-1]["response"]["output"][0]["content"][0]
    assert content["logprobs"] == [entry]
    assert [each["url"] for each in content["annotations"]] == ["u"]
