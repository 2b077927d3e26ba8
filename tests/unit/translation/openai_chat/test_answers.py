"""Whole answers of chat completions: what comes back, and what other languages' answers become."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Usage
from llm_sidecar.translation.answer import Answer, Choice, Finish, ToldUsage
from llm_sidecar.translation.losses import Losses, Undecodable
from llm_sidecar.translation.openai_chat import OpenAIChatTranslator
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
from tests.unit.translation.noise import ANYTHING, places
from tests.unit.translation.recordings import each_recorded

TRANSLATOR: Final = OpenAIChatTranslator()
CALL: Final = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CITATION: Final = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}}


def again(document: Mapping[str, Any]) -> Mapping[str, Any]:
    losses = Losses()
    encoded = TRANSLATOR.encode_answer(TRANSLATOR.decode_answer(document), losses=losses)
    assert losses.names == []
    return encoded


def answered(**choice: Any) -> dict[str, Any]:
    message = choice.pop("message", {"role": "assistant", "content": "hi", "refusal": None})
    whole = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", **choice}
    return {"id": "a", "object": "chat.completion", "created": 5, "model": "m", "choices": [whole]}


def foreign(*parts: Part, api: API = API.ANTHROPIC_MESSAGES, **fields: Any) -> Answer:
    choice = {name: fields.pop(name) for name in ("finish", "stop_sequence", "logprobs") if name in fields}
    choices = (Choice(parts=parts, **{"finish": Finish.STOP, **choice}),)
    return Answer(**{"api": api, "id": "msg_1", "model": "theirs", "choices": choices, **fields})


def translated(answer: Answer) -> tuple[dict[str, Any], list[str]]:
    """The document, which the SDK's own types accept, and the names of what was dropped."""
    losses = Losses()
    document = dict(TRANSLATOR.encode_answer(answer, losses=losses))
    ChatCompletion.model_validate_json(json.dumps(document), strict=True)
    return document, losses.names


def choice_of(*parts: Part, **fields: Any) -> tuple[dict[str, Any], list[str]]:
    document, dropped = translated(foreign(*parts, **fields))
    return document["choices"][0], dropped


@each_recorded(API.OPENAI_CHAT, answered=True, stream=False)
def test_every_recorded_answer_comes_back_as_it_was(exchange: Exchange) -> None:
    document = json.loads(exchange.response)
    assert document == again(document)


@each_recorded(API.OPENAI_CHAT, answered=True, stream=False)
def test_the_usage_of_every_recorded_answer_is_told_in_buckets(exchange: Exchange) -> None:
    usage = TRANSLATOR.decode_answer(json.loads(exchange.response)).usage
    assert usage is not None
    assert exchange.usage == {
        "input_tokens": usage.buckets.input_tokens,
        "cache_read_tokens": usage.buckets.cache_read_tokens,
        "cache_write_tokens": usage.buckets.cache_write_tokens,
        "output_tokens": usage.buckets.output_tokens,
        "reasoning_tokens": usage.buckets.reasoning_tokens,
    }


FORMS: Final[dict[str, dict[str, Any]]] = {
    "plain": answered(),
    "several choices": {**answered(), "choices": [{**answered()["choices"][0], "index": n} for n in (1, 0)]},
    "no choices": {**answered(), "choices": []},
    "calls": answered(message={"role": "assistant", "content": None, "tool_calls": [CALL]}, finish_reason="tool_calls"),
    "a refusal": answered(message={"role": "assistant", "content": None, "refusal": "no"}),
    "citations": answered(message={"role": "assistant", "content": "x", "annotations": [CITATION]}),
    "citations of nothing": answered(message={"role": "assistant", "content": None, "annotations": [CITATION]}),
    "thoughts": answered(message={"role": "assistant", "content": "x", "reasoning_content": "y"}),
    "thoughts of another spelling": answered(message={"role": "assistant", "content": "x", "reasoning": "y"}),
    "the old function": answered(
        message={"role": "assistant", "function_call": {"name": "f", "arguments": ""}}, finish_reason="function_call"
    ),
    "an unknown end": answered(finish_reason="eos"),
    "no end": answered(finish_reason=None),
    "log probabilities": answered(logprobs={"content": [{"token": "a"}], "refusal": None}),
    "things unread": {**answered(), "system_fingerprint": "f", "service_tier": None, "brand_new": {"a": []}},
    "a loose server": {"choices": [{"message": {"content": "hi"}, "more": 1}], "object": "text_completion"},
    "names that are null": {**answered(), "id": None, "model": None, "object": None, "usage": None, "created": None},
}


@pytest.mark.parametrize("document", FORMS.values(), ids=list(FORMS))
def test_an_answer_comes_back_in_the_form_it_had(document: dict[str, Any]) -> None:
    assert document == again(document)


@given(st.data())
def test_whatever_a_field_holds_it_comes_back_or_is_refused(data: st.DataObject) -> None:
    document = copy.deepcopy(data.draw(st.sampled_from(list(FORMS.values()))))
    holder, name = data.draw(st.sampled_from(places(document)))
    holder[name] = data.draw(ANYTHING)
    try:
        TRANSLATOR.decode_answer(document)
    except Undecodable:
        return
    assert document == again(document)


@pytest.mark.parametrize(
    "document",
    [{}, {"choices": [5]}, {"choices": [{}]}, {"choices": [{"message": {"role": "user", "content": "x"}}]}],
)
def test_what_is_no_answer_is_not_guessed_at(document: dict[str, Any]) -> None:
    with pytest.raises(Undecodable):
        TRANSLATOR.decode_answer(document)


@pytest.mark.parametrize(
    ("form", "finish"),
    [
        ("plain", Finish.STOP),
        ("calls", Finish.TOOL_CALLS),
        ("a refusal", Finish.REFUSAL),
        ("an unknown end", Finish.OTHER),
        ("no end", None),
    ],
)
def test_why_it_ended_is_understood(form: str, finish: Finish | None) -> None:
    assert finish == TRANSLATOR.decode_answer(FORMS[form]).choices[0].finish


def test_citations_belong_to_the_text() -> None:
    assert (Text(text="x", citations=(CITATION,)),) == TRANSLATOR.decode_answer(FORMS["citations"]).choices[0].parts


def test_leftovers_have_names_that_say_where_they_were() -> None:
    extra = TRANSLATOR.decode_answer(FORMS["the old function"]).choices[0].extra
    assert "message.function_call" in extra


# From other languages.


def test_a_foreign_answer_becomes_one_message() -> None:
    choice, dropped = choice_of(
        Thinking(text="hm", signature="s", owner=API.ANTHROPIC_MESSAGES),
        Text(text="It is ", citations=({"cited_text": "x"},)),
        Text(text="warm."),
        ToolCall(id="c", name="f", arguments={"a": 1}),
        finish=Finish.TOOL_CALLS,
    )
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "It is warm.",
            "refusal": None,
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }
    assert dropped == ["thinking.signature", "citations"]


def test_a_gemini_signature_goes_to_the_client_and_comes_back() -> None:
    """Gemini refuses the next turn without it, and chat clients give a call back as it came."""
    choice, dropped = choice_of(ToolCall(id="", name="f", arguments={}, signature="sig"), api=API.GEMINI)
    assert dropped == []
    call = choice["message"]["tool_calls"][0]
    assert call["extra_content"] == {"google": {"thought_signature": "sig"}}
    returned = TRANSLATOR.decode_answer(answered(message=choice["message"])).choices[0].parts[0]
    assert isinstance(returned, ToolCall)
    assert returned.signature == "sig"


def test_made_up_ids_differ_from_answer_to_answer() -> None:
    """A conversation has them all: with the same id twice a result would belong to two calls."""
    calls = (ToolCall(id="", name="f", arguments={}), ToolCall(id="", name="f", arguments={}))
    ids = [
        call["id"]
        for answer_id in ("first-answer", "second-answer", "")
        for call in translated(foreign(*calls, id=answer_id))[0]["choices"][0]["message"]["tool_calls"]
    ]
    assert len(set(ids)) == 6
    assert all(len(each) <= 40 for each in ids)


@pytest.mark.parametrize(
    ("finish", "parts", "word", "dropped"),
    [
        (Finish.STOP, (Text(text="x"),), "stop", []),
        (Finish.STOP, (ToolCall(id="a", name="f", arguments={}),), "tool_calls", []),
        (Finish.STOP_SEQUENCE, (), "stop", []),
        (Finish.LENGTH, (), "length", []),
        (Finish.CONTEXT_WINDOW, (), "length", []),
        (Finish.SAFETY, (), "content_filter", []),
        (Finish.REFUSAL, (Refusal(text="no"),), "stop", []),
        (Finish.REFUSAL, (Text(text="no"),), "content_filter", []),
        (Finish.PAUSE, (), "length", ["finish_reason"]),
        (Finish.MALFORMED_CALL, (), "content_filter", ["finish_reason"]),
        (Finish.OTHER, (), "content_filter", ["finish_reason"]),
    ],
)
def test_why_it_ended_is_said_in_a_word_of_this_api(
    finish: Finish, parts: tuple[Part, ...], word: str, dropped: list[str]
) -> None:
    """An answer that is not whole never looks like one that is."""
    choice, names = choice_of(*parts, finish=finish)
    assert (word, dropped) == (choice["finish_reason"], names)


def test_every_end_has_a_word() -> None:
    for finish in Finish:
        assert choice_of(finish=finish)[0]["finish_reason"]


def test_a_refusal_has_a_field_of_its_own() -> None:
    choice, _ = choice_of(Refusal(text="no"), finish=Finish.REFUSAL)
    assert (choice["message"]["content"], choice["message"]["refusal"]) == (None, "no")


def test_totals_of_usage_include_what_was_cached_and_thought() -> None:
    buckets = Usage(input_tokens=10, cache_read_tokens=200, cache_write_tokens=3, output_tokens=7, reasoning_tokens=4)
    document, _ = translated(foreign(usage=ToldUsage(buckets=buckets, extra={"input_tokens": 10})))
    assert document["usage"] == {
        "prompt_tokens": 213,
        "completion_tokens": 7,
        "total_tokens": 220,
        "prompt_tokens_details": {"cached_tokens": 200, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    decoded = TRANSLATOR.decode_answer(document).usage
    assert decoded is not None
    assert buckets == decoded.buckets


def test_usage_that_was_not_told_is_not_made_up() -> None:
    document, _ = translated(foreign(usage=ToldUsage(buckets=Usage(input_tokens=1, output_tokens=2))))
    assert document["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert "usage" not in translated(foreign())[0]


def test_what_an_answer_cannot_say_is_named() -> None:
    choice, dropped = choice_of(
        Text(text="x", signature="s", extra={"more": 1}),
        Thinking(redacted="z", owner=API.ANTHROPIC_MESSAGES),
        Thinking(signature="z", owner=API.GEMINI),
        Native(owner=API.GEMINI, kind="executableCode", value={}, is_harmless=True),
        stop_sequence="END",
        logprobs={"chosenCandidates": []},
        extra={"responseId": "r", "$form": 1, "nothing": None},
    )
    assert "reasoning_content" not in choice["message"]
    assert {
        "responseId",
        "messages.content.more",
        "logprobs",
        "stop_sequence",
        "thought_signature",
        "redacted_thinking",
        "executableCode",
    } == set(dropped)


@pytest.mark.parametrize(
    "part",
    [
        Media(kind=MediaKind.IMAGE, media_type="image/png", data="AAAA"),
        Native(owner=API.ANTHROPIC_MESSAGES, kind="web_search_tool_result", value={}),
    ],
)
def test_content_without_a_place_in_a_message_is_left_out_and_told_because_it_is_paid_for(
    part: Media | Native,
) -> None:
    choice, dropped = choice_of(Text(text="Hi"), part)
    assert choice["message"]["content"] == "Hi"
    assert dropped == [part.kind]


def test_free_text_for_a_custom_tool_stays_free_text() -> None:
    choice, _ = choice_of(ToolCall(id="a", name="f", arguments="x = 1", kind=ToolKind.CUSTOM))
    assert choice["message"]["tool_calls"] == [{"id": "a", "type": "custom", "custom": {"name": "f", "input": "x = 1"}}]
