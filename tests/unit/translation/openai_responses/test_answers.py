"""Whole answers of the Responses API, decoded and encoded."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, Usage
from llm_sidecar.formats.openai_responses import FOREIGN_ANSWER, OpenAIResponses
from llm_sidecar.translation.answer import Answer, Choice, Finish, ToldUsage
from llm_sidecar.translation.losses import Losses, Undecodable
from llm_sidecar.translation.openai_responses import OpenAIResponsesTranslator, marks
from llm_sidecar.translation.parts import Media, MediaKind, Native, Refusal, Text, Thinking, ToolCall, ToolKind
from tests.integration.recorded_exchanges import Exchange
from tests.unit.translation.recordings import each_recorded

TRANSLATOR = OpenAIResponsesTranslator()
CALL = Call(api=API.OPENAI_RESPONSES, type=RequestType.GENERATION, path="/responses")
TEXT = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}


def recorded_response(exchange: Exchange) -> dict[str, Any]:
    """The answer; of a stream, the whole response that its last event tells."""
    if not exchange.is_stream:
        return dict(json.loads(exchange.response))
    last = [line for line in exchange.response.decode().split("\n") if line.startswith("data:")][-1]
    return dict(json.loads(last.removeprefix("data:"))["response"])


def again(document: dict[str, Any]) -> dict[str, Any]:
    losses = Losses()
    encoded = TRANSLATOR.encode_answer(TRANSLATOR.decode_answer(document), losses=losses)
    assert losses.names == []
    return dict(encoded)


def answered(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": "resp_1", "model": "gpt-5", "created_at": 1, "status": "completed", "output": list(output), **fields}


def message(*content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": list(content), **fields}


def foreign(*parts: Any, finish: Finish | None = Finish.STOP, **fields: Any) -> Answer:
    choice = Choice(parts=parts, finish=finish, logprobs=fields.pop("logprobs", None))
    return Answer(api=API.ANTHROPIC_MESSAGES, id="msg_01", model="claude", choices=(choice,), **fields)


def said(answer: Answer) -> tuple[dict[str, Any], list[str]]:
    """The document, which the SDK's type accepts, and what was dropped."""
    losses = Losses()
    document = dict(TRANSLATOR.encode_answer(answer, losses=losses))
    Response.model_validate(document)
    return document, losses.names


@each_recorded(API.OPENAI_RESPONSES, answered=True)
def test_a_recorded_answer_comes_out_as_it_came(exchange: Exchange) -> None:
    document = recorded_response(exchange)
    assert again(document) == document


@each_recorded(API.OPENAI_RESPONSES, answered=True, stream=False)
def test_a_recorded_answers_usage_is_what_everything_counts_by(exchange: Exchange) -> None:
    usage = TRANSLATOR.decode_answer(json.loads(exchange.response)).usage
    assert (usage.buckets if usage else None) == OpenAIResponses().usage(CALL, exchange.response)


@pytest.mark.parametrize(
    "document",
    [
        answered(),
        answered(created_at=1.5, usage=None, status="in_progress"),
        answered(message(), message(TEXT, TEXT, phase="commentary", new=1), message({"type": "new", "x": 1})),
        answered(message({"type": "refusal", "refusal": "No."}), service_tier="flex", new_field={"a": 1}),
        answered({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"}),
        answered({"type": "image_generation_call", "id": "ig_1", "result": "QQ=="}, error=None),
    ],
)
def test_every_form_comes_out_as_it_came(document: dict[str, Any]) -> None:
    assert again(document) == document


@pytest.mark.parametrize(
    ("document", "finish"),
    [
        (answered(message(TEXT)), Finish.STOP),
        (answered(message(TEXT), status="complete"), Finish.STOP),
        (answered(message({"type": "refusal", "refusal": "No."})), Finish.REFUSAL),
        (
            answered(message(TEXT), {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}),
            Finish.TOOL_CALLS,
        ),
        (answered(status="incomplete", incomplete_details={"reason": "max_output_tokens"}), Finish.LENGTH),
        (answered(status="incomplete", incomplete_details={"reason": "content_filter"}), Finish.SAFETY),
        (answered(status="incomplete", incomplete_details=None), Finish.OTHER),
        (answered(status="queued"), None),
    ],
)
def test_the_finish_is_read_from_status_and_output(document: dict[str, Any], finish: Finish | None) -> None:
    assert TRANSLATOR.decode_answer(document).choices[0].finish is finish


@pytest.mark.parametrize("document", [{"id": "resp_1"}, answered(status="failed"), answered(status="cancelled"), []])
def test_what_is_no_answer_is_undecodable(document: Any) -> None:
    with pytest.raises(Undecodable):
        TRANSLATOR.decode_answer(document)


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "role", "content", "text", "summary", "annotations", "call_id", "name", "arguments"]
            ),
            inner | st.sampled_from(["message", "assistant", "function_call", "output_text", "reasoning"]),
        )
    ),
    max_leaves=12,
)


@given(
    output=st.lists(_ANYTHING, max_size=3),
    fields=st.dictionaries(
        st.sampled_from(["status", "incomplete_details", "usage", "created_at", "error", "service_tier", "x"]),
        _ANYTHING,
    ),
)
def test_whatever_is_answered_is_decoded_without_loss_or_undecodable(output: Any, fields: dict[str, Any]) -> None:
    document = answered() | {"output": output} | fields
    try:
        TRANSLATOR.decode_answer(document)
    except Undecodable:
        return
    assert again(document) == document


def test_log_probabilities_are_told_in_the_form_of_openais_chat() -> None:
    entry = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}
    answer = TRANSLATOR.decode_answer(answered(message({**TEXT, "logprobs": [entry]})))
    assert answer.choices[0].logprobs == {"content": [entry]}
    document, dropped = said(foreign(Text(text="Hi"), logprobs={"content": [entry]}))
    assert dropped == []
    assert document["output"][0]["content"][0]["logprobs"] == [entry]
    assert said(foreign(Text(text="a"), logprobs={"other": 1}))[1] == ["logprobs"]


def test_the_echo_of_a_request_is_not_worth_a_word_elsewhere() -> None:
    document = answered(tools=[], instructions="a", service_tier="default", object="response", new_field=1)
    extra = TRANSLATOR.decode_answer(document).extra
    assert {name for name in extra if not name.startswith("$")} == {"service_tier", "new_field"}


def test_a_foreign_answer_is_a_whole_response() -> None:
    answer = foreign(
        Thinking(text="Hm.", signature="sig", owner=API.ANTHROPIC_MESSAGES),
        Text(text="Hello"),
        Text(text=" there"),
        ToolCall(id="toolu_1", name="f", arguments={"a": 1}),
        ToolCall(id="", name="g", arguments="free", kind=ToolKind.CUSTOM, signature="s"),
        finish=Finish.TOOL_CALLS,
        created_seconds=5,
        usage=ToldUsage(buckets=Usage(3, 4, 5, 6, 2), extra={"inference_geo": "eu"}),
    )
    document, dropped = said(answer)
    assert dropped == []
    assert document["id"] == "resp_llmsidecar_msg_01"
    assert document["id"].startswith(FOREIGN_ANSWER)
    assert (document["status"], document["created_at"], document["model"]) == ("completed", 5, "claude")
    thoughts, text, call, custom = document["output"]
    assert thoughts["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert marks.unseal(thoughts["encrypted_content"]) == marks.Sealed(API.ANTHROPIC_MESSAGES, "sig", None)
    assert [part["text"] for part in text["content"]] == ["Hello", " there"]
    assert (call["call_id"], call["name"], call["arguments"]) == ("toolu_1", "f", '{"a":1}')
    assert (custom["type"], custom["input"]) == ("custom_tool_call", "free")
    assert custom["call_id"].startswith("call_llmsidecar_")
    assert custom["extra_content"] == {"google": {"thought_signature": "s"}}
    assert document["usage"] == {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 5},
        "output_tokens": 6,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 18,
    }
    ids = [item["id"] for item in document["output"]]
    assert len(set(ids)) == len(ids)
    assert all(marks.MARK in each for each in ids)


def test_thoughts_come_back_to_their_own_provider() -> None:
    parts = (
        Thinking(text="Hm.", signature="sig", owner=API.ANTHROPIC_MESSAGES),
        Thinking(redacted="secret", owner=API.ANTHROPIC_MESSAGES),
        ToolCall(id="c", name="f", arguments="{}", signature="s"),
    )
    output = said(foreign(*parts))[0]["output"]
    conversation = TRANSLATOR.decode_request(CALL, {"model": "m", "input": output})
    thoughts, redacted, call = (turn.parts[0] for turn in conversation.turns)
    assert thoughts == parts[0]
    assert redacted == parts[1]
    assert isinstance(call, ToolCall)
    assert call.signature == "s"


def test_a_whole_foreign_answer_can_be_sent_back_to_openai() -> None:
    """What OpenAI does not know is left out: a client that fails back goes on as if OpenAI had answered."""
    parts = (Thinking(text="Hm.", owner=API.GEMINI), Text(text="Hi"), ToolCall(id="c", name="f", arguments="{}"))
    output = said(foreign(*parts))[0]["output"]
    assert marks.MARK in json.dumps(output)
    conversation = TRANSLATOR.decode_request(CALL, {"model": "m", "input": output})
    encoded = TRANSLATOR.encode_request(conversation, model="m", losses=Losses())
    assert marks.MARK not in json.dumps(encoded.document)
    assert [item["type"] for item in encoded.document["input"]] == ["message", "function_call"]


@pytest.mark.parametrize(
    ("finish", "parts", "status", "details"),
    [
        (Finish.STOP, (), "completed", None),
        (Finish.STOP_SEQUENCE, (), "completed", None),
        (Finish.LENGTH, (), "incomplete", {"reason": "max_output_tokens"}),
        (Finish.CONTEXT_WINDOW, (), "incomplete", {"reason": "max_output_tokens"}),
        (Finish.SAFETY, (), "incomplete", {"reason": "content_filter"}),
        (Finish.REFUSAL, (), "incomplete", {"reason": "content_filter"}),
        (Finish.REFUSAL, (Refusal(text="No."),), "completed", None),
        (Finish.PAUSE, (), "incomplete", None),
        (Finish.MALFORMED_CALL, (), "incomplete", None),
        (Finish.OTHER, (), "incomplete", None),
    ],
)
def test_each_finish_has_its_status(finish: Finish, parts: Any, status: str, details: Any) -> None:
    document, _ = said(foreign(*parts, finish=finish))
    assert (document["status"], document["incomplete_details"]) == (status, details)


def test_an_answer_without_choices_was_filtered() -> None:
    document, _ = said(Answer(api=API.GEMINI, id="", model="gemini", choices=()))
    assert (document["status"], document["output"]) == ("incomplete", [])
    assert document["id"].startswith(FOREIGN_ANSWER)


def test_a_refusal_is_a_part_of_its_message() -> None:
    document, _ = said(foreign(Text(text="Well."), Refusal(text="No."), finish=Finish.REFUSAL))
    assert [part["type"] for part in document["output"][0]["content"]] == ["output_text", "refusal"]


def test_citations_are_carried_where_both_sides_have_them() -> None:
    of_chat = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}}
    document, dropped = said(foreign(Text(text="a", citations=(of_chat, {"type": "char_location"}))))
    assert document["output"][0]["content"][0]["annotations"] == [
        {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    ]
    assert dropped == ["citations"]


def test_what_an_answer_cannot_tell_is_named() -> None:
    answer = foreign(
        Text(text="a", signature="s", extra={"odd": 1}),
        Native(owner=API.ANTHROPIC_MESSAGES, kind="server_tool_use", value={}),
        extra={"stop_details": {}},
    )
    assert said(answer)[1] == ["stop_details", "messages.content.odd", "thought_signature", "server_tool_use"]
    two = Answer(api=API.OPENAI_CHAT, id="c", model="m", choices=(Choice(), Choice(index=1)))
    assert said(two)[1] == ["choices"]


def test_an_image_is_an_item_and_other_media_are_left_out_and_told() -> None:
    picture = base64.b64encode(b"png").decode()
    document, _ = said(foreign(Media(kind=MediaKind.IMAGE, media_type="image/png", data=picture)))
    assert document["output"][0]["type"] == "image_generation_call"
    assert document["output"][0]["result"] == picture
    document, dropped = said(foreign(Media(kind=MediaKind.AUDIO, media_type="audio/wav", data=picture)))
    assert (document["output"], dropped) == ([], ["audio"])
