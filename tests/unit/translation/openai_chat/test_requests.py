"""Requests to chat completions: what comes back, what other languages' requests become, what is refused."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call
from llm_sidecar.translation.conversation import (
    Conversation,
    JSONOutput,
    Logprobs,
    Reasoning,
    Role,
    Sampling,
    ServerTool,
    Tool,
    ToolChoice,
    ToolUse,
    Turn,
)
from llm_sidecar.translation.foreign import check_conversation
from llm_sidecar.translation.losses import Losses, Undecodable, Untranslatable
from llm_sidecar.translation.openai_chat import OpenAIChatTranslator
from llm_sidecar.translation.parts import (
    CacheMarker,
    Media,
    MediaKind,
    Native,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolKind,
    ToolResult,
)
from tests.integration.recorded_exchanges import Exchange
from tests.unit.translation.noise import ANYTHING, places
from tests.unit.translation.recordings import each_recorded

CALL: Final = Call(api=API.OPENAI_CHAT, type=RequestType.GENERATION, path="/chat/completions")
PARAMETERS: Final = TypeAdapter[Any](CompletionCreateParamsNonStreaming)
TRANSLATOR: Final = OpenAIChatTranslator()
OPEN_SCHEMA: Final = {"type": "object", "properties": {"city": {"type": "string"}}}
CLOSED_SCHEMA: Final = {**OPEN_SCHEMA, "required": ["city"], "additionalProperties": False}


def decoded(document: Mapping[str, Any]) -> Conversation:
    return TRANSLATOR.decode_request(CALL, document)


def again(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Decoded and encoded in the same language."""
    losses = Losses()
    encoded = TRANSLATOR.encode_request(decoded(document), model=str(document.get("model", "")), losses=losses)
    assert losses.names == []
    assert encoded.path == "/chat/completions"
    return encoded.document


def asked(*messages: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": list(messages) or [{"role": "user", "content": "hi"}], **fields}


def foreign(*turns: Turn, api: API = API.ANTHROPIC_MESSAGES, **fields: Any) -> Conversation:
    turns = turns or (Turn(role=Role.USER, parts=(Text(text="hi"),)),)
    return Conversation(**{"api": api, "model": "theirs", "stream": False, "turns": turns, **fields})


def translated(conversation: Conversation) -> tuple[dict[str, Any], list[str]]:
    """The document, which OpenAI's own types accept, and the names of what was dropped."""
    losses = Losses()
    document = dict(TRANSLATOR.encode_request(conversation, model="m", losses=losses).document)
    PARAMETERS.validate_python(document)
    return document, losses.names


def messages_of(*turns: Turn, **fields: Any) -> tuple[list[Any], list[str]]:
    document, dropped = translated(foreign(*turns, **fields))
    return document["messages"], dropped


def user(*parts: Part) -> Turn:
    return Turn(role=Role.USER, parts=parts)


def model(*parts: Part) -> Turn:
    return Turn(role=Role.ASSISTANT, parts=parts)


def call(call_id: str, name: str = "weather", **fields: Any) -> ToolCall:
    return ToolCall(**{"id": call_id, "name": name, "arguments": {"city": "Bonn"}, **fields})


def refusal(conversation: Conversation, losses: Losses) -> str | None:
    try:
        check_conversation(conversation, losses)
    except Untranslatable as reason:
        return reason.what
    return None


@each_recorded(API.OPENAI_CHAT)
def test_every_recorded_request_comes_back_as_it_was(exchange: Exchange) -> None:
    assert exchange.request == again(exchange.request)


@each_recorded(API.OPENAI_CHAT)
def test_every_leftover_of_a_recorded_request_is_told_or_refused(exchange: Exchange) -> None:
    """Other languages refuse only what would change the answer."""
    losses = Losses()
    refused = refusal(decoded(exchange.request), losses)
    assert refused in {None, "`web_search_options`", "`audio`", "`modalities`", "`moderation`"}
    assert set(losses.names) <= {"prompt_cache_key", "prompt_cache_options"}


FORMS: Final[dict[str, dict[str, Any]]] = {
    "streams that ask for usage": asked(stream=True, stream_options={"include_usage": True}),
    "stream options beside": asked(stream=True, stream_options={"include_usage": True, "include_obfuscation": False}),
    "no stream, said": asked(stream=False),
    "nulls": asked(stream=None, tools=None, temperature=None, stop=None, user=None, response_format=None, n=None),
    "stop as text": asked(stop="x"),
    "stop as list": asked(stop=["x", "y"]),
    "stop as empty list": asked(stop=[]),
    "the older limit": asked(max_tokens=5),
    "both limits": asked(max_tokens=5, max_completion_tokens=6),
    "numbers as they came": asked(temperature=1, top_p=1.0, top_k=40, presence_penalty=-0.5, frequency_penalty=0),
    "other knobs": asked(seed=7, n=2, logprobs=True, top_logprobs=3, reasoning_effort="low", user="u", metadata={}),
    "things unread": asked(service_tier="flex", logit_bias={"5": -1}, store=True, prediction={"a": 1}, brand_new=[{}]),
    "defaults said": asked(store=False, modalities=["text"], response_format={"type": "text"}),
    "sound wanted": asked(modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"}),
    "any JSON": asked(response_format={"type": "json_object"}),
    "JSON by schema": asked(
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "n", "description": "d", "schema": OPEN_SCHEMA, "strict": None, "more": 1},
        }
    ),
    "JSON schema without a schema": asked(response_format={"type": "json_schema", "json_schema": {"name": "n"}}),
    "an unknown output": asked(response_format={"type": "grammar", "grammar": "g"}),
    "no tools": asked(tools=[], parallel_tool_calls=False),
    "tools": asked(
        tools=[
            {"type": "function", "function": {"name": "a", "parameters": OPEN_SCHEMA, "strict": True}},
            {"type": "function", "function": {"name": "b", "description": None, "strict": None}},
            {"type": "function", "function": {"name": "c", "x": 1}, "y": 2, "cache_control": {"type": "ephemeral"}},
            {"type": "custom", "custom": {"name": "d", "description": "e", "format": {"type": "text"}}},
            {"type": "web_search", "anything": True},
        ],
        tool_choice={"type": "function", "function": {"name": "a"}},
        parallel_tool_calls=True,
    ),
    "a custom tool forced": asked(tool_choice={"type": "custom", "custom": {"name": "a"}}),
    "a choice that says more": asked(tool_choice={"type": "function", "function": {"name": "a"}, "why": "so"}),
    "allowed tools": asked(
        tool_choice={
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "a"}}]},
        }
    ),
    "allowed tools of all kinds": asked(
        tool_choice={
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto", "tools": [{"type": "mcp", "server_label": "a"}]},
        }
    ),
    "the old functions": asked(
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
        functions=[{"name": "f"}],
        function_call="auto",
    ),
    "roles": asked(
        {"role": "system", "content": "s", "name": "n"},
        {"role": "developer", "content": [{"type": "text", "text": "d"}]},
        {"role": "user", "content": [], "name": "me"},
        {"role": "critic", "content": 5},
    ),
    "an assistant's turns": asked(
        {"role": "assistant", "content": "", "refusal": None, "annotations": [], "tool_calls": []},
        {"role": "assistant", "refusal": "no"},
        {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]},
        {"role": "assistant", "content": "c", "reasoning_content": "thought", "reasoning": "the same"},
        {"role": "assistant", "content": "c", "reasoning": "thought", "audio": {"id": "a1"}},
    ),
    "calls": asked(
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{ "a" : 1 }'}},
                {"id": "2", "type": "function", "function": {"name": "f", "arguments": ""}, "index": 1},
                {"id": "3", "type": "function", "function": {"name": "f", "arguments": {"a": 1}, "x": 1}},
                {"type": "function", "function": {"name": "f", "arguments": None}},
                {"id": "5", "function": {"name": "f"}},
                {"id": "6", "type": "custom", "custom": {"name": "g", "input": "free"}},
                {"id": "7", "type": "mcp", "mcp": {}},
                {
                    "id": "8",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}"},
                    "extra_content": {"google": {"thought_signature": "sig"}},
                },
                {
                    "id": "9",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}"},
                    "extra_content": {"google": {"thought_signature": "sig", "more": 1}},
                },
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "r", "name": "f"},
        {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "r"}]},
        {"role": "tool", "tool_call_id": "3", "content": ""},
    ),
    "media": asked(
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "more": 1}},
                {"type": "image_url", "image_url": {"url": "data:image/png;name=a;base64,AAAA"}},
                {"type": "image_url", "image_url": {"url": "data:;base64,AAAA"}},
                {"type": "image_url", "image_url": {"url": "data:image/svg+xml,<svg/>"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "ogg"}, "more": 1},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
                {"type": "file", "file": {"filename": "a.txt", "file_data": "AAAA"}},
                {"type": "file", "file": {"file_data": "data:image/png;base64,AAAA"}},
                {"type": "file", "file": {"file_id": "file-1", "more": 1}, "other": None},
                {"type": "file", "file": {"filename": "neither"}},
                {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
            ],
        }
    ),
    "marks for the cache": asked(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "text", "text": "b", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}},
                {"type": "text", "text": "c", "prompt_cache_breakpoint": {"mode": "new"}},
                {"type": "text", "text": "d", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
                {"type": "text", "text": "e", "cache_control": {"type": "ephemeral", "ttl": None}},
            ],
        }
    ),
}


@pytest.mark.parametrize("document", FORMS.values(), ids=list(FORMS))
def test_a_request_comes_back_in_the_form_it_had(document: dict[str, Any]) -> None:
    assert document == again(document)


@given(st.data())
def test_whatever_a_field_holds_it_comes_back_or_is_refused(data: st.DataObject) -> None:
    document = copy.deepcopy(data.draw(st.sampled_from(list(FORMS.values()))))
    holder, name = data.draw(st.sampled_from(places(document)))
    holder[name] = data.draw(ANYTHING)
    if holder is document and name == "model":
        return  # the one that is written is told apart
    try:
        decoded(document)
    except Undecodable:
        return
    if document.get("stream") is True:
        document["stream_options"] = {**(document.get("stream_options") or {}), "include_usage": True}
    assert document == again(document)


def test_a_stream_always_asks_for_its_usage() -> None:
    for options in ({}, {"stream_options": None}, {"stream_options": {"include_usage": False}}):
        assert again(asked(stream=True, **options))["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    "document",
    [
        {"model": "m"},
        asked({"role": "user", "content": 5}),
        asked("text"),  # type: ignore[arg-type]
        asked({"role": "user", "content": [{"type": "text"}]}),
        asked({"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}),
        asked({"role": "tool", "content": "r"}),
        asked({"role": "assistant", "tool_calls": [{"id": "1", "type": "function"}]}),
        asked({"role": "assistant", "tool_calls": [{"type": "function", "function": {"arguments": "{}"}}]}),
        asked({"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": 5}}]}),
        asked(tools=[{"type": "function", "function": {}}]),
        asked(stop=[1]),
        asked(n="2"),
        asked(stream="yes"),
    ],
)
def test_what_is_no_request_is_not_guessed_at(document: dict[str, Any]) -> None:
    with pytest.raises(Undecodable):
        decoded(document)


def test_the_middle_is_told_all_that_it_has_a_word_for() -> None:
    conversation = decoded(FORMS["other knobs"] | {"stop": "x", "max_tokens": 9, "response_format": {"type": "text"}})
    assert (
        conversation.sampling.seed,
        conversation.choices,
        conversation.max_output_tokens,
        conversation.stop,
    ) == (7, 2, 9, ("x",))
    assert (Logprobs(wanted=True, top=3), Reasoning(effort="low")) == (conversation.logprobs, conversation.reasoning)
    assert conversation.output is None


def test_media_are_told_apart_by_where_their_content_is() -> None:
    parts = decoded(FORMS["media"]).turns[0].parts
    told = [(part.kind, part.media_type, part.data, part.url) for part in parts[:2] if isinstance(part, Media)]
    assert told == [
        (MediaKind.IMAGE, None, None, "https://example.com/a.png"),
        (MediaKind.IMAGE, "image/png", "AAAA", None),
    ]
    assert [Native, Native, Native] == [type(parts[n]) for n in (4, 12, 13)]


def test_a_gemini_signature_belongs_to_its_call() -> None:
    calls = decoded(FORMS["calls"]).turns[0].parts
    assert [part.signature for part in calls if isinstance(part, ToolCall)][-2:] == ["sig", None]


# From other languages.


def test_instructions_beside_the_messages_come_first() -> None:
    messages, _ = messages_of(user(Text(text="hi")), system=(Text(text="a"), Text(text="b")))
    assert messages[0] == {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    assert messages[1] == {"role": "user", "content": "hi"}


def test_results_of_parallel_calls_each_have_a_message_right_behind_the_calls() -> None:
    messages, dropped = messages_of(
        user(Text(text="hi")),
        model(Thinking(text="hm", signature="s", owner=API.ANTHROPIC_MESSAGES), Text(text="one moment")),
        model(call("a"), call("b", arguments='{"city": "Ulm"}')),
        user(
            Text(text="and?"),
            ToolResult(call_id="a", content=(Text(text="warm"),)),
            ToolResult(call_id="b", content=(Text(text="no"),), is_error=True),
        ),
    )
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "user"]
    assert messages[1]["content"] == "one moment"
    assert [each["function"]["arguments"] for each in messages[1]["tool_calls"]] == [
        '{"city":"Bonn"}',
        '{"city": "Ulm"}',
    ]
    assert [message["tool_call_id"] for message in messages[2:4]] == ["a", "b"]
    assert dropped == ["thinking", "is_error"]


def test_calls_without_ids_get_some_and_their_results_the_same() -> None:
    messages, _ = messages_of(
        user(Text(text="hi")),
        model(call("", "first"), call("", "second"), call("", "second")),
        user(
            ToolResult(call_id="", name="second", result={"n": 1}),
            ToolResult(call_id="", name="second", result={"n": 2}),
            ToolResult(call_id="", name="first", result={"n": 3}),
        ),
        model(call("", "first")),
        user(ToolResult(call_id="", name="first", result={"n": 4})),
        api=API.GEMINI,
    )
    ids = [each["id"] for message in messages for each in message.get("tool_calls", ())]
    assert len(ids) == len(set(ids)) == 4
    told = {message["tool_call_id"]: message["content"] for message in messages if message["role"] == "tool"}
    assert {ids[0]: '{"n":3}', ids[1]: '{"n":1}', ids[2]: '{"n":2}', ids[3]: '{"n":4}'} == told
    assert [message["content"] for message in messages if message["role"] == "assistant"] == [None, None]


def test_an_image_in_a_result_follows_behind_the_results() -> None:
    image = Media(kind=MediaKind.IMAGE, media_type="image/png", data="AAAA")
    messages, _ = messages_of(
        model(call("a"), call("b")),
        user(ToolResult(call_id="a", content=(image,)), ToolResult(call_id="b", content=(Text(text="x"),))),
    )
    assert [message["role"] for message in messages] == ["assistant", "tool", "tool", "user"]
    assert "a" in messages[3]["content"][0]["text"]
    assert messages[3]["content"][1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def test_results_in_turns_of_their_own_stay_together() -> None:
    image = Media(kind=MediaKind.IMAGE, media_type="image/png", data="AAAA")
    messages, _ = messages_of(
        model(call("a")),
        model(call("b")),
        Turn(role=Role.TOOL, parts=(ToolResult(call_id="a", content=(image,)),)),
        Turn(role=Role.TOOL, parts=(ToolResult(call_id="b", content=(Text(text="x"),)),)),
        api=API.OPENAI_RESPONSES,
    )
    assert [message["role"] for message in messages] == ["assistant", "tool", "tool", "user"]


def test_files_and_sound_become_items() -> None:
    messages, _ = messages_of(
        user(
            Media(kind=MediaKind.DOCUMENT, media_type="application/pdf", data="AAAA"),
            Media(kind=MediaKind.DOCUMENT, media_type="text/plain", data="w6Q="),
            Media(kind=MediaKind.AUDIO, media_type="audio/mp3", data="AAAA"),
            Media(kind=MediaKind.IMAGE, url="https://example.com/a.png", media_type="image/png"),
        )
    )
    assert messages[0]["content"] == [
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
        {"type": "text", "text": "ä"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ]


def test_what_is_only_for_another_provider_is_named_as_dropped() -> None:
    marker = CacheMarker(ttl="1h")
    _, dropped = messages_of(
        user(Text(text="hi", marker=marker), Native(owner=API.GEMINI, kind="thing", value={}, is_harmless=True)),
        model(Text(text="x", citations=({"cited": "y"},)), call("a", signature="sig"), Refusal(text="no")),
        user(ToolResult(call_id="a", content=(Text(text="r"),), marker=marker)),
        metadata={"a": "b"},
        sampling=Sampling(top_k=5),
        reasoning=Reasoning(budget_tokens=5000, visible=True, extra={"display": "short"}),
        tool_choice=ToolChoice(use=ToolUse.AUTO),
        extra={"service_tier": "auto", "unsaid": None, "$form": 1},
        harmless=frozenset({"service_tier", "reasoning.display"}),
    )
    assert {
        "service_tier",
        "reasoning.display",
        "metadata",
        "top_k",
        "cache_control",
        "thing",
        "citations",
        "thought_signature",
        "reasoning.visible",
        "tool_choice",
    } == set(dropped)


def test_a_mark_for_the_cache_stays_within_openai() -> None:
    turn = user(Text(text="hi", marker=CacheMarker(ttl="30m")))
    messages, dropped = messages_of(turn, api=API.OPENAI_RESPONSES)
    assert dropped == []
    assert messages[0]["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit", "ttl": "30m"}


@pytest.mark.parametrize(
    ("budget", "effort"), [(0, "none"), (512, "low"), (1024, "low"), (4096, "medium"), (8193, "high"), (-1, None)]
)
def test_a_thinking_budget_becomes_an_effort(budget: int, effort: str | None) -> None:
    document, _ = translated(foreign(reasoning=Reasoning(budget_tokens=budget)))
    assert effort == document.get("reasoning_effort")


def test_knobs_and_tools_are_carried() -> None:
    document, dropped = translated(
        foreign(
            api=API.GEMINI,
            tools=(
                Tool(name="a", description="d", parameters=CLOSED_SCHEMA, strict=True),
                Tool(name="b", parameters=OPEN_SCHEMA),
            ),
            tool_choice=ToolChoice(use=ToolUse.ANY, names=("a",), parallel=False),
            max_output_tokens=7,
            stop=("x",),
            sampling=Sampling(temperature=0.5, top_p=1, presence_penalty=0.1, frequency_penalty=0.2, seed=3),
            choices=2,
            logprobs=Logprobs(top=4),
            user="u",
        )
    )
    assert dropped == []
    assert document == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [
            {
                "type": "function",
                "function": {"name": "a", "description": "d", "parameters": CLOSED_SCHEMA, "strict": True},
            },
            {"type": "function", "function": {"name": "b", "parameters": OPEN_SCHEMA}},
        ],
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "a"}}]},
        },
        "parallel_tool_calls": False,
        "max_completion_tokens": 7,
        "stop": ["x"],
        "temperature": 0.5,
        "top_p": 1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "seed": 3,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 4,
        "user": "u",
    }


def test_a_custom_tool_is_forced_as_one() -> None:
    document, _ = translated(
        foreign(
            api=API.OPENAI_RESPONSES,
            tools=(Tool(name="a", kind=ToolKind.CUSTOM),),
            tool_choice=ToolChoice(use=ToolUse.NAMED, names=("a",)),
        )
    )
    assert document["tool_choice"] == {"type": "custom", "custom": {"name": "a"}}


@pytest.mark.parametrize(
    ("api", "schema", "strict", "dropped"),
    [
        (API.ANTHROPIC_MESSAGES, CLOSED_SCHEMA, True, []),
        (API.GEMINI, OPEN_SCHEMA, None, ["output.strict"]),
        (API.OPENAI_RESPONSES, CLOSED_SCHEMA, None, []),
    ],
)
def test_a_schema_that_binds_elsewhere_binds_here_too(
    api: API, schema: dict[str, Any], strict: bool | None, dropped: list[str]
) -> None:
    """OpenAI refuses `strict` for a schema that leaves anything open."""
    document, names = translated(foreign(api=api, output=JSONOutput(schema=schema)))
    told = document["response_format"]["json_schema"]
    assert ("output", schema, strict) == (told["name"], told["schema"], told.get("strict"))
    assert dropped == names


def test_json_without_a_schema_is_asked_for_plainly() -> None:
    document, _ = translated(foreign(output=JSONOutput()))
    assert document["response_format"] == {"type": "json_object"}


def test_a_foreign_stream_asks_for_its_usage() -> None:
    losses = Losses()
    document = TRANSLATOR.encode_request(foreign(stream=True), model="m", losses=losses).document
    assert (document["stream"], document["stream_options"]) == (True, {"include_usage": True})


@pytest.mark.parametrize(
    ("conversation", "what"),
    [
        (foreign(extra={"container": "c"}), "`container`"),
        (foreign(user(Text(text="x", extra={"new": 1}))), "`messages.content.new`"),
        (foreign(tools=(ServerTool(owner=API.GEMINI, kind="googleSearch", value={}),)), "googleSearch"),
        (foreign(stop=("a", "b", "c", "d", "e")), "stop sequences"),
        (foreign(user(Text(text="x")), model(Text(text="The answer is"))), "last turn"),
        (foreign(user(Native(owner=API.ANTHROPIC_MESSAGES, kind="container_upload", value={}))), "container_upload"),
        (foreign(user(Media(kind=MediaKind.IMAGE, file_id="f"))), "by its id"),
        (foreign(user(Media(kind=MediaKind.DOCUMENT, url="https://example.com/a.pdf"))), "document by URL"),
        (foreign(user(Media(kind=MediaKind.VIDEO, data="AA", media_type="video/mp4"))), "video/mp4"),
        (foreign(user(Media(kind=MediaKind.AUDIO, data="AA", media_type="audio/ogg"))), "audio/ogg"),
        (foreign(user(Media(kind=MediaKind.DOCUMENT, data="?", media_type="text/plain"))), "UTF-8"),
        (foreign(model(Media(kind=MediaKind.IMAGE, data="AA", media_type="image/png"))), "turn of the model"),
        (
            foreign(
                tools=(Tool(name="a", kind=ToolKind.CUSTOM),), tool_choice=ToolChoice(use=ToolUse.ANY, names=("a",))
            ),
            "custom tools",
        ),
    ],
)
def test_what_would_change_the_answer_is_refused(conversation: Conversation, what: str) -> None:
    with pytest.raises(Untranslatable, match=what):
        translated(conversation)
