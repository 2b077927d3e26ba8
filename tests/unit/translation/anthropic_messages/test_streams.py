from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import anthropic
import httpx2
import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.anthropic_messages import AnthropicMessages
from llm_sidecar.formats.base import Call, FrameTooLarge, Usage
from llm_sidecar.translation.answer import Finish, ToldUsage
from llm_sidecar.translation.anthropic_messages import AnthropicTranslator
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
from llm_sidecar.translation.parts import Media, MediaKind, Native, Part, Thinking, ToolCall
from tests.integration.recorded_exchanges import Exchange
from tests.unit.translation.grammar import assembled, check_grammar
from tests.unit.translation.recordings import each_recorded

TRANSLATOR = AnthropicTranslator()
CALL = Call(api=API.ANTHROPIC_MESSAGES, type=RequestType.GENERATION, path="/v1/messages")
REQUEST: Final = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
SDK_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
USAGE: Final = {"input_tokens": 1, "output_tokens": 1}
MESSAGE: Final = {"id": "m1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": USAGE}
START: Final = {"type": "message_start", "message": MESSAGE}
STOP: Final = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
END: Final = {"type": "message_stop"}


def frames(*documents: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (each["type"].encode(), orjson.dumps(each)) for each in documents)


def began(block: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def grew(delta: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def ended(index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def read(stream: bytes, *, cuts: Iterable[int] = (), max_frame_bytes: int = 1 << 20) -> list[Event]:
    decoder = TRANSLATOR.stream_decoder(max_frame_bytes=max_frame_bytes)
    events: list[Event] = []
    start = 0
    for cut in (*sorted(cuts), len(stream)):
        events += decoder.feed(stream[start:cut])
        start = cut
    return events + decoder.finish()


def write(*events: Event) -> tuple[bytes, list[str]]:
    losses = Losses()
    encoder = TRANSLATOR.stream_encoder(TRANSLATOR.decode_request(CALL, REQUEST), losses=losses)
    return b"".join(encoder.encode([event]) for event in events), losses.names


def by_sdk(stream: bytes) -> Message:
    """What the SDK's own stream makes of it, after each event was held strictly against its type."""
    for line in stream.split(b"\n"):
        if line.startswith(b"data: "):
            SDK_EVENT.validate_json(line.removeprefix(b"data: "), strict=True)
    return _sdk_message(stream)


def _sdk_message(stream: bytes) -> Message:
    def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)

    with (
        anthropic.Anthropic(
            api_key="none", max_retries=0, http_client=httpx2.Client(transport=httpx2.MockTransport(answer))
        ) as client,
        client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]) as told,
    ):
        return told.get_final_message()


def foreign(*events: Event, api: API | None = API.OPENAI_CHAT, finish: Finish = Finish.STOP) -> tuple[Event, ...]:
    usage = ToldUsage(buckets=Usage(input_tokens=7, cache_read_tokens=2, output_tokens=3, reasoning_tokens=1))
    return (
        Started(id="x.1", model="gpt", api=api),
        *events,
        ChoiceEnded(finish=finish),
        UsageTold(usage=usage),
        Ended(),
    )


def text_part(part: int, *texts: str, kind: PartKind = PartKind.TEXT, choice: int = 0) -> tuple[Event, ...]:
    deltas = (PartDelta(choice=choice, part=part, kind=DeltaKind.TEXT, text=text) for text in texts)
    return (PartStarted(choice=choice, part=part, kind=kind), *deltas, PartEnded(choice=choice, part=part))


def arguments(part: int, text: str) -> PartDelta:
    return PartDelta(part=part, kind=DeltaKind.ARGUMENTS, text=text)


@each_recorded(API.ANTHROPIC_MESSAGES, answered=True, stream=True)
def test_a_recorded_stream_keeps_to_the_grammar_and_ends(exchange: Exchange) -> None:
    events = read(exchange.response)
    check_grammar(events)
    assert isinstance(events[-1], Ended)


@each_recorded(API.ANTHROPIC_MESSAGES, answered=True, stream=True)
def test_a_recorded_streams_usage_is_what_the_format_reads(exchange: Exchange) -> None:
    request = AnthropicMessages().parse_request(CALL, orjson.dumps(exchange.request))
    observer = AnthropicMessages().observe_stream(request, hide_usage=False, max_frame_bytes=1 << 20)
    observer.feed(exchange.response)
    told = [event.usage.buckets for event in read(exchange.response) if isinstance(event, UsageTold)]
    assert told[-1] == observer.usage


@each_recorded(API.ANTHROPIC_MESSAGES, answered=True, stream=True)
def test_a_recorded_stream_written_again_says_the_same(exchange: Exchange) -> None:
    events = read(exchange.response)
    stream, dropped = write(*events)
    again = read(stream)
    check_grammar(again)
    assert assembled(again) == assembled(events)
    assert [event.whole for event in again if isinstance(event, PartStarted)] == [
        event.whole for event in events if isinstance(event, PartStarted)
    ]
    assert (again[0], again[-3:]) == (events[0], events[-3:])
    assert dropped == []
    # Some of their blocks are known to the SDK's beta types alone, at which its plain types would warn.
    ours, theirs = (_sdk_message(each).model_dump(warnings=False) for each in (stream, exchange.response))
    assert ours == theirs


@each_recorded(API.ANTHROPIC_MESSAGES, answered=True, stream=True)
@settings(max_examples=20)
@given(data=st.data())
def test_however_a_recorded_stream_is_cut_the_events_are_the_same(exchange: Exchange, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(min_value=0, max_value=len(exchange.response)), max_size=30))
    assert read(exchange.response, cuts=cuts) == read(exchange.response)


def test_a_stream_read_byte_by_byte_gives_the_same_events() -> None:
    stream = frames(START, began({"type": "text", "text": ""}), grew({"type": "text_delta", "text": "ö"}), STOP, END)
    crlf = stream.replace(b"\n", b"\r\n")
    assert read(stream, cuts=range(len(stream))) == read(stream) == read(crlf, cuts=range(len(crlf)))


@given(st.binary(max_size=200), st.lists(st.integers(min_value=0, max_value=200), max_size=3))
def test_rubbish_raises_nothing_but_our_own(rubbish: bytes, cuts: list[int]) -> None:
    for stream in (rubbish, frames(START) + rubbish):
        try:
            read(stream, cuts=cuts, max_frame_bytes=100)
        except (Undecodable, FrameTooLarge):
            continue


_SCRAMBLED = st.lists(
    st.sampled_from(
        [
            START,
            began({"type": "text", "text": "a"}),
            began({"type": "thinking", "thinking": "", "signature": "s"}, 1),
            began({"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}, 1),
            began({"type": "server_tool_use", "id": "1", "name": "f", "input": {}}, 2),
            began({"no": "type"}),
            grew({"type": "text_delta", "text": "b"}),
            grew({"type": "input_json_delta", "partial_json": "{}"}, 1),
            grew({"type": "input_json_delta", "partial_json": "{}"}, 2),
            grew({"type": "unheard_of"}),
            ended(),
            ended(1),
            {"type": "ping"},
            {"type": "unheard_of"},
            STOP,
            END,
            {"type": "error", "error": {"type": "overloaded_error"}},
        ]
    ),
    max_size=12,
)


@given(_SCRAMBLED)
def test_frames_in_any_order_keep_to_the_grammar_or_are_refused(documents: list[dict[str, Any]]) -> None:
    try:
        events = read(frames(START, *documents))
    except Undecodable:
        return
    check_grammar(events, is_whole=False)


def test_a_cut_stream_has_no_end() -> None:
    assert read(frames(START, began({"type": "text", "text": ""}), STOP))[-1] == UsageTold(
        usage=ToldUsage(buckets=Usage(input_tokens=1, output_tokens=2), extra={"input_tokens": 1, "output_tokens": 2})
    )


def test_a_last_frame_without_its_empty_line_is_read() -> None:
    stream = frames(START, STOP, END)
    assert isinstance(read(stream.removesuffix(b"\n\n"))[-1], Ended)
    assert not isinstance(read(stream.removesuffix(b"}\n\n"))[-1], Ended)


def test_an_error_in_the_stream_is_told_and_nothing_behind_it() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    assert read(frames(START, error, END))[1:] == [Failed(status=529, code="overloaded_error", message="Overloaded")]


def test_later_usage_wins_and_what_it_leaves_out_stays() -> None:
    start = {
        **START,
        "message": {**MESSAGE, "usage": {"input_tokens": 9, "cache_read_input_tokens": 4, "output_tokens": 1}},
    }
    stop = {**STOP, "usage": {"input_tokens": 11, "cache_read_input_tokens": None, "output_tokens": 5}}
    told = [event.usage.buckets for event in read(frames(start, STOP, stop, END)) if isinstance(event, UsageTold)]
    assert told[-1] == Usage(input_tokens=11, cache_read_tokens=4, output_tokens=5)


def test_a_providers_own_tool_is_told_when_it_is_whole() -> None:
    use = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    events = read(
        frames(
            START,
            began(use),
            grew({"type": "input_json_delta", "partial_json": '{"query"'}),
            grew({"type": "input_json_delta", "partial_json": ':"a"}'}),
            ended(),
            STOP,
            END,
        )
    )
    whole = Native(owner=API.ANTHROPIC_MESSAGES, kind="server_tool_use", value={**use, "input": {"query": "a"}})
    assert events[1:3] == [PartStarted(part=0, kind=PartKind.WHOLE, whole=whole), PartEnded(part=0)]


def test_a_delta_of_an_unknown_kind_is_not_passed_over() -> None:
    delta = {"type": "unheard_of", "value": 1}
    events = read(frames(START, began({"type": "text", "text": ""}), grew(delta), ended(), STOP, END))
    assert [event.whole for event in events if isinstance(event, PartStarted)] == [
        None,
        Native(owner=API.ANTHROPIC_MESSAGES, kind="unheard_of", value=delta),
    ]


def test_arguments_that_came_at_once_are_told() -> None:
    block = {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}
    events = read(frames(START, began(block), ended(), STOP, END))
    assert assembled(events)[0].parts[0].text == '{"a":1}'


def test_what_is_kept_of_a_block_is_bounded() -> None:
    delta = grew({"type": "input_json_delta", "partial_json": "x" * 100})
    with pytest.raises(FrameTooLarge):
        read(frames(START, began({"type": "server_tool_use", "id": "1"}), *[delta] * 30), max_frame_bytes=2000)


@pytest.mark.parametrize(
    "documents",
    [
        [END],
        [began({"type": "text", "text": ""})],
        [START, grew({"type": "text_delta", "text": ""})],
        [START, began({"type": "text"})],
        [START, STOP, began({"type": "text", "text": ""})],
        [START, began({"type": "text", "text": ""}), grew({"type": "text_delta"})],
        [{"type": "message_start", "message": 1}],
    ],
)
def test_what_is_no_stream_of_this_api_is_refused(documents: list[dict[str, Any]]) -> None:
    with pytest.raises(Undecodable):
        read(frames(*documents))


def test_a_foreign_stream_is_written_as_the_api_would() -> None:
    stream, dropped = write(*foreign(*text_part(0, "Hel", "lo")))
    kinds = [line.removeprefix(b"event: ").decode() for line in stream.split(b"\n") if line.startswith(b"event: ")]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    message = by_sdk(stream)
    assert message.to_dict() == {
        "id": "x.1",
        "type": "message",
        "role": "assistant",
        "model": "gpt",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": 7,
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": 2,
            "output_tokens": 3,
            "output_tokens_details": {"thinking_tokens": 1},
        },
    }
    assert dropped == []


def test_overlapping_calls_are_written_one_after_the_other() -> None:
    stream, _ = write(
        *foreign(
            PartStarted(part=0, kind=PartKind.TOOL_CALL, tool_id="a", tool_name="f"),
            PartStarted(part=1, kind=PartKind.TOOL_CALL, tool_id="b", tool_name="g"),
            arguments(1, '{"y":'),
            arguments(0, '{"x":'),
            arguments(1, "2}"),
            PartEnded(part=1),
            arguments(0, "1}"),
            PartStarted(part=2, kind=PartKind.TOOL_CALL, tool_id="", tool_name="h"),
            PartEnded(part=0),
            arguments(2, "{}"),
            PartEnded(part=2),
        )
    )
    check_grammar(read(stream))
    message = by_sdk(stream)
    assert [(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"] == [
        ("a", "f", {"x": 1}),
        ("b", "g", {"y": 2}),
        ("call_x_1_2", "h", {}),
    ]
    assert message.stop_reason == "tool_use"


def test_a_text_of_nothing_gets_no_block() -> None:
    stream, _ = write(*foreign(*text_part(0, ""), *text_part(1, "a")))
    assert [block.to_dict() for block in by_sdk(stream).content] == [{"type": "text", "text": "a"}]


def test_a_refusal_ends_as_one() -> None:
    message = by_sdk(write(*foreign(*text_part(0, "No.", kind=PartKind.REFUSAL)))[0])
    assert message.stop_reason == "refusal"


def test_signatures_of_others_are_marked_and_come_back() -> None:
    events = foreign(
        PartStarted(part=0, kind=PartKind.THINKING),
        PartDelta(part=0, kind=DeltaKind.TEXT, text="Hm"),
        PartDelta(part=0, kind=DeltaKind.SIGNATURE, text="c2"),
        PartDelta(part=0, kind=DeltaKind.SIGNATURE, text="ln"),
        PartEnded(part=0),
        PartStarted(part=1, kind=PartKind.TOOL_CALL, tool_id="a", tool_name="f", signature="Y2FsbA=="),
        PartEnded(part=1),
        api=API.GEMINI,
    )
    content = by_sdk(write(*events)[0]).to_dict()["content"]
    request = {**REQUEST, "messages": [{"role": "assistant", "content": json.loads(json.dumps(content))}]}
    assert TRANSLATOR.decode_request(CALL, request).turns[0].parts == (
        Thinking(text="Hm", signature="c2ln", owner=API.GEMINI),
        ToolCall(id="a", name="f", arguments={}, signature="Y2FsbA=="),
    )


def test_thinking_of_an_unknown_provider_is_shown_and_never_sent_back() -> None:
    stream, _ = write(*foreign(*text_part(0, "Hm", kind=PartKind.THINKING), *text_part(1, "a"), api=None))
    content = by_sdk(stream).content
    assert [block.type for block in content] == ["thinking", "text"]
    request = {**REQUEST, "messages": [{"role": "assistant", "content": [block.to_dict() for block in content]}]}
    assert len(TRANSLATOR.decode_request(CALL, request).turns[0].parts) == 1


def test_what_a_stream_cannot_say_is_named() -> None:
    stream, dropped = write(
        *foreign(
            PartStarted(part=0, kind=PartKind.TEXT, extra={"annotations": []}),
            PartDelta(part=0, kind=DeltaKind.TEXT, text="a", logprobs={}),
            PartDelta(part=0, kind=DeltaKind.CITATION, citation={"url": "u"}),
            PartDelta(part=0, kind=DeltaKind.SIGNATURE, text="s"),
            PartEnded(part=0),
            PartStarted(part=1, kind=PartKind.WHOLE, whole=Native(owner=API.GEMINI, kind="executableCode", value={})),
            PartEnded(part=1),
            *text_part(0, "second", choice=1),
            finish=Finish.OTHER,
        )
    )
    assert [block.to_dict() for block in by_sdk(stream).content] == [{"type": "text", "text": "a"}]
    assert dropped == [
        "logprobs",
        "messages.content.annotations",
        "citations",
        "thought_signature",
        "executableCode",
        "choices",
        "finish_reason",
    ]


@pytest.mark.parametrize(
    ("part", "name", "stop_reason"),
    [
        (
            [
                PartStarted(part=0, kind=PartKind.TOOL_CALL, tool_id="a", tool_name="f", custom=True),
                PartDelta(part=0, kind=DeltaKind.ARGUMENTS, text="x = 1"),
            ],
            "messages.tool_calls",
            "max_tokens",
        ),
        (
            [PartStarted(part=0, kind=PartKind.WHOLE, whole=ToolCall(id="a", name="f", arguments="{"))],
            "messages.tool_calls",
            "max_tokens",
        ),
        (
            [PartStarted(part=0, kind=PartKind.WHOLE, whole=Media(kind=MediaKind.IMAGE, data=""))],
            "image",
            "end_turn",
        ),
    ],
    ids=["free text", "arguments that are no JSON", "an image"],
)
def test_content_that_cannot_be_said_is_left_out_and_told(part: list[Event], name: str, stop_reason: str) -> None:
    stream, dropped = write(*foreign(*part, PartEnded(part=0), *text_part(1, "Hi")))
    message = by_sdk(stream)
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Hi"}]
    assert (message.stop_reason, dropped) == (stop_reason, [name])


@pytest.mark.parametrize(
    "part",
    [ToolCall(id="a", name="f", arguments={"x": 1}), Thinking(text="Hm", owner=API.GEMINI)],
    ids=["call", "thought"],
)
def test_a_part_that_comes_whole_is_written(part: Part) -> None:
    stream, _ = write(*foreign(PartStarted(part=0, kind=PartKind.WHOLE, whole=part), PartEnded(part=0)))
    message = by_sdk(stream)
    assert [block.type for block in message.content] == ["tool_use" if isinstance(part, ToolCall) else "thinking"]


@pytest.mark.parametrize("told", [True, False], ids=["by the provider", "by us"])
def test_the_sdk_raises_at_an_error(*, told: bool) -> None:
    encoder = TRANSLATOR.stream_encoder(TRANSLATOR.decode_request(CALL, REQUEST), losses=Losses())
    stream = encoder.encode(foreign(*text_part(0, "Hel"))[:3])
    if told:
        stream += encoder.encode([Failed(status=529, code="overloaded", message="Busy")])
    else:
        stream += encoder.error_tail(504, "timeout", "Too slow")
    with pytest.raises(anthropic.APIStatusError):
        _sdk_message(stream)
