"""Requests of the Responses API, decoded and encoded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import response_create_params
from pydantic import TypeAdapter

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.openai_responses import FOREIGN_ANSWER
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
from llm_sidecar.translation.openai_responses import OpenAIResponsesTranslator, marks
from llm_sidecar.translation.parts import (
    CacheMarker,
    Media,
    MediaKind,
    Native,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolKind,
    ToolResult,
)
from tests.integration.recorded_exchanges import Exchange
from tests.unit.translation.recordings import each_recorded

TRANSLATOR = OpenAIResponsesTranslator()
CALL = Call(api=API.OPENAI_RESPONSES, type=RequestType.GENERATION, path="/responses")
PARAMS: TypeAdapter[Any] = TypeAdapter(response_create_params.ResponseCreateParams)


def decoded(document: dict[str, Any]) -> Conversation:
    return TRANSLATOR.decode_request(CALL, document)


def again(document: dict[str, Any]) -> dict[str, Any]:
    conversation = decoded(document)
    losses = Losses()
    encoded = TRANSLATOR.encode_request(conversation, model=conversation.model, losses=losses)
    assert losses.names == []
    return dict(encoded.document)


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-5", "input": "Hello", **fields}


def foreign(*turns: Turn, **fields: Any) -> Conversation:
    return Conversation(api=API.ANTHROPIC_MESSAGES, model="claude", stream=False, turns=turns, **fields)


def user(*parts: Any) -> Turn:
    return Turn(role=Role.USER, parts=parts or (Text(text="Hello"),))


def assistant(*parts: Any) -> Turn:
    return Turn(role=Role.ASSISTANT, parts=parts)


def said(conversation: Conversation) -> tuple[dict[str, Any], list[str]]:
    """The request for OpenAI, which its SDK's types accept, and what was dropped."""
    losses = Losses()
    encoded = TRANSLATOR.encode_request(conversation, model="gpt-5", losses=losses)
    assert encoded.path == "/responses"
    document = dict(encoded.document)
    PARAMS.validate_python(document)
    return document, losses.names


@each_recorded(API.OPENAI_RESPONSES)
def test_a_recorded_request_comes_out_as_it_went_in(exchange: Exchange) -> None:
    assert again(exchange.request) == exchange.request


def _pinned(request: dict[str, Any]) -> bool:
    """Whether the request says anything beside its messages that another provider could not follow."""
    state = ("previous_response_id", "conversation", "store", "background", "moderation")
    calls = [item for item in request["input"] if isinstance(item, dict)]
    return (
        any(request.get(name) for name in state)
        or (request.get("reasoning") or {}).get("mode") is not None
        or any("namespace" in item for item in calls)
    )


@each_recorded(API.OPENAI_RESPONSES)
def test_a_recorded_request_is_refused_by_other_languages_only_where_it_is_pinned(exchange: Exchange) -> None:
    """Whatever else is left over is dropped by its name."""
    conversation = decoded(exchange.request)
    losses = Losses()
    if _pinned(exchange.request):
        with pytest.raises(Untranslatable):
            check_conversation(conversation, losses)
    else:
        check_conversation(conversation, losses)
        assert set(losses.names) <= conversation.harmless


@pytest.mark.parametrize(
    "document",
    [
        asked(),
        {"model": "gpt-5", "prompt": {"id": "pmpt_1"}},
        asked(input=[], tools=[], stream=False, store=False, background=False, truncation="disabled"),
        asked(store=True, stream=True, background=True, previous_response_id=None, conversation="conv_1"),
        asked(include=[], text={}, reasoning={}, metadata={}, instructions=""),
        asked(include=["message.output_text.logprobs"], top_logprobs=3, text={"format": None, "verbosity": "low"}),
        asked(text={"format": {"type": "text"}}),
        asked(text={"format": {"type": "json_object"}, "verbosity": "high"}),
        asked(text={"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": None}}),
        asked(text={"format": {"type": "grammar", "syntax": "lark"}}),
        asked(reasoning={"effort": None, "summary": "auto", "generate_summary": "concise", "mode": "standard"}),
        asked(temperature=1, top_p=0.5, max_output_tokens=16, user="u", parallel_tool_calls=True),
        asked(tool_choice={"type": "function", "name": "f"}, parallel_tool_calls=False),
        asked(tool_choice={"type": "custom", "name": "f"}),
        asked(tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}),
        asked(tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp", "server_label": "s"}]}),
        asked(tool_choice={"type": "web_search"}),
        asked(tool_choice={}),
        asked(tools=[{"type": "custom", "name": "f", "format": {"type": "text"}}]),
        asked(tools=[{"type": "custom", "name": "f", "format": {"type": "grammar", "syntax": "lark"}}]),
        asked(
            input=[{"role": "developer", "content": "Be short."}, {"type": "message", "role": "user", "content": []}]
        ),
        asked(input=[{"role": "user", "content": [{"type": "input_image", "file_id": "f", "image_url": None}]}]),
        asked(
            input=[{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,QQ=="}]}]
        ),
        asked(input=[{"role": "user", "content": [{"type": "input_image", "image_url": "data:,text"}]}]),
        asked(input=[{"role": "user", "content": [{"type": "input_file", "file_data": "QQ==", "filename": "a.pdf"}]}]),
        asked(input=[{"role": "user", "content": [{"type": "input_file", "file_url": "https://x/a", "file_id": "f"}]}]),
        asked(
            input=[
                {
                    "role": "user",
                    "content": [{"type": "input_file", "file_data": "data:text/plain;charset=utf-8;base64,QQ=="}],
                }
            ]
        ),
        asked(input=[{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "QQ=="}}]}]),
        asked(
            input=[
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "input_text",
                            "text": "a",
                            "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"},
                        }
                    ],
                }
            ]
        ),
        asked(
            input=[
                {
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": ""}, {"type": "refusal", "refusal": "No."}],
                }
            ]
        ),
        asked(
            input=[{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "a"}]}]
        ),
        asked(input=[{"type": "function_call_output", "call_id": "c", "output": [{"type": "x"}]}]),
        asked(input=[{"type": "function_call_output", "name": "f", "output": ""}]),
        asked(input=[{"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "free"}]),
        asked(input=[{"type": "custom_tool_call_output", "call_id": "c", "output": "free"}]),
        asked(input=[{"type": "reasoning", "id": "rs_1", "summary": [], "content": None}]),
        asked(input=[{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}], "summary": []}]),
        asked(input=[{"id": "msg_1"}, {"type": "item_reference", "id": "msg_2"}]),
        asked(
            input=[{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{", "extra_content": {"a": 1}}]
        ),
    ],
)
def test_every_form_comes_out_as_it_went_in(document: dict[str, Any]) -> None:
    assert again(document) == document


_NAMES = st.sampled_from(["id", "status", "phase", "name", "type", "x"])
_VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5)
_TEXTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text"]), "text": st.text(max_size=8)},
    optional={"annotations": st.just([]) | st.just([{"type": "url_citation"}]), "logprobs": st.just([]), "x": _VALUES},
)
_MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "developer"])},
    optional={
        "content": st.none() | st.text(max_size=8) | st.lists(_TEXTS, max_size=3),
        "type": st.just("message"),
        "id": st.text(max_size=3),
        "x": _VALUES,
    },
)
_OTHERS = st.fixed_dictionaries(
    {"type": st.just("function_call"), "call_id": st.text(), "name": st.text(), "arguments": st.text(max_size=8)},
    optional={"id": _VALUES, "status": _VALUES, "namespace": _VALUES},
) | st.dictionaries(_NAMES, _VALUES, max_size=3).map(lambda fields: {**fields, "type": "web_search_call"})


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "role", "content", "text", "name", "tools", "mode", "format", "schema", "call_id"]
            ),
            inner | st.sampled_from(["message", "user", "function", "allowed_tools", "input_text", "function_call"]),
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["input", "tools", "tool_choice", "text", "reasoning", "include", "stream", "instructions"]),
        _ANYTHING,
    )
)
def test_whatever_is_asked_is_decoded_without_loss_or_undecodable(fields: dict[str, Any]) -> None:
    document = {"model": "m", **fields}
    try:
        decoded(document)
    except Undecodable:
        return
    assert again(document) == document


@given(
    items=st.text() | st.lists(_MESSAGES | _OTHERS, max_size=4),
    settings=st.dictionaries(
        st.sampled_from(["stream", "store", "background", "parallel_tool_calls"]), st.none() | st.booleans()
    ),
    unknown=st.dictionaries(st.sampled_from(["new_field", "truncation", "service_tier"]), _VALUES),
)
def test_any_request_comes_out_as_it_went_in(items: Any, settings: dict[str, Any], unknown: dict[str, Any]) -> None:
    document = {"model": "m", "input": items, **settings, **unknown}
    assert again(document) == document


def test_another_model_takes_the_place_of_the_one_asked_for() -> None:
    encoded = TRANSLATOR.encode_request(decoded(asked()), model="gpt-4o", losses=Losses())
    assert encoded.document == asked(model="gpt-4o")


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"input": "a"}, "model"),
        (asked(input=3), "input"),
        (asked(input=[3]), r"input\[0\]"),
        (asked(input=[{"content": "a"}]), r"input\[0\].type"),
        (asked(input=[{"role": "user", "content": 3}]), "content"),
        (asked(input=[{"role": "user", "content": [{"type": "input_text"}]}]), r"content\[0\].text"),
        (asked(input=[{"type": "function_call", "name": "f"}]), "call_id"),
        (asked(tool_choice="perhaps"), "tool_choice"),
        (asked(temperature="hot"), "temperature"),
        (asked(tools=[{"name": "f"}]), r"tools\[0\].type"),
        (asked(text={"format": {"type": "json_schema", "name": "n"}}), "schema"),
    ],
)
def test_what_is_no_request_is_told_by_the_field(document: dict[str, Any], field: str) -> None:
    with pytest.raises(Undecodable, match=field):
        decoded(document)


@pytest.mark.parametrize(
    "pinning",
    [
        {"store": True},
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"background": True},
        {"prompt": {"id": "pmpt_1"}},
        {"moderation": {"model": "m"}},
        {"text": {"format": {"type": "grammar"}}},
        {"tool_choice": {"type": "web_search"}},
        {"reasoning": {"mode": "pro"}},
        {"a_field_of_tomorrow": 1},
        {"tools": [{"type": "custom", "name": "f", "format": {"type": "grammar"}}]},
    ],
)
def test_what_pins_the_provider_is_refused_by_other_languages(pinning: dict[str, Any]) -> None:
    with pytest.raises(Untranslatable):
        check_conversation(decoded(asked(**pinning)), Losses())


@pytest.mark.parametrize(
    "item", [{"type": "item_reference", "id": "i"}, {"id": "i"}, {"type": "compaction", "id": "i"}]
)
def test_an_item_that_lives_at_the_provider_is_native_and_not_harmless(item: dict[str, Any]) -> None:
    part = decoded(asked(input=[item])).turns[0].parts[0]
    assert isinstance(part, Native)
    assert not part.is_harmless


def test_a_hosted_tool_is_the_providers_own() -> None:
    (tool,) = decoded(asked(tools=[{"type": "web_search"}])).tools
    assert isinstance(tool, ServerTool)


def test_what_is_harmless_is_dropped_by_name() -> None:
    losses = Losses()
    document = asked(
        store=False,
        background=False,
        truncation="disabled",
        service_tier="flex",
        text={"verbosity": "low"},
        input=[{"role": "assistant", "content": "Hi", "id": "msg_1", "phase": "commentary"}],
    )
    check_conversation(decoded(document), losses)
    assert losses.names == ["service_tier", "text.verbosity", "messages.phase"]


def test_an_agents_history_is_read() -> None:
    conversation = decoded(
        {
            "model": "gpt-5",
            "instructions": "Be short.",
            "input": [
                {"role": "user", "content": "Weather?"},
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
                {"type": "function_call", "call_id": "c", "name": "weather", "arguments": '{"at":"Rome"}'},
                {"type": "function_call_output", "call_id": "c", "output": "Sun"},
            ],
            "tools": [{"type": "function", "name": "weather", "parameters": {}, "strict": True}],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "reasoning": {"effort": "low", "summary": "auto"},
            "include": ["message.output_text.logprobs"],
            "top_logprobs": 2,
            "max_output_tokens": 100,
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
        }
    )
    assert [part.text for part in conversation.system] == ["Be short."]
    assert [turn.role for turn in conversation.turns] == [Role.USER, Role.ASSISTANT, Role.ASSISTANT, Role.TOOL]
    thinking, call, result = (turn.parts[0] for turn in conversation.turns[1:])
    assert isinstance(thinking, Thinking)
    assert (thinking.text, thinking.owner) == ("Hm.", API.OPENAI_RESPONSES)
    assert isinstance(call, ToolCall)
    assert (call.id, call.name, call.arguments_object()) == ("c", "weather", {"at": "Rome"})
    assert isinstance(result, ToolResult)
    assert (result.call_id, result.content) == ("c", (Text(text="Sun"),))
    assert conversation.tool_choice == ToolChoice(use=ToolUse.ANY, parallel=False)
    assert conversation.reasoning is not None
    assert (conversation.reasoning.effort, conversation.reasoning.visible) == ("low", True)
    assert conversation.logprobs == Logprobs(wanted=True, top=2)
    assert conversation.output == JSONOutput(schema={"type": "object"}, name="n", strict=True)


def test_inline_files_are_read_as_plain_base64() -> None:
    content = [
        {"type": "input_image", "image_url": "data:image/png;base64,QQ==", "detail": "low"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,Qg==", "filename": "b.pdf"},
        {"type": "input_file", "file_data": "Qw==", "filename": "c.txt"},
    ]
    image, pdf, bare = decoded(asked(input=[{"role": "user", "content": content}])).turns[0].parts
    assert isinstance(image, Media)
    assert (image.kind, image.media_type, image.data, image.detail) == (MediaKind.IMAGE, "image/png", "QQ==", "low")
    assert isinstance(pdf, Media)
    assert (pdf.kind, pdf.media_type, pdf.data, pdf.name) == (MediaKind.DOCUMENT, "application/pdf", "Qg==", "b.pdf")
    assert isinstance(bare, Media)
    assert (bare.media_type, bare.data) == ("text/plain", "Qw==")


def test_a_foreign_request_is_said_with_all_that_this_api_has() -> None:
    conversation = foreign(
        user(Text(text="Look"), Media(kind=MediaKind.IMAGE, media_type="image/png", data="QQ==")),
        assistant(Text(text="Let me see."), ToolCall(id="c", name="f", arguments={"a": 1})),
        user(ToolResult(call_id="c", content=(Text(text="ok"),)), Text(text="Go on")),
        assistant(Refusal(text="No.")),
        Turn(role=Role.SYSTEM, parts=(Text(text="Hurry."),)),
        user(Media(kind=MediaKind.DOCUMENT, media_type="application/pdf", data="Qg==")),
        system=(Text(text="A"), Text(text="B")),
        tools=(Tool(name="f", parameters={"type": "object"}), Tool(name="g", kind=ToolKind.CUSTOM)),
        tool_choice=ToolChoice(use=ToolUse.AUTO, names=("f", "g"), parallel=False),
        output=JSONOutput(schema={"type": "object"}),
        max_output_tokens=100,
        sampling=Sampling(temperature=0.5, top_p=1),
        reasoning=Reasoning(budget_tokens=1024, visible=True),
        logprobs=Logprobs(wanted=True, top=2),
        user="u",
        metadata={"a": "b"},
    )
    document, dropped = said(replace(conversation, stream=True))
    assert dropped == []
    refusal = document["input"].pop(5)
    assert refusal.pop("id").startswith(f"msg{marks.MARK}")
    assert refusal == {
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "refusal", "refusal": "No."}],
    }
    assert document == {
        "model": "gpt-5",
        "store": False,
        "stream": True,
        "instructions": "A\n\nB",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look"},
                    {"type": "input_image", "image_url": "data:image/png;base64,QQ==", "detail": "auto"},
                ],
            },
            {"role": "assistant", "content": "Let me see."},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'},
            {"type": "function_call_output", "call_id": "c", "output": "ok"},
            {"role": "user", "content": "Go on"},
            {"role": "system", "content": "Hurry."},
            {
                "role": "user",
                "content": [
                    {
                        "type": "input_file",
                        "filename": "document.pdf",
                        "file_data": "data:application/pdf;base64,Qg==",
                    }
                ],
            },
        ],
        "tools": [
            {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False},
            {"type": "custom", "name": "g"},
        ],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}],
        },
        "parallel_tool_calls": False,
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": {"type": "object"}}},
        "max_output_tokens": 100,
        "temperature": 0.5,
        "top_p": 1,
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["message.output_text.logprobs", "reasoning.encrypted_content"],
        "top_logprobs": 2,
        "user": "u",
        "metadata": {"a": "b"},
    }


def test_a_plain_foreign_request_gets_no_more_than_store_false() -> None:
    assert said(foreign(user()))[0] == {
        "model": "gpt-5",
        "input": [{"role": "user", "content": "Hello"}],
        "store": False,
    }


def test_calls_without_ids_get_some_and_their_results_the_same() -> None:
    call = ToolCall(id="", name="f", arguments={})
    other = ToolCall(id="", name="g", arguments={})
    result = ToolResult(call_id="", name="f", result={"a": 1})
    turns = (user(), assistant(call, other, call), user(ToolResult(call_id="", name="g"), result, result))
    items = said(foreign(*turns))[0]["input"][1:]
    assert [item["call_id"] for item in items] == [
        "call_1_0",
        "call_1_1",
        "call_1_2",
        "call_1_1",
        "call_1_0",
        "call_1_2",
    ]
    assert items[4]["output"] == '{"a":1}'
    with pytest.raises(Untranslatable, match="without its call"):
        said(foreign(user(result)))


@pytest.mark.parametrize(
    ("fields", "dropped"),
    [
        ({"sampling": Sampling(top_k=3, seed=1, presence_penalty=1)}, ["top_k", "presence_penalty", "seed"]),
        ({"system": (Text(text="a", marker=CacheMarker()),)}, ["cache_control"]),
        ({"tools": (Tool(name="f", marker=CacheMarker()),)}, ["cache_control"]),
        ({"user": "u" * 65}, ["user"]),
        ({"metadata": {"a": 1}}, ["metadata"]),
        ({"extra": {"service_tier": "auto"}, "harmless": frozenset({"service_tier"})}, ["service_tier"]),
    ],
)
def test_harmless_settings_are_dropped_by_name(fields: dict[str, Any], dropped: list[str]) -> None:
    assert said(foreign(user(), **fields))[1] == dropped


@pytest.mark.parametrize(
    ("part", "dropped"),
    [
        (Thinking(text="Hm.", signature="s", owner=API.ANTHROPIC_MESSAGES), "thinking"),
        (Text(text="a", citations=({"type": "x"},)), "citations"),
        (ToolCall(id="c", name="f", arguments={}, signature="s"), "thought_signature"),
        (Native(owner=API.ANTHROPIC_MESSAGES, kind="ping", value={}, is_harmless=True), "ping"),
    ],
)
def test_harmless_parts_are_dropped_by_name(part: Any, dropped: str) -> None:
    document, names = said(foreign(user(), assistant(part)))
    assert names == [dropped]
    assert "Hm." not in str(document)


def test_a_failed_tools_result_goes_without_its_flag() -> None:
    failed = ToolResult(call_id="c", content=(Text(text="boom"),), is_error=True)
    document, names = said(foreign(user(failed)))
    assert names == ["is_error"]
    assert document["input"][0]["output"] == "boom"
    assert said(foreign(user(replace(failed, is_error=False))))[1] == []


@pytest.mark.parametrize(
    "conversation",
    [
        foreign(user(), stop=("x",)),
        foreign(user(), choices=2),
        foreign(user(), max_output_tokens=15),
        foreign(user(), tools=(ServerTool(owner=API.GEMINI, kind="googleSearch", value={}),)),
        foreign(user(), extra={"container": "c"}),
        foreign(user(Media(kind=MediaKind.AUDIO, media_type="audio/wav", data="QQ=="))),
        foreign(user(Media(kind=MediaKind.IMAGE, media_type="image/heic", data="QQ=="))),
        foreign(user(Media(kind=MediaKind.IMAGE, file_id="file_1"))),
        foreign(user(Media(kind=MediaKind.DOCUMENT, url="gs://bucket/a"))),
        foreign(user(Media(kind=MediaKind.DOCUMENT, media_type="application/x-y", data="QQ=="))),
        foreign(assistant(Media(kind=MediaKind.IMAGE, media_type="image/png", data="QQ=="))),
        foreign(assistant(Native(owner=API.ANTHROPIC_MESSAGES, kind="server_tool_use", value={}))),
    ],
)
def test_what_would_change_the_answer_is_refused(conversation: Conversation) -> None:
    with pytest.raises(Untranslatable):
        said(conversation)


@pytest.mark.parametrize(
    ("reasoning", "said_as"),
    [
        (Reasoning(effort="xhigh"), {"effort": "xhigh"}),
        (Reasoning(budget_tokens=0), {"effort": "none"}),
        (Reasoning(budget_tokens=8192), {"effort": "medium"}),
        (Reasoning(budget_tokens=8193), {"effort": "high"}),
        (Reasoning(budget_tokens=-1), None),
        (Reasoning(adaptive=True), None),
    ],
)
def test_a_thinking_budget_becomes_the_nearest_effort(reasoning: Reasoning, said_as: Any) -> None:
    assert said(foreign(user(), reasoning=reasoning))[0].get("reasoning") == said_as


def test_thoughts_that_came_from_another_provider_are_known_again() -> None:
    """They go back to their own provider with their signature, and never to OpenAI."""
    sealed = marks.seal(API.ANTHROPIC_MESSAGES, "sig", None)
    item = {
        "type": "reasoning",
        "id": marks.item_id("rs", "resp", 0),
        "summary": [{"type": "summary_text", "text": "Hm."}],
        "encrypted_content": sealed,
    }
    call = {
        "type": "function_call",
        "id": marks.item_id("fc", "resp", 1),
        "call_id": "c",
        "name": "f",
        "arguments": "{}",
        "extra_content": marks.with_call_signature("s"),
    }
    image = {"type": "image_generation_call", "id": marks.item_id("ig", "resp", 2), "result": "QQ=="}
    conversation = decoded(asked(input=[item, call, image]))
    assert conversation.turns[0].parts == (Thinking(text="Hm.", signature="sig", owner=API.ANTHROPIC_MESSAGES),)
    tool_call = conversation.turns[1].parts[0]
    assert isinstance(tool_call, ToolCall)
    assert tool_call.signature == "s"
    losses = Losses()
    encoded = TRANSLATOR.encode_request(conversation, model="gpt-5", losses=losses)
    assert losses.names == ["thinking", "thought_signature", "image_generation_call"]
    del call["extra_content"], call["id"]
    assert encoded.document["input"] == [call]


@given(st.text())
def test_only_what_was_sealed_here_is_unsealed(text: str) -> None:
    assert marks.unseal(text) is None
    assert marks.unseal(f"llmsidecar.{text}") is None


@given(st.text())
def test_the_id_of_a_translated_answer_is_known_again(foreign_id: str) -> None:
    response_id = marks.response_id(foreign_id)
    assert response_id.startswith(FOREIGN_ANSWER) != foreign_id.startswith("resp_")


@pytest.mark.parametrize(
    ("api", "reasoning", "asked"),
    [
        (API.ANTHROPIC_MESSAGES, Reasoning(effort="low"), True),
        (API.ANTHROPIC_MESSAGES, Reasoning(effort="none"), False),
        (API.ANTHROPIC_MESSAGES, None, False),
        (API.OPENAI_CHAT, Reasoning(effort="low"), False),
        (API.GEMINI, Reasoning(effort="low"), False),
    ],
)
def test_thoughts_to_hand_back_are_asked_for_where_the_application_can_keep_them(
    api: API, reasoning: Reasoning | None, asked: bool
) -> None:
    conversation = replace(foreign(user(Text(text="x")), reasoning=reasoning), api=api)
    document = TRANSLATOR.encode_request(conversation, model="gpt-5", losses=Losses()).document
    assert (document.get("include") == ["reasoning.encrypted_content"]) is asked
