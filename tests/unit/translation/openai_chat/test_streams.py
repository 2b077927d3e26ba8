"""Streams of chat completion chunks: read as events, and written for applications."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import httpx2
import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, FrameTooLarge, Usage
from llm_sidecar.formats.openai_chat import OpenAIChat
from llm_sidecar.translation.answer import Finish, ToldUsage
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
from llm_sidecar.translation.openai_chat import OpenAIChatTranslator
from llm_sidecar.translation.parts import Media, MediaKind, Native, Part, Text, Thinking, ToolCall
from tests.integration.recorded_exchanges import Exchange
from tests.unit.translation.grammar import GrownPart, assembled, check_grammar
from tests.unit.translation.noise import ANYTHING, places
from tests.unit.translation.recordings import each_recorded, recorded

CALL: Final = Call(api=API.OPENAI_CHAT, type=RequestType.GENERATION, path="/chat/completions")
TRANSLATOR: Final = OpenAIChatTranslator()
MAX_FRAME_BYTES: Final = 1 << 20
DONE: Final = b"data: [DONE]\n\n"


def read(*chunks: bytes) -> list[Event]:
    decoder = TRANSLATOR.stream_decoder(max_frame_bytes=MAX_FRAME_BYTES)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return [*events, *decoder.finish()]


def chunk(*choices: dict[str, Any], **fields: Any) -> bytes:
    document = {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m", "choices": choices, **fields}
    return b"data: %b\n\n" % orjson.dumps(document)


def delta(index: int = 0, *, end: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": fields, "logprobs": None, "finish_reason": end}


def call_delta(index: int | None, arguments: str, name: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {"arguments": arguments} | ({} if name is None else {"name": name})
    numbered = {} if index is None else {"index": index}
    return delta(tool_calls=[{**numbered, "function": function, **fields}])


def write(events: Iterable[Event], *, include_usage: bool = True) -> tuple[bytes, list[str]]:
    losses = Losses()
    options = {"stream_options": {"include_usage": include_usage}}
    conversation = TRANSLATOR.decode_request(CALL, {"model": "m", "messages": [], "stream": True, **options})
    encoder = TRANSLATOR.stream_encoder(conversation, losses=losses)
    return b"".join(encoder.encode([event]) for event in events), losses.names


def by_sdk(stream: bytes) -> list[ChatCompletionChunk]:
    """What the SDK reads, checked strictly by its own types."""
    answer = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    with openai.OpenAI(
        api_key="none",
        base_url="http://provider.invalid/v1",
        http_client=openai.DefaultHttpxClient(transport=httpx2.MockTransport(lambda _: answer)),
    ) as client:
        chunks = list(client.chat.completions.create(model="m", messages=[], stream=True))
    for each in chunks:
        ChatCompletionChunk.model_validate_json(each.to_json(exclude_unset=True), strict=True)
    return chunks


@each_recorded(API.OPENAI_CHAT, answered=True, stream=True)
def test_every_recorded_stream_is_read_to_its_end(exchange: Exchange) -> None:
    events = read(exchange.response)
    check_grammar(events)
    assert isinstance(events[-1], Ended)
    observer = OpenAIChat().observe_stream(
        OpenAIChat().parse_request(CALL, orjson.dumps(exchange.request)),
        hide_usage=False,
        max_frame_bytes=MAX_FRAME_BYTES,
    )
    observer.feed(exchange.response)
    assert [observer.usage] == [event.usage.buckets for event in events if isinstance(event, UsageTold)]


@each_recorded(API.OPENAI_CHAT, answered=True, stream=True)
def test_what_is_written_of_a_recorded_stream_says_the_same(exchange: Exchange) -> None:
    events = read(exchange.response)
    written, _ = write(events)
    again = read(written)
    check_grammar(again)
    assert assembled(events) == assembled(again)
    usages = [[event.usage.buckets for event in each if isinstance(event, UsageTold)] for each in (events, again)]
    assert usages[0] == usages[1]
    assert by_sdk(written)[-1].usage is not None


@pytest.mark.needs("recordings")
@given(data=st.data())
def test_however_the_bytes_are_cut_the_events_are_the_same(data: st.DataObject) -> None:
    streams = [exchange.response for exchange in recorded(API.OPENAI_CHAT) if exchange.is_stream]
    stream = data.draw(st.sampled_from([*streams, *(each.replace(b"\n", b"\r\n") for each in streams)]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(stream) == read(*pieces)


def test_thoughts_text_and_calls_are_parts_of_their_own() -> None:
    events = read(
        chunk(delta(role="assistant", content="", refusal=None), system_fingerprint="f", obfuscation="xx"),
        chunk(delta(reasoning_content="hm", reasoning="hm")),
        chunk(delta(content="one ")),
        chunk(delta(content="moment")),
        chunk(call_delta(0, "", "f", id="a", type="function")),
        chunk(call_delta(0, '{"x"')),
        chunk(call_delta(1, "{", "g", id="b", type="function")),
        chunk(call_delta(0, ":1}")),
        chunk(call_delta(1, "}")),
        chunk(delta(end="tool_calls")),
        chunk(usage={"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 1}}),
        DONE,
    )
    check_grammar(events)
    assert (
        Started(api=API.OPENAI_CHAT, id="c1", model="m", created_seconds=5, extra={"system_fingerprint": "f"})
        == events[0]
    )
    choice = assembled(events)[0]
    assert [
        GrownPart(kind=PartKind.THINKING, text="hm"),
        GrownPart(kind=PartKind.TEXT, text="one moment"),
        GrownPart(kind=PartKind.TOOL_CALL, tool_id="a", tool_name="f", text='{"x":1}'),
        GrownPart(kind=PartKind.TOOL_CALL, tool_id="b", tool_name="g", text="{}"),
    ] == choice.parts
    assert choice.finish == Finish.TOOL_CALLS
    assert isinstance(events[-2], UsageTold)
    assert Usage(input_tokens=2, cache_read_tokens=1, output_tokens=4) == events[-2].usage.buckets


@pytest.mark.parametrize("number", [0, None])
def test_calls_that_a_server_does_not_number_are_told_apart_by_their_ids(number: int | None) -> None:
    events = read(
        chunk(call_delta(number, "{}", "f", id="a")),
        chunk(call_delta(number, '{"x"', "f", id="b")),
        chunk(call_delta(1 if number == 0 else None, ":1}")),
        chunk(delta(end="stop")),
        DONE,
    )
    check_grammar(events)
    parts = assembled(events)[0].parts
    assert [(part.tool_id, part.text) for part in parts] == [("a", "{}"), ("b", '{"x":1}')]


def test_a_call_begins_when_its_name_is_known() -> None:
    events = read(chunk(call_delta(0, "{", id="a")), chunk(call_delta(0, "", "f")), chunk(call_delta(0, "}")), DONE)
    check_grammar(events)
    assert [GrownPart(kind=PartKind.TOOL_CALL, tool_id="a", tool_name="f", text="{}")] == assembled(events)[0].parts


def test_a_gemini_signature_is_read_with_its_call() -> None:
    signature = {"google": {"thought_signature": "sig"}}
    events = read(chunk(call_delta(0, "{}", "f", id="a", extra_content=signature)), DONE)
    started = next(event for event in events if isinstance(event, PartStarted))
    assert started.signature == "sig"


def test_several_choices_grow_side_by_side() -> None:
    events = read(
        chunk(delta(0, content="a"), delta(1, content="x")),
        chunk(delta(1, content="y")),
        chunk(delta(0, refusal="no", end="stop")),
        chunk(delta(1, end="length")),
        DONE,
    )
    check_grammar(events)
    choices = assembled(events)
    assert [part.text for part in choices[1].parts] == ["xy"]
    assert (choices[0].finish, choices[1].finish) == (Finish.REFUSAL, Finish.LENGTH)


def test_unknown_content_is_kept_whole() -> None:
    events = read(chunk(delta(content="a")), chunk(delta(audio={"data": "AA"})), chunk(delta(content="b")), DONE)
    check_grammar(events)
    wholes = [event.whole for event in events if isinstance(event, PartStarted) and event.whole is not None]
    assert [Native(owner=API.OPENAI_CHAT, kind="audio", value={"audio": {"data": "AA"}})] == wholes


def test_citations_and_log_probabilities_go_with_the_text() -> None:
    choice = {**delta(content="a"), "logprobs": {"content": []}}
    events = read(chunk(choice), chunk(delta(annotations=[{"type": "url_citation"}])), DONE)
    check_grammar(events)
    grown = [event for event in events if isinstance(event, PartDelta)]
    assert (grown[0].logprobs, grown[1].citation) == ({"content": []}, {"type": "url_citation"})


def test_without_the_marker_there_is_no_end() -> None:
    events = read(chunk(delta(content="a")), chunk(delta(end="stop")))
    check_grammar(events, is_whole=False)
    assert isinstance(events[-1], ChoiceEnded)


def test_an_end_without_a_reason_is_told_as_such() -> None:
    events = read(chunk(delta(content="a")), DONE)
    check_grammar(events)
    assert assembled(events)[0].finish == Finish.OTHER


def test_an_error_in_the_stream_is_its_end() -> None:
    error = b'data: {"error": {"message": "busy", "type": "overloaded_error", "code": null}}\n\n'
    events = read(chunk(delta(content="a")), error, chunk(delta(content="b")), DONE)
    assert Failed(status=503, code="overloaded_error", message="busy") == events[-1]


def test_a_last_frame_without_its_empty_line_counts_if_it_is_whole() -> None:
    assert isinstance(read(chunk(delta(content="a")), DONE.rstrip())[-1], Ended)
    assert isinstance(read(chunk(delta(content="a")), b'data: {"choi')[-1], PartDelta)


@pytest.mark.parametrize(
    "stream",
    [
        b"data: {half\n\n",
        b"data: 5\n\n",
        chunk(delta(content=5)),
        chunk({"index": "0", "delta": {}}),
        chunk({"index": 0, "delta": []}),
        chunk(delta(tool_calls=[5])),
        chunk(call_delta(0, "{}", id="a"), delta(end="stop")),
    ],
)
def test_what_is_no_chunk_is_not_guessed_at(stream: bytes) -> None:
    with pytest.raises(Undecodable):
        read(stream, DONE)


def test_an_endless_frame_is_given_up() -> None:
    decoder = TRANSLATOR.stream_decoder(max_frame_bytes=10)
    with pytest.raises(FrameTooLarge):
        decoder.feed(b"data: " + b"x" * 11)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_whatever_comes_there_is_no_error_but_our_own(noise: bytes, position: int) -> None:
    stream = chunk(delta(content="a")) + chunk(call_delta(0, "{}", "f", id="a")) + chunk(delta(end="stop")) + DONE
    broken = stream[:position] + noise + stream[position:]
    try:
        check_grammar(read(broken), is_whole=False)
    except Undecodable:
        return


@given(st.data())
def test_whatever_a_chunk_holds_the_grammar_is_kept(data: st.DataObject) -> None:
    choice = {**call_delta(0, "{}", "f", id="a", type="function"), "logprobs": {}}
    choice["delta"] |= {"content": "x", "annotations": [{}], "refusal": "no", "audio": {"id": "b"}}
    documents = [{"id": "c", "choices": [choice], "usage": {"prompt_tokens": 1}}, {"choices": [delta(end="stop")]}]
    holder, name = data.draw(st.sampled_from(places(documents)))
    holder[name] = data.draw(ANYTHING)
    try:
        events = read(*(b"data: %b\n\n" % orjson.dumps(document) for document in documents), DONE)
    except Undecodable:
        return
    check_grammar(events)
    check_grammar(read(write(events)[0]))


# For applications.


def events_of(*parts: Event, finish: Finish = Finish.STOP) -> list[Event]:
    usage = ToldUsage(buckets=Usage(input_tokens=1, output_tokens=2))
    return [
        Started(id="msg_1", model="theirs", created_seconds=5),
        *parts,
        ChoiceEnded(finish=finish),
        UsageTold(usage=usage),
        Ended(),
    ]


def text_events(part: int, text: str, kind: PartKind = PartKind.TEXT) -> list[Event]:
    return [
        PartStarted(part=part, kind=kind),
        PartDelta(part=part, kind=DeltaKind.TEXT, text=text),
        PartEnded(part=part),
    ]


def test_a_foreign_stream_is_written_as_openai_writes_it() -> None:
    written, dropped = write(events_of(*text_events(0, "hm", PartKind.THINKING), *text_events(1, "hi")))
    frames = [json.loads(frame.removeprefix(b"data: ")) for frame in written.split(b"\n\n")[:-2]]
    assert written.endswith(b"\n\n" + DONE)
    assert dropped == []
    assert all(
        (frame["id"], frame["object"], frame["created"], frame["model"])
        == ("msg_1", "chat.completion.chunk", 5, "theirs")
        for frame in frames
    )
    assert [frame["choices"][0]["delta"] for frame in frames[:-1]] == [
        {"role": "assistant", "content": None, "refusal": None},
        {"reasoning_content": "hm"},
        {"content": "hi"},
        {},
    ]
    assert [frame["choices"][0]["finish_reason"] for frame in frames[:-1]] == [None, None, None, "stop"]
    assert all(frame["usage"] is None for frame in frames[:-1])
    assert (
        frames[-1]["choices"],
        frames[-1]["usage"],
    ) == ([], {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3})


TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """A choice of text, thoughts, refusals and calls, neighbours of different kinds, cut into deltas anyhow."""
    kinds = [PartKind.TEXT, PartKind.THINKING, PartKind.REFUSAL, PartKind.TOOL_CALL]
    events: list[Event] = []
    last = None
    for part in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from([each for each in kinds if each is not last or each is PartKind.TOOL_CALL]))
        last = kind
        is_call = kind is PartKind.TOOL_CALL
        events.append(
            PartStarted(
                part=part,
                kind=kind,
                tool_id=f"id-{part}" if is_call else "",
                tool_name=draw(TEXTS) if is_call else "",
                custom=is_call and draw(st.booleans()),
            )
        )
        grown = DeltaKind.ARGUMENTS if is_call else DeltaKind.TEXT
        events += [PartDelta(part=part, kind=grown, text=text) for text in draw(st.lists(TEXTS, min_size=1))]
        events.append(PartEnded(part=part))
    return events


@given(answers())
def test_what_is_written_is_read_again(parts: list[Event]) -> None:
    """Of one text after another only one part comes back: chunks do not tell where one of a kind ends."""
    events = events_of(*parts, finish=Finish.LENGTH)
    written, dropped = write(events)
    again = read(written)
    check_grammar(again)
    assert dropped == []
    assert assembled(events) == assembled(again)


def test_usage_is_only_told_to_those_who_asked() -> None:
    written, _ = write(events_of(*text_events(0, "hi")), include_usage=False)
    assert b"usage" not in written
    assert by_sdk(written)


def test_overlapping_calls_are_numbered_and_signed() -> None:
    written, dropped = write(
        events_of(
            PartStarted(part=0, kind=PartKind.TOOL_CALL, tool_id="a", tool_name="f", signature="s"),
            PartStarted(part=1, kind=PartKind.TOOL_CALL, tool_name="g"),
            PartDelta(part=0, kind=DeltaKind.ARGUMENTS, text='{"x":'),
            PartDelta(part=0, kind=DeltaKind.ARGUMENTS, text="1}"),
            PartEnded(part=0),
            PartEnded(part=1),
        )
    )
    assert dropped == []
    events = read(written)
    check_grammar(events)
    choice = assembled(events)[0]
    assert [(part.tool_name, part.text, part.signature) for part in choice.parts] == [
        ("f", '{"x":1}', "s"),
        ("g", "{}", ""),
    ]
    assert all(part.tool_id for part in choice.parts)
    assert choice.finish == Finish.TOOL_CALLS
    assert by_sdk(written)


def test_a_custom_tool_gets_its_free_text() -> None:
    written, _ = write(
        events_of(
            PartStarted(part=0, kind=PartKind.TOOL_CALL, tool_id="a", tool_name="f", custom=True),
            PartDelta(part=0, kind=DeltaKind.ARGUMENTS, text="x = 1"),
            PartEnded(part=0),
        )
    )
    events = read(written)
    assert [part.text for part in assembled(events)[0].parts] == ["x = 1"]
    assert [event.custom for event in events if isinstance(event, PartStarted)] == [True]


def test_parts_that_come_whole_are_written_whole() -> None:
    wholes: list[Part] = [
        Thinking(text="hm", signature="s", owner=API.ANTHROPIC_MESSAGES),
        Text(text="hi"),
        ToolCall(id="", name="f", arguments={"x": 1}),
        Media(kind=MediaKind.IMAGE, media_type="image/png", data="AA"),
        Native(owner=API.GEMINI, kind="executableCode", value={}),
    ]
    parts: list[Event] = []
    for number, whole in enumerate(wholes):
        parts += [PartStarted(part=number, kind=PartKind.WHOLE, whole=whole), PartEnded(part=number)]
    written, dropped = write(events_of(*parts))
    assert dropped == ["thinking.signature", "image", "executableCode"]
    assert [part.text for part in assembled(read(written))[0].parts] == ["hm", "hi", '{"x":1}']


@pytest.mark.parametrize(
    ("api", "name"),
    [(API.GEMINI, "thought_signature"), (API.ANTHROPIC_MESSAGES, "thinking.signature"), (None, "thinking.signature")],
)
def test_what_a_chunk_cannot_say_is_named(api: API | None, name: str) -> None:
    _, dropped = write(
        [
            Started(api=api, id="a", model="m", extra={"trafficType": "x"}),
            PartStarted(part=0, kind=PartKind.THINKING),
            PartDelta(part=0, kind=DeltaKind.SIGNATURE, text="s"),
            PartEnded(part=0),
            PartStarted(part=1, kind=PartKind.TEXT, signature="s", extra={"new": 1}),
            PartDelta(part=1, kind=DeltaKind.CITATION, citation={"url": "u"}),
            PartDelta(part=1, kind=DeltaKind.TEXT, text="x", logprobs={"a": 1}),
            PartEnded(part=1),
            ChoiceEnded(finish=Finish.PAUSE, stop_sequence="END", extra={"safetyRatings": []}),
            Ended(),
        ]
    )
    assert {
        "trafficType",
        name,
        "messages.content.new",
        "citations",
        "logprobs",
        "choices.safetyRatings",
        "stop_sequence",
        "finish_reason",
    } == set(dropped)


@pytest.mark.parametrize("with_refusal", [True, False])
def test_a_refusal_never_looks_like_an_answer(with_refusal: bool) -> None:
    parts = text_events(0, "no", PartKind.REFUSAL if with_refusal else PartKind.TEXT)
    written, _ = write(events_of(*parts, finish=Finish.REFUSAL))
    last = by_sdk(written)[-2].choices[0]
    assert ("stop" if with_refusal else "content_filter") == last.finish_reason


@pytest.mark.parametrize("begun", [True, False])
def test_the_sdk_raises_at_an_error_tail(begun: bool) -> None:
    losses = Losses()
    conversation = TRANSLATOR.decode_request(CALL, {"model": "m", "messages": [], "stream": True})
    encoder = TRANSLATOR.stream_encoder(conversation, losses=losses)
    stream = encoder.encode(events_of(*text_events(0, "hi"))[:3]) if begun else b""
    stream += encoder.error_tail(502, "upstream_cut", "The provider's stream was cut.")
    with pytest.raises(openai.APIError, match="was cut"):
        by_sdk(stream)


def test_the_sdk_raises_at_a_failure_that_a_provider_told_and_nothing_follows() -> None:
    conversation = TRANSLATOR.decode_request(CALL, {"model": "m", "messages": [], "stream": True})
    encoder = TRANSLATOR.stream_encoder(conversation, losses=Losses())
    stream = encoder.encode([Started(id="a", model="m"), Failed(status=529, code="overloaded", message="busy")])
    assert encoder.error_tail(502, "again", "again") == b""
    with pytest.raises(openai.APIError, match="busy"):
        by_sdk(stream)
