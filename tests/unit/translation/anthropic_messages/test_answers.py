from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from anthropic.types import Message

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.anthropic_messages import AnthropicMessages
from llm_sidecar.formats.base import Call, Usage
from llm_sidecar.translation.answer import Answer, Choice, Finish, ToldUsage
from llm_sidecar.translation.anthropic_messages import AnthropicTranslator
from llm_sidecar.translation.losses import Losses, Undecodable
from llm_sidecar.translation.parts import Media, MediaKind, Native, Part, Refusal, Text, Thinking, ToolCall
from tests.integration.recorded_exchanges import Exchange
from tests.unit.translation.recordings import each_recorded

TRANSLATOR = AnthropicTranslator()
CALL = Call(api=API.ANTHROPIC_MESSAGES, type=RequestType.GENERATION, path="/v1/messages")
HEAD = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}


def foreign(*parts: Part, api: API = API.OPENAI_CHAT, finish: Finish | None = Finish.STOP, **fields: Any) -> Answer:
    return Answer(api=api, id="x.1", model="gpt", choices=(Choice(parts=parts, finish=finish),), **fields)


def written(answer: Answer) -> tuple[Message, dict[str, Any], list[str]]:
    """As the SDK's type, strictly; as the document; and what was dropped."""
    losses = Losses()
    document = TRANSLATOR.encode_answer(answer, losses=losses)
    return Message.model_validate_json(json.dumps(document), strict=True), dict(document), losses.names


@each_recorded(API.ANTHROPIC_MESSAGES, answered=True, stream=False)
def test_a_recorded_answer_comes_out_as_it_went_in(exchange: Exchange) -> None:
    document = json.loads(exchange.response)
    losses = Losses()
    assert TRANSLATOR.encode_answer(TRANSLATOR.decode_answer(document), losses=losses) == document
    assert losses.names == []


@each_recorded(API.ANTHROPIC_MESSAGES, answered=True, stream=False)
def test_usage_is_what_the_format_reads(exchange: Exchange) -> None:
    told = TRANSLATOR.decode_answer(json.loads(exchange.response)).usage
    assert told is not None
    assert told.buckets == AnthropicMessages().usage(CALL, exchange.response)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", Finish.STOP),
        ("max_tokens", Finish.LENGTH),
        ("stop_sequence", Finish.STOP_SEQUENCE),
        ("tool_use", Finish.TOOL_CALLS),
        ("pause_turn", Finish.PAUSE),
        ("refusal", Finish.REFUSAL),
        ("model_context_window_exceeded", Finish.CONTEXT_WINDOW),
        ("unheard_of", Finish.OTHER),
        (None, None),
    ],
)
def test_why_it_stopped_is_understood_and_kept(reason: str | None, finish: Finish | None) -> None:
    document = {**HEAD, "stop_reason": reason, "stop_sequence": None, "usage": {"input_tokens": 0, "output_tokens": 0}}
    answer = TRANSLATOR.decode_answer(document)
    assert answer.choices[0].finish is finish
    losses = Losses()
    assert TRANSLATOR.encode_answer(answer, losses=losses) == document
    assert losses.names == []


@pytest.mark.parametrize("document", [{}, {"type": "error", "error": {}}, {**HEAD, "content": None}, {**HEAD, "id": 1}])
def test_what_is_no_answer_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(Undecodable):
        TRANSLATOR.decode_answer(document)


def test_a_foreign_answer_is_written_as_the_api_would() -> None:
    usage = Usage(input_tokens=5, cache_read_tokens=3, cache_write_tokens=None, output_tokens=9, reasoning_tokens=4)
    answer = foreign(
        Text(text="Let me see."),
        Text(text=""),
        ToolCall(id="call_1", name="weather", arguments='{"city":"Rome"}'),
        finish=Finish.TOOL_CALLS,
        usage=ToldUsage(buckets=usage, extra={"prompt_tokens": 8}),
    )
    _, document, dropped = written(answer)
    assert document == {
        "id": "x.1",
        "type": "message",
        "role": "assistant",
        "model": "gpt",
        "content": [
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": 3,
            "output_tokens": 9,
            "output_tokens_details": {"thinking_tokens": 4},
        },
    }
    assert dropped == []


@pytest.mark.parametrize(
    ("finish", "reason", "dropped"),
    [
        (Finish.STOP, "end_turn", []),
        (Finish.LENGTH, "max_tokens", []),
        (Finish.SAFETY, "refusal", []),
        (Finish.CONTEXT_WINDOW, "model_context_window_exceeded", []),
        (Finish.OTHER, "end_turn", ["finish_reason"]),
        (Finish.MALFORMED_CALL, "end_turn", ["finish_reason"]),
        (None, None, []),
    ],
)
def test_every_finish_has_a_word(finish: Finish | None, reason: str | None, dropped: list[str]) -> None:
    message, _, names = written(foreign(Text(text="a"), finish=finish))
    assert message.stop_reason == reason
    assert names == dropped


def test_a_call_means_tool_use_even_where_the_provider_said_stop() -> None:
    assert written(foreign(ToolCall(id="a", name="f", arguments={})))[0].stop_reason == "tool_use"


def test_a_refusal_is_told_as_one() -> None:
    message, _, _ = written(foreign(Refusal(text="No.")))
    assert message.stop_reason == "refusal"
    assert message.stop_details is not None
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "No."}]


def test_calls_without_ids_get_ones_that_differ_between_answers() -> None:
    call = ToolCall(id="", name="f", arguments={})
    first = written(foreign(call, call, api=API.GEMINI))[1]["content"]
    second = written(replace(foreign(call, api=API.GEMINI), id="y"))[1]["content"]
    ids = {block["id"] for block in (*first, *second)}
    assert ids == {"call_x_1_0", "call_x_1_1", "call_y_0"}


def test_what_another_provider_signed_comes_back_to_it() -> None:
    parts = (
        Thinking(text="Hm", signature="c2ln", owner=API.GEMINI),
        ToolCall(id="a", name="f", arguments={}, signature="Y2FsbA=="),
    )
    message, document, dropped = written(foreign(*parts, api=API.GEMINI))
    assert [block.type for block in message.content] == ["thinking", "thinking", "tool_use"]
    assert dropped == []
    request = {"model": "m", "messages": [{"role": "assistant", "content": document["content"]}]}
    assert TRANSLATOR.decode_request(CALL, request).turns[0].parts == parts


def test_what_anthropic_has_no_word_for_is_named() -> None:
    choice = Choice(
        parts=(
            Text(text="a", citations=({"type": "url_citation"},), extra={"annotations": []}),
            Native(owner=API.OPENAI_RESPONSES, kind="web_search_call", value={}),
        ),
        finish=Finish.STOP,
        logprobs={"content": []},
    )
    answer = replace(foreign(), choices=(choice, choice), extra={"system_fingerprint": "fp", "service_tier": None})
    _, document, dropped = written(answer)
    assert document["content"] == [{"type": "text", "text": "a"}]
    assert {"system_fingerprint", "choices", "logprobs", "citations", "web_search_call"} <= set(dropped)
    assert "service_tier" not in dropped


@pytest.mark.parametrize(
    "part",
    [
        Media(kind=MediaKind.IMAGE, media_type="image/png", data=""),
        ToolCall(id="a", name="f", arguments="{no json"),
    ],
    ids=["an image", "arguments that are no JSON"],
)
def test_content_that_cannot_be_said_is_left_out_and_told_because_it_is_paid_for(part: Part) -> None:
    message, _, dropped = written(foreign(Text(text="Hi"), part, finish=Finish.TOOL_CALLS))
    assert [block.type for block in message.content] == ["text"]
    assert dropped == ["image" if isinstance(part, Media) else "messages.tool_calls"]


def test_an_answer_of_which_a_call_was_left_out_does_not_look_whole() -> None:
    message, _, _ = written(foreign(ToolCall(id="a", name="f", arguments="{"), finish=Finish.TOOL_CALLS))
    assert message.stop_reason == "max_tokens"


def test_an_answer_without_any_choice_is_an_empty_message() -> None:
    message, _, _ = written(replace(foreign(), choices=()))
    assert message.content == []
    assert message.stop_reason is None
