"""Gemini's whole answers: what comes back, what other languages' answers become."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from google.genai import types

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Usage
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.translation.answer import Answer, Choice, Finish, ToldUsage
from llm_sidecar.translation.foreign import drop_answer_extras
from llm_sidecar.translation.gemini import GeminiTranslator
from llm_sidecar.translation.losses import Losses, Undecodable
from llm_sidecar.translation.parts import Media, MediaKind, Native, Part, Refusal, Text, Thinking, ToolCall, ToolKind
from tests.integration.recorded_exchanges import Exchange
from tests.unit.formats.streams import call_of
from tests.unit.translation.gemini.google_sdk import reads_answer
from tests.unit.translation.recordings import each_recorded

TRANSLATOR: Final = GeminiTranslator()


def answer_of(*parts: dict[str, Any], reason: str | None = "STOP", **members: Any) -> Answer:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if reason is not None:
        candidate["finishReason"] = reason
    return TRANSLATOR.decode_answer({"candidates": [candidate], "responseId": "r1", "modelVersion": "m", **members})


def foreign(*parts: Part, finish: Finish | None = Finish.STOP, **fields: Any) -> Answer:
    choice = Choice(parts=parts, finish=finish, **fields)
    return Answer(api=API.ANTHROPIC_MESSAGES, id="msg_1", model="claude", choices=(choice,))


def encoded(answer: Answer, *dropped: str) -> dict[str, Any]:
    losses = Losses()
    document = dict(TRANSLATOR.encode_answer(answer, losses=losses))
    assert losses.names == list(dropped)
    reads_answer(document)
    return document


def candidate_of(answer: Answer, *dropped: str) -> dict[str, Any]:
    candidate: dict[str, Any] = encoded(answer, *dropped)["candidates"][0]
    return candidate


@each_recorded(API.GEMINI, answered=True, stream=False)
def test_a_recorded_answer_comes_back_as_it_was(exchange: Exchange) -> None:
    losses = Losses()
    document = json.loads(exchange.response)

    answer = TRANSLATOR.decode_answer(document)

    assert TRANSLATOR.encode_answer(answer, losses=losses) == document
    assert losses.names == []
    assert answer.usage is not None
    assert answer.usage.buckets == FORMATS[API.GEMINI].usage(call_of(exchange.path), exchange.response)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"candidates": []},
        {"candidates": [{}]},
        {"candidates": [{"content": {}}, {"content": {"parts": []}, "index": 3}]},
        {"candidates": [{"content": {"role": "model"}, "finishReason": "SOMETHING_NEW", "finishMessage": "m"}]},
        {"candidates": [{"logprobsResult": {"chosenCandidates": []}, "safetyRatings": [{"category": "C"}]}]},
        {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 1}},
        {"usageMetadata": {}, "modelStatus": {"message": "old"}, "responseId": "", "modelVersion": None},
    ],
)
def test_an_answer_of_any_form_comes_back_as_it_was(document: dict[str, Any]) -> None:
    # An empty id says as little as none.
    expected = {name: value for name, value in document.items() if value != ""}

    assert TRANSLATOR.encode_answer(TRANSLATOR.decode_answer(document), losses=Losses()) == expected


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", Finish.STOP),
        ("MAX_TOKENS", Finish.LENGTH),
        ("SAFETY", Finish.SAFETY),
        ("RECITATION", Finish.SAFETY),
        ("BLOCKLIST", Finish.SAFETY),
        ("PROHIBITED_CONTENT", Finish.SAFETY),
        ("SPII", Finish.SAFETY),
        ("IMAGE_SAFETY", Finish.SAFETY),
        ("MALFORMED_FUNCTION_CALL", Finish.MALFORMED_CALL),
        ("UNEXPECTED_TOOL_CALL", Finish.MALFORMED_CALL),
        ("LANGUAGE", Finish.OTHER),
        ("FINISH_REASON_UNSPECIFIED", Finish.OTHER),
        ("SOMETHING_NEW", Finish.OTHER),
        (None, None),
    ],
)
def test_every_finish_reason_means_something(reason: str | None, finish: Finish | None) -> None:
    assert answer_of({"text": "a"}, reason=reason).choices[0].finish == finish


def test_every_reason_that_the_sdk_knows_comes_back() -> None:
    for reason in types.FinishReason:
        answer = answer_of({"text": "a"}, reason=reason.value)
        document = TRANSLATOR.encode_answer(answer, losses=Losses())
        assert document["candidates"][0]["finishReason"] == reason.value


def test_an_answer_that_calls_tools_says_so_and_every_call_has_an_id_of_its_own() -> None:
    calls = ({"functionCall": {"name": "f"}}, {"functionCall": {"name": "f", "args": {"a": 1}}})
    first = answer_of(*calls).choices[0]
    other = answer_of(*calls, responseId="r2").choices[0]

    assert first.finish is Finish.TOOL_CALLS
    ids = [part.id for part in (*first.parts, *other.parts) if isinstance(part, ToolCall)]
    assert len(set(ids)) == 4
    assert TRANSLATOR.encode_answer(answer_of(*calls), losses=Losses())["candidates"][0]["content"]["parts"] == list(
        calls
    )


def test_a_blocked_prompt_is_one_choice_that_ended_for_safety() -> None:
    answer = TRANSLATOR.decode_answer({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "modelVersion": "m"})
    losses = Losses()

    drop_answer_extras(answer, losses)

    assert [(choice.finish, choice.parts) for choice in answer.choices] == [(Finish.SAFETY, ())]
    assert losses.names == ["promptFeedback"]


def test_what_only_google_tells_is_named_elsewhere() -> None:
    answer = TRANSLATOR.decode_answer(
        {"candidates": [{"groundingMetadata": {}, "safetyRatings": [], "index": 0}], "modelStatus": {}}
    )
    losses = Losses()

    drop_answer_extras(answer, losses)

    assert losses.names == ["modelStatus", "choices.groundingMetadata", "choices.safetyRatings"]


@pytest.mark.parametrize("document", [{"candidates": 1}, {"candidates": [1]}, {"responseId": 1}, [], "text", None])
def test_what_is_no_answer_is_undecodable(document: Any) -> None:
    with pytest.raises(Undecodable):
        TRANSLATOR.decode_answer(document)


def test_another_apis_answer_is_told_in_googles_words() -> None:
    answer = Answer(
        api=API.ANTHROPIC_MESSAGES,
        id="msg_1",
        model="claude",
        choices=(
            Choice(
                parts=(
                    Thinking(text="hm", owner=API.ANTHROPIC_MESSAGES),
                    Text(text="a"),
                    ToolCall(id="t1", name="f", arguments='{"x": 1}'),
                ),
                finish=Finish.TOOL_CALLS,
            ),
        ),
        usage=ToldUsage(
            buckets=Usage(
                input_tokens=3, cache_read_tokens=4, cache_write_tokens=5, output_tokens=10, reasoning_tokens=6
            )
        ),
    )

    assert encoded(answer) == {
        "candidates": [
            {
                "content": {
                    "role": "model",
                    "parts": [
                        {"text": "hm", "thought": True},
                        {"text": "a"},
                        {"functionCall": {"id": "t1", "name": "f", "args": {"x": 1}}},
                    ],
                },
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 12,
            "cachedContentTokenCount": 4,
            "candidatesTokenCount": 4,
            "thoughtsTokenCount": 6,
            "totalTokenCount": 22,
        },
        "modelVersion": "claude",
        "responseId": "msg_1",
    }


@pytest.mark.parametrize(
    "buckets",
    [Usage(3, 4, None, 10, 6), Usage(3, None, None, 10, None), Usage(3, None, None, 0, None)],
)
def test_usage_that_was_written_is_read_again(buckets: Usage) -> None:
    answer = Answer(api=API.OPENAI_CHAT, id="1", model="m", choices=(), usage=ToldUsage(buckets=buckets))

    again = TRANSLATOR.decode_answer(TRANSLATOR.encode_answer(answer, losses=Losses())).usage

    assert again is not None
    assert again.buckets == buckets


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        (Finish.STOP, "STOP"),
        (Finish.TOOL_CALLS, "STOP"),
        (Finish.LENGTH, "MAX_TOKENS"),
        (Finish.CONTEXT_WINDOW, "MAX_TOKENS"),
        (Finish.SAFETY, "SAFETY"),
        (Finish.REFUSAL, "SAFETY"),
        (Finish.MALFORMED_CALL, "MALFORMED_FUNCTION_CALL"),
        (Finish.PAUSE, "OTHER"),
        (Finish.OTHER, "OTHER"),
        (None, "OTHER"),
    ],
)
def test_every_finish_has_a_reason(finish: Finish | None, reason: str) -> None:
    assert candidate_of(foreign(Text(text="a"), finish=finish))["finishReason"] == reason


def test_a_refusal_is_text_that_ended_for_safety() -> None:
    candidate = candidate_of(foreign(Refusal(text="No.")))

    assert candidate["content"]["parts"] == [{"text": "No."}]
    assert candidate["finishReason"] == "SAFETY"


@pytest.mark.parametrize(
    "call",
    [
        ToolCall(id="1", name="f", arguments="{no"),
        ToolCall(id="1", name="f", arguments="text", kind=ToolKind.CUSTOM),
    ],
)
def test_a_call_with_arguments_that_are_no_object_is_a_malformed_one(call: ToolCall) -> None:
    candidate = candidate_of(foreign(call, finish=Finish.TOOL_CALLS), "messages.tool_calls")

    assert candidate["finishReason"] == "MALFORMED_FUNCTION_CALL"
    assert "parts" not in candidate["content"]


def test_what_google_cannot_tell_is_named() -> None:
    answer = foreign(
        Thinking(text="hm", signature="s", owner=API.ANTHROPIC_MESSAGES),
        Thinking(redacted="r", owner=API.ANTHROPIC_MESSAGES),
        Text(text="a", citations=({"url": "u"},), extra={"annotations": []}),
        Native(owner=API.ANTHROPIC_MESSAGES, kind="server_tool_use", value={}),
        stop_sequence="END",
        logprobs={"content": []},
        extra={"native_finish": "x"},
    )

    candidate = candidate_of(
        answer,
        "choices.native_finish",
        "messages.content.annotations",
        "thinking.signature",
        "citations",
        "server_tool_use",
        "logprobs",
        "stop_sequence",
    )

    assert candidate["content"]["parts"] == [{"text": "hm", "thought": True}, {"text": "a"}]


def test_an_image_that_a_model_made_is_inline_data() -> None:
    image = Media(kind=MediaKind.IMAGE, media_type="image/gif", data="AAAA")

    assert candidate_of(foreign(image))["content"]["parts"] == [
        {"inlineData": {"mimeType": "image/gif", "data": "AAAA"}}
    ]


def test_the_sdk_reads_text_and_calls() -> None:
    document = TRANSLATOR.encode_answer(
        foreign(Text(text="a"), ToolCall(id="t", name="f", arguments={"x": 1})), losses=Losses()
    )

    read = reads_answer(document)

    assert read.function_calls is not None
    assert [(call.id, call.name, call.args) for call in read.function_calls] == [("t", "f", {"x": 1})]
    assert read.candidates is not None
    assert read.candidates[0].finish_reason is types.FinishReason.STOP
