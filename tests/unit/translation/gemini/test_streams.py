"""Gemini's streams: read into events, written from them, and read again by Google's own SDK."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import pytest
from google.genai import errors, types
from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import FrameTooLarge, Usage
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
from llm_sidecar.translation.gemini import GeminiTranslator
from llm_sidecar.translation.losses import Losses, Undecodable
from llm_sidecar.translation.parts import Media, MediaKind, Native
from tests.integration.recorded_exchanges import Exchange
from tests.unit.formats.streams import GEMINI_ARRAY, GEMINI_EVENTS, call_of, observer_of, play, split_at
from tests.unit.formats.streams import events as frames
from tests.unit.translation.gemini.google_sdk import reads_stream
from tests.unit.translation.grammar import check_grammar
from tests.unit.translation.recordings import each_recorded

TRANSLATOR: Final = GeminiTranslator()
MAX_FRAME_BYTES: Final = 1 << 20
PNG: Final = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}


def chunk(*parts: dict[str, Any], reason: str | None = None, index: int = 0, **members: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": index}
    return {
        "candidates": [candidate | ({"finishReason": reason} if reason else {})],
        "responseId": "r1",
        "modelVersion": "m",
        **members,
    }


def stream_of(*documents: dict[str, Any]) -> bytes:
    return frames(*documents, end="\r\n\r\n")


def events_of(*chunks: bytes) -> list[Event]:
    decoder = TRANSLATOR.stream_decoder(max_frame_bytes=MAX_FRAME_BYTES)
    return [event for each in chunks for event in decoder.feed(each)] + decoder.finish()


def conversation_of(target: str) -> Conversation:
    return TRANSLATOR.decode_request(call_of(target), {})


def written(events: Sequence[Event], *dropped: str, target: str = GEMINI_EVENTS) -> bytes:
    losses = Losses()
    stream = TRANSLATOR.stream_encoder(conversation_of(target), losses=losses).encode(events)
    assert losses.names == list(dropped)
    return stream


def chunks_of(stream: bytes) -> list[dict[str, Any]]:
    lines = stream.decode().split("\r\n\r\n")
    assert lines.pop() == ""
    # Anything but these lines breaks Google's SDK.
    assert all(line.startswith("data: ") and "\n" not in line for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def content_of(events: Sequence[Event]) -> list[Any]:
    """What an application holds in the end; checks the grammar of `events.py` before."""
    check_grammar(events)
    assert isinstance(events[0], Started)
    whole: list[Any] = [(events[0].id, events[0].model)]
    open_parts: dict[tuple[int, int], dict[Any, Any]] = {}
    for event in events[1:]:
        match event:
            case PartStarted():
                open_parts[event.choice, event.part] = {
                    "start": (event.choice, event.kind, event.tool_id, event.tool_name, event.signature, event.whole)
                }
            case PartDelta():
                growing = open_parts[event.choice, event.part]
                growing[event.kind] = growing.get(event.kind, "") + event.text
            case PartEnded():
                whole.append(open_parts.pop((event.choice, event.part)))
            case ChoiceEnded():
                whole.append((event.choice, event.finish, event.stop_sequence))
            case _:
                pass
    usages = [event.usage.buckets for event in events if isinstance(event, UsageTold)]
    return [*whole, usages[-1:], isinstance(events[-1], Ended)]


@each_recorded(API.GEMINI, answered=True, stream=True)
def test_a_recorded_stream_becomes_events_that_end_and_tell_the_usage(exchange: Exchange) -> None:
    observer = observer_of(GEMINI_EVENTS)
    play(observer, [exchange.response])

    events = events_of(exchange.response)

    content = content_of(events)
    assert content[-1] is True
    assert content[-2] == [observer.usage]
    assert [event.finish for event in events if isinstance(event, ChoiceEnded)] != []


@each_recorded(API.GEMINI, answered=True, stream=True)
@pytest.mark.parametrize("target", [GEMINI_EVENTS, GEMINI_ARRAY])
def test_a_recorded_stream_written_again_holds_the_same(exchange: Exchange, target: str) -> None:
    events = events_of(exchange.response)

    stream = written(events, target=target)

    if target == GEMINI_ARRAY:
        stream = stream_of(*json.loads(stream))
    again = events_of(stream)
    assert content_of(again) == content_of(events)
    extras = [[event.extra for event in each if isinstance(event, ChoiceEnded)] for each in (events, again)]
    assert extras[0] == extras[1]


@each_recorded(API.GEMINI, answered=True, stream=True)
def test_the_sdk_reads_the_same_from_a_stream_written_again(exchange: Exchange) -> None:
    def text(chunks: list[types.GenerateContentResponse]) -> str:
        parts = [part for each in chunks for part in each.parts or [] if part.text and not part.thought]
        return "".join(part.text or "" for part in parts)

    original, again = reads_stream(exchange.response), reads_stream(written(events_of(exchange.response)))

    assert text(again) == text(original)
    assert original[-1].usage_metadata == again[-1].usage_metadata
    assert original[-1].candidates is not None
    assert again[-1].candidates is not None
    assert original[-1].candidates[0].finish_reason == again[-1].candidates[0].finish_reason


STREAM: Final = stream_of(
    chunk({"text": "hm", "thought": True}, usageMetadata={"promptTokenCount": 3, "totalTokenCount": 3}),
    chunk({"text": "é😀"}, {"text": "b", "thoughtSignature": "c2ln"}, {"text": "c"}),
    chunk({"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "c2ln"}),
    chunk({"functionCall": {"name": "f"}}),
    chunk({"text": "second"}, index=1),
    chunk(PNG, {"executableCode": {"code": "1"}}),
    chunk({"text": ""}, reason="STOP", usageMetadata={"promptTokenCount": 3, "candidatesTokenCount": 5}),
    chunk(reason="MAX_TOKENS", index=1),
)  # fmt: skip


def test_all_kinds_of_content_become_parts() -> None:
    first, *parts, usage, ended = content_of(events_of(STREAM))

    started = [part["start"][:2] for part in parts if isinstance(part, dict)]
    assert first == ("r1", "m")
    assert started == [
        (0, PartKind.THINKING),
        (0, PartKind.TEXT),
        (0, PartKind.TEXT),
        (0, PartKind.TOOL_CALL),
        (0, PartKind.TOOL_CALL),
        (0, PartKind.WHOLE),
        (0, PartKind.WHOLE),
        (1, PartKind.TEXT),
    ]
    # What follows a signature is another part.
    assert parts[1] | {"start": None} == {"start": None, DeltaKind.TEXT: "é😀b", DeltaKind.SIGNATURE: "c2ln"}
    assert parts[3]["start"][3:5] == ("f", "c2ln")
    assert json.loads(parts[3][DeltaKind.ARGUMENTS]) == {"x": 1}
    assert parts[3]["start"][2] != parts[4]["start"][2] != ""
    assert parts[5]["start"][5] == Media(
        kind=MediaKind.IMAGE, media_type="image/png", data="AAAA", extra=parts[5]["start"][5].extra
    )
    assert isinstance(parts[6]["start"][5], Native)
    assert [part for part in parts if isinstance(part, tuple)] == [
        (0, Finish.TOOL_CALLS, None),
        (1, Finish.LENGTH, None),
    ]
    assert (usage, ended) == ([Usage(3, None, None, 5, None)], True)


def test_all_kinds_of_content_are_written_and_read_again() -> None:
    events = events_of(STREAM)

    def sorted_by_choice(content: list[Any]) -> list[Any]:
        first, *parts, usage, ended = content
        of_choice = [part["start"][0] if isinstance(part, dict) else part[0] for part in parts]
        return [
            first,
            *(part for _, part in sorted(zip(of_choice, parts, strict=True), key=lambda pair: pair[0])),
            usage,
            ended,
        ]

    assert sorted_by_choice(content_of(events_of(written(events)))) == sorted_by_choice(content_of(events))
    assert len(reads_stream(written(events))) == len(chunks_of(written(events)))


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_any_split_of_the_bytes_gives_the_same_events(cuts: list[int]) -> None:
    assert events_of(*split_at(STREAM, cuts)) == events_of(STREAM)


def test_every_single_byte_may_come_alone() -> None:
    assert events_of(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == events_of(STREAM)


def test_a_last_frame_without_its_empty_line_counts_and_half_a_frame_does_not() -> None:
    stream = stream_of(chunk({"text": "a"}), chunk(reason="STOP"))

    assert events_of(stream.rstrip()) == events_of(stream)
    assert not any(isinstance(event, Ended | ChoiceEnded) for event in events_of(stream[:-10]))


def test_what_comes_behind_a_finish_reason_is_not_lost() -> None:
    late = chunk({"text": "b"}) | {"usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2}}
    late["candidates"][0]["groundingMetadata"] = {"webSearchQueries": ["q"]}

    events = events_of(stream_of(chunk({"text": "a"}, reason="STOP"), late))

    assert content_of(events)[1][DeltaKind.TEXT] == "ab"
    assert content_of(events)[-2] == [Usage(1, None, None, 2, None)]
    assert [event.extra for event in events if isinstance(event, ChoiceEnded)] == [
        {"groundingMetadata": {"webSearchQueries": ["q"]}}
    ]


def test_a_stream_without_a_finish_reason_does_not_end() -> None:
    one_of_two = stream_of(chunk({"text": "a"}, reason="STOP"), chunk({"text": "b"}, index=1))

    assert not isinstance(events_of(stream_of(chunk({"text": "a"})))[-1], Ended)
    assert not isinstance(events_of(one_of_two)[-1], Ended)
    assert events_of() == []


def test_a_blocked_prompt_ends_for_safety() -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}, "responseId": "r"}

    events = events_of(stream_of(blocked))

    assert content_of(events)[1:2] == [(0, Finish.SAFETY, None)]
    assert isinstance(events[-1], Ended)
    assert chunks_of(written(events)) == [blocked]


def test_an_error_in_the_stream_is_told_and_nothing_follows_it() -> None:
    error = {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}

    events = events_of(stream_of(chunk({"text": "a"}), error, chunk({"text": "b"}, reason="STOP")))

    assert events[-1] == Failed(status=503, code="UNAVAILABLE", message="busy")


@pytest.mark.parametrize(
    "stream",
    [
        b"data: {no\n\n",
        b"data: [1]\n\n",
        b"data: [DONE]\n\n",
        stream_of({"candidates": [1]}),
        stream_of({"candidates": [{"content": {"parts": [{"functionCall": {}}]}}]}),
    ],
)
def test_a_frame_that_is_not_of_this_language_is_undecodable(stream: bytes) -> None:
    with pytest.raises(Undecodable):
        events_of(stream)


def test_pings_and_unknown_fields_are_nothing() -> None:
    stream = b": ping\n\n" + stream_of(chunk({"text": "a"}), chunk(reason="STOP", new={"a": 1})) + b"event: x\n\n"

    assert content_of(events_of(stream))[-1] is True


def test_a_frame_without_end_takes_bounded_memory() -> None:
    decoder = TRANSLATOR.stream_decoder(max_frame_bytes=100)

    with pytest.raises(FrameTooLarge):
        decoder.feed(b"data: " + b"x" * 200)


PIECES: Final = (
    b"data: ", b"{", b"}", b'{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}', b"\n\n", b"\r\n", b'"error"', b":",
    b"1", b"null", b"[]", b"\xff",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_no_bytes_raise_anything_but_our_own_errors(pieces: list[bytes]) -> None:
    decoder = TRANSLATOR.stream_decoder(max_frame_bytes=64)
    try:
        for piece in pieces:
            decoder.feed(piece)
        decoder.finish()
    except (Undecodable, FrameTooLarge):
        pass


USAGE: Final = ToldUsage(buckets=Usage(input_tokens=3, output_tokens=5, reasoning_tokens=2), extra={"prompt_tokens": 3})
START: Final = Started(id="msg_1", model="claude", extra={"service_tier": "standard"})


def foreign(*events: Event, finish: Finish = Finish.STOP, **ended: Any) -> list[Event]:
    return [START, *events, ChoiceEnded(finish=finish, **ended), UsageTold(usage=USAGE), Ended()]


def text(*deltas: str, kind: PartKind = PartKind.TEXT, part: int = 0) -> list[Event]:
    grown = [PartDelta(part=part, kind=DeltaKind.TEXT, text=delta) for delta in deltas]
    return [PartStarted(part=part, kind=kind), *grown, PartEnded(part=part)]


def call(*arguments: str, part: int = 0, custom: bool = False) -> list[Event]:
    grown = [PartDelta(part=part, kind=DeltaKind.ARGUMENTS, text=delta) for delta in arguments]
    start = PartStarted(part=part, kind=PartKind.TOOL_CALL, tool_id=f"t{part}", tool_name="f", custom=custom)
    return [start, *grown, PartEnded(part=part)]


def test_another_apis_stream_is_told_in_googles_words() -> None:
    stream = written(
        foreign(
            *text("h", "m", kind=PartKind.THINKING),
            *text("a", part=1),
            *call('{"x":', "1}", part=2),
            *call(part=3),
            finish=Finish.TOOL_CALLS,
        ),
        "service_tier",
    )

    parts = [each["candidates"][0]["content"]["parts"][0] for each in chunks_of(stream)]
    assert parts == [
        {"text": "h", "thought": True},
        {"text": "m", "thought": True},
        {"text": "a"},
        {"functionCall": {"id": "t2", "name": "f", "args": {"x": 1}}},
        {"functionCall": {"id": "t3", "name": "f", "args": {}}},
        {"text": ""},
    ]
    assert chunks_of(stream)[-1] == {
        "candidates": [{"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {
            "promptTokenCount": 3,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 2,
            "totalTokenCount": 8,
        },
        "modelVersion": "claude",
        "responseId": "msg_1",
    }
    assert all("finishReason" not in each["candidates"][0] for each in chunks_of(stream)[:-1])


def test_the_sdk_reads_another_apis_stream() -> None:
    stream = written(foreign(*text("a", "b"), *call("{}", part=1), finish=Finish.TOOL_CALLS), "service_tier")

    read = reads_stream(stream)

    assert "".join(part.text or "" for each in read for part in each.parts or []) == "ab"
    assert [each.name for one in read for each in one.function_calls or []] == ["f"]
    assert read[-1].usage_metadata is not None
    assert read[-1].usage_metadata.total_token_count == 8


def test_text_goes_on_at_once_and_the_finish_reason_comes_last() -> None:
    encoder = TRANSLATOR.stream_encoder(conversation_of(GEMINI_EVENTS), losses=Losses())

    told = [encoder.encode([event]) for event in foreign(*text("a"))]

    assert [bool(each) for each in told] == [False, False, True, False, False, False, True]


def test_a_json_array_is_valid_in_the_end_and_after_an_error() -> None:
    encoder = TRANSLATOR.stream_encoder(conversation_of(GEMINI_ARRAY), losses=Losses())
    cut = encoder.encode(foreign(*text("a", "b"))[:-1]) + encoder.error_tail(502, "stream_cut", "It was cut.")
    nothing = TRANSLATOR.stream_encoder(conversation_of(GEMINI_ARRAY), losses=Losses())

    assert len(json.loads(written(foreign(*text("a", "b")), "service_tier", target=GEMINI_ARRAY))) == 3
    assert [next(iter(each)) for each in json.loads(cut)] == ["candidates", "candidates", "error"]
    assert json.loads(nothing.error_tail(502, "stream_cut", "It was cut."))[0]["error"]["code"] == 502


@pytest.mark.parametrize("target", [GEMINI_EVENTS, GEMINI_ARRAY])
def test_nothing_follows_a_complete_answer(target: str) -> None:
    encoder = TRANSLATOR.stream_encoder(conversation_of(target), losses=Losses())
    encoder.encode(foreign(*text("a")))

    assert encoder.error_tail(502, "stream_cut", "It was cut.") == b""


def test_the_sdk_raises_at_the_end_of_a_cut_stream_and_at_an_error() -> None:
    encoder = TRANSLATOR.stream_encoder(conversation_of(GEMINI_EVENTS), losses=Losses())
    cut = encoder.encode([START, *text("a")]) + encoder.error_tail(502, "stream_cut", "It was cut.")
    failed = written([START, *text("a"), Failed(status=503, code="overloaded", message="busy")], "service_tier")

    for stream in (cut, failed):
        with pytest.raises(errors.ServerError):
            reads_stream(stream)


@pytest.mark.parametrize("events", [call("{no"), call("text", custom=True)])
def test_arguments_that_are_no_object_make_a_malformed_call(events: list[Event]) -> None:
    stream = written(foreign(*events, finish=Finish.TOOL_CALLS), "service_tier", "messages.tool_calls")

    reasons = [each["candidates"][0].get("finishReason") for each in chunks_of(stream)]
    assert reasons == ["MALFORMED_FUNCTION_CALL"]


def test_a_signature_that_comes_late_is_the_calls() -> None:
    late = PartDelta(part=0, kind=DeltaKind.SIGNATURE, text="c2ln")

    chunks = chunks_of(written(foreign(*call("{}")[:-1], late, PartEnded(part=0)), "service_tier"))

    assert chunks[0]["candidates"][0]["content"]["parts"][0]["thoughtSignature"] == "c2ln"


def test_a_refusal_ends_for_safety() -> None:
    chunks = chunks_of(written(foreign(*text("No.", kind=PartKind.REFUSAL)), "service_tier"))

    assert chunks[0]["candidates"][0]["content"]["parts"] == [{"text": "No."}]
    assert chunks[-1]["candidates"][0]["finishReason"] == "SAFETY"


def test_several_choices_finish_together() -> None:
    events: list[Event] = [
        START,
        *(
            event
            for choice in (0, 1)
            for event in (
                PartStarted(choice=choice, part=0, kind=PartKind.TEXT),
                PartDelta(choice=choice, part=0, kind=DeltaKind.TEXT, text="a"),
                PartEnded(choice=choice, part=0),
                ChoiceEnded(choice=choice, finish=Finish.STOP),
            )
        ),
        UsageTold(usage=USAGE),
        Ended(),
    ]

    last = chunks_of(written(events, "service_tier"))[-1]

    assert [(each["index"], each["finishReason"]) for each in last["candidates"]] == [(0, "STOP"), (1, "STOP")]


def test_what_google_cannot_tell_is_named() -> None:
    native = Native(owner=API.ANTHROPIC_MESSAGES, kind="web_search", value={})
    events = foreign(
        PartStarted(part=0, kind=PartKind.THINKING),
        PartDelta(part=0, kind=DeltaKind.SIGNATURE, text="s"),
        PartEnded(part=0),
        PartStarted(part=1, kind=PartKind.TEXT, extra={"annotations": []}),
        PartDelta(part=1, kind=DeltaKind.CITATION, citation={"a": 1}),
        PartDelta(part=1, kind=DeltaKind.TEXT, text="a", logprobs={"content": []}),
        PartEnded(part=1),
        PartStarted(part=2, kind=PartKind.WHOLE, whole=native),
        PartEnded(part=2),
        stop_sequence="END",
        extra={"native_finish": "x"},
    )

    stream = written(
        events,
        "service_tier",
        "thinking.signature",
        "messages.content.annotations",
        "citations",
        "logprobs",
        "web_search",
        "choices.native_finish",
        "stop_sequence",
    )

    assert len(chunks_of(stream)) == 2
