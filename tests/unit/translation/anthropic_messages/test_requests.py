from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParams
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call
from llm_sidecar.translation.anthropic_messages import AnthropicTranslator
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
from llm_sidecar.translation.losses import Losses, Undecodable, Untranslatable
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
from tests.unit.translation.recordings import each_recorded

TRANSLATOR = AnthropicTranslator()
CALL = Call(api=API.ANTHROPIC_MESSAGES, type=RequestType.GENERATION, path="/v1/messages")
SDK_TYPE: TypeAdapter[Any] = TypeAdapter(MessageCreateParams)
BUDGETED = "claude-sonnet-4-5"
LATER = "claude-opus-4-8"
MODEL = "claude-opus-4-6"
QUESTION = Turn(role=Role.USER, parts=(Text(text="Hi"),))
WEATHER = Tool(name="weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}})


def again(document: Mapping[str, Any]) -> Mapping[str, Any]:
    losses = Losses()
    conversation = TRANSLATOR.decode_request(CALL, document)
    encoded = TRANSLATOR.encode_request(conversation, model=conversation.model, losses=losses)
    assert encoded.path == "/v1/messages"
    assert losses.names == []
    return encoded.document


def foreign(*turns: Turn, **fields: Any) -> Conversation:
    return Conversation(api=API.OPENAI_CHAT, model="gpt", stream=False, turns=turns or (QUESTION,), **fields)


def written(conversation: Conversation, *, model: str = MODEL) -> tuple[dict[str, Any], list[str]]:
    """The document, which the SDK's types take, and what was dropped."""
    losses = Losses()
    document = dict(TRANSLATOR.encode_request(conversation, model=model, losses=losses).document)
    _consume(SDK_TYPE.validate_python(document))
    return document, losses.names


def _consume(value: Any) -> None:
    """Pydantic checks an iterable only when it is read."""
    if isinstance(value, Mapping):
        for each in value.values():
            _consume(each)
    elif isinstance(value, Iterator | list):
        for each in value:
            _consume(each)


def messages(*turns: Turn, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = written(foreign(*turns, **fields))[0]["messages"]
    return found


def user(*parts: Part) -> Turn:
    return Turn(role=Role.USER, parts=parts)


def assistant(*parts: Part) -> Turn:
    return Turn(role=Role.ASSISTANT, parts=parts)


def system(text: str) -> Turn:
    return Turn(role=Role.SYSTEM, parts=(Text(text=text),))


def result(call_id: str, text: str = "sunny", **fields: Any) -> Turn:
    return Turn(role=Role.TOOL, parts=(ToolResult(call_id=call_id, content=(Text(text=text),), **fields),))


def call(call_id: str, name: str = "weather", **fields: Any) -> ToolCall:
    return ToolCall(id=call_id, name=name, arguments={"city": "Rome"}, **fields)


@each_recorded(API.ANTHROPIC_MESSAGES)
def test_a_recorded_request_comes_out_as_it_went_in(exchange: Exchange) -> None:
    assert again(exchange.request) == exchange.request


@each_recorded(API.ANTHROPIC_MESSAGES)
def test_a_recorded_request_keeps_its_meaning_in_the_middle(exchange: Exchange) -> None:
    conversation = TRANSLATOR.decode_request(CALL, exchange.request)
    assert conversation.max_output_tokens == exchange.request.get("max_tokens")
    assert conversation.stream is (exchange.request.get("stream") is True)
    assert [turn.role.value for turn in conversation.turns] == [each["role"] for each in exchange.request["messages"]]
    assert len(conversation.tools) == len(exchange.request.get("tools", ()))
    effort = (exchange.request.get("output_config") or {}).get("effort")
    assert (conversation.reasoning.effort if conversation.reasoning else None) == effort


_MARKERS = st.none() | st.sampled_from(
    [{"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}, {"type": "ephemeral", "scope": "all"}, {"type": "x"}]
)
_TEXT_BLOCKS = st.fixed_dictionaries(
    {"type": st.just("text"), "text": st.text()},
    optional={
        "cache_control": _MARKERS,
        "citations": st.none() | st.just([]) | st.just([{"type": "char_location"}]),
        "unknown": st.integers() | st.none(),
    },
)
_SOURCES = st.sampled_from(
    [
        {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
        {"type": "url", "url": "https://example.com/a"},
        {"type": "file", "file_id": "file_1"},
        {"type": "text", "media_type": "text/plain", "data": "Grüße"},
        {"type": "content", "content": "plain"},
        {"type": "content", "content": [{"type": "text", "text": "in blocks"}]},
        {"type": "unheard_of", "where": 1},
    ]
)
_MEDIA = st.fixed_dictionaries(
    {"type": st.sampled_from(["image", "document"]), "source": _SOURCES},
    optional={
        "cache_control": _MARKERS,
        "title": st.none() | st.text(),
        "context": st.text(),
        "citations": st.just({"enabled": True}),
        "transformations": st.just({"oversized_image": "error"}),
    },
)
_REFERENCES = st.just({"type": "tool_reference", "tool_name": "weather"})
_RESULTS = st.fixed_dictionaries(
    {"type": st.just("tool_result"), "tool_use_id": st.text()},
    optional={
        "content": st.none() | st.text() | st.lists(_TEXT_BLOCKS | _MEDIA | _REFERENCES, max_size=2),
        "is_error": st.booleans() | st.none(),
        "cache_control": _MARKERS,
        "toolset_name": st.text(),
    },
)
_CALLS = st.fixed_dictionaries(
    {
        "type": st.just("tool_use"),
        "id": st.text(),
        "name": st.text(),
        "input": st.dictionaries(st.text(), st.integers(), max_size=1),
    },
    optional={"caller": st.sampled_from([{"type": "direct"}, {"type": "code_execution_20260120", "tool_id": "x"}])},
)
_THOUGHTS = st.fixed_dictionaries(
    {"type": st.just("thinking"), "thinking": st.text()}, optional={"signature": st.sampled_from(["", "EqQB"])}
) | st.just({"type": "redacted_thinking", "data": "EmwK"})
_OTHERS = st.sampled_from(
    [{"type": "compaction", "content": None}, {"type": "server_tool_use", "id": "1", "input": {}}]
)
_CONTENT = st.text() | st.lists(_TEXT_BLOCKS | _MEDIA | _RESULTS | _CALLS | _THOUGHTS | _OTHERS, max_size=3)
_REQUESTS = st.fixed_dictionaries(
    {
        "model": st.just("claude-opus-4-8"),
        "messages": st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "assistant", "system"])},
                optional={"content": st.none() | _CONTENT, "clear_at": st.just("never")},
            ),
            max_size=3,
        ),
    },
    optional={
        "max_tokens": st.integers(),
        "stream": st.booleans() | st.none(),
        "system": st.none() | st.text() | st.lists(_TEXT_BLOCKS | _REFERENCES, max_size=2),
        "stop_sequences": st.none() | st.lists(st.text(), max_size=2),
        "temperature": st.sampled_from([0, 0.5, 1, 1.0, None]),
        "top_p": st.sampled_from([0.5, 1]),
        "top_k": st.integers(),
        "metadata": st.sampled_from([None, {}, {"user_id": None}, {"user_id": "u"}, {"user_id": "u", "more": 1}]),
        "thinking": st.sampled_from(
            [
                None,
                {"type": "disabled"},
                {"type": "between_tools"},
                {"type": "adaptive", "display": "omitted"},
                {"type": "adaptive", "display": None},
                {"type": "enabled", "budget_tokens": 2048, "display": "summarized"},
                {"type": "unheard_of", "budget_tokens": 1, "display": "loud"},
            ]
        ),
        "output_config": st.fixed_dictionaries(
            {},
            optional={
                "effort": st.sampled_from([None, "low", "max", "unheard_of"]),
                "format": st.sampled_from([None, {"type": "json_schema", "schema": {"type": "object"}}, {"type": "x"}]),
                "task_budget": st.just({"type": "tokens", "total": 1}),
            },
        ),
        "tools": st.lists(
            st.sampled_from(
                [
                    {"name": "a", "input_schema": {"type": "object"}},
                    {"name": "b", "input_schema": {}, "type": "custom", "description": "", "strict": False},
                    {"name": "c", "input_schema": {}, "type": None, "defer_loading": True, "cache_control": None},
                    {"name": "web_search", "type": "web_search_20260209"},
                ]
            ),
            max_size=2,
        ),
        "tool_choice": st.sampled_from(
            [
                None,
                {"type": "auto"},
                {"type": "any", "disable_parallel_tool_use": True},
                {"type": "tool", "name": "a"},
                {"type": "none", "unknown": 1},
                {"type": "unheard_of", "name": "a"},
            ]
        ),
        "container": st.none() | st.text(),
        "service_tier": st.just("auto"),
    },
)


@given(_REQUESTS)
def test_whatever_this_api_can_say_comes_out_as_it_went_in(document: dict[str, Any]) -> None:
    assert again(document) == document


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["text", "image", "tool_result"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "content", "source", "role", "input", "cache_control", "ttl", "format"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["messages", "system", "tools", "tool_choice", "thinking", "output_config", "metadata", "stop_sequences"]
        ),
        _JSON | st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": _JSON}), max_size=2),
    )
)
def test_rubbish_raises_nothing_but_our_own(document: dict[str, Any]) -> None:
    try:
        conversation = TRANSLATOR.decode_request(CALL, {"model": "m", "messages": [], **document})
    except Undecodable:
        return
    assert again({"model": "m", "messages": [], **document}) == {"model": "m", "messages": [], **document}
    assert conversation.model == "m"


def test_results_within_results_however_deep_are_kept() -> None:
    content: Any = "x"
    for _ in range(400):
        content = [{"type": "tool_result", "tool_use_id": "a", "content": content}]
    document = {"model": "m", "messages": [{"role": "user", "content": content}]}
    assert again(document) == document


def test_the_older_field_for_a_format_is_read_and_kept() -> None:
    document = {
        "model": "m",
        "messages": [],
        "output_format": {"type": "json_schema", "schema": {"type": "object"}},
        "output_config": {},
    }
    output = TRANSLATOR.decode_request(CALL, document).output
    assert output is not None
    assert output.schema == {"type": "object"}
    assert again(document) == document


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"messages": []}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": ["secret"]}, "messages[0]"),
        ({"model": "m", "messages": [{"role": "secret", "content": ""}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"model": "m", "messages": [], "max_tokens": "secret"}, "max_tokens"),
        ({"model": "m", "messages": [], "stop_sequences": [1]}, "stop_sequences"),
        ({"model": "m", "messages": [], "tools": [{"name": "a", "input_schema": "secret"}]}, "tools[0].input_schema"),
        ({"model": "m", "messages": [], "system": 1}, "system"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_request_is_named_without_its_content(document: dict[str, Any], named: str) -> None:
    with pytest.raises(Undecodable) as refused:
        TRANSLATOR.decode_request(CALL, document)
    assert named in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_plain_foreign_request_names_its_version_and_says_only_what_was_said() -> None:
    encoded = TRANSLATOR.encode_request(foreign(), model=MODEL, losses=Losses())
    assert encoded.headers == (("anthropic-version", "2023-06-01"),)
    assert encoded.document == {
        "model": MODEL,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }


def test_results_of_parallel_calls_stand_in_one_message_right_behind_the_calls() -> None:
    said = messages(
        QUESTION,
        assistant(call("a"), call("b")),
        result("a"),
        system("Be brief."),
        result("b"),
        user(Text(text="And?")),
    )
    assert [each["role"] for each in said] == ["user", "assistant", "user", "system", "user"]
    assert [block["tool_use_id"] for block in said[2]["content"]] == ["a", "b"]
    assert said[3]["content"] == [{"type": "text", "text": "Be brief."}]


def test_a_question_beside_results_comes_after_them() -> None:
    said = messages(QUESTION, assistant(call("a")), user(Text(text="Quick!")), result("a"))
    assert [block["type"] for block in said[2]["content"]] == ["tool_result", "text"]


def test_neighbours_of_one_role_become_one_message() -> None:
    said = messages(QUESTION, user(Text(text="there")), assistant(Text(text="Yes")), assistant(Text(text="?")))
    assert [(each["role"], len(each["content"])) for each in said] == [("user", 2), ("assistant", 2)]


def test_leading_instructions_become_the_system_prompt_and_later_ones_stay() -> None:
    document, dropped = written(
        foreign(system("One."), QUESTION, assistant(Text(text="Hm")), system("Two."), user(Text(text="Go")))
    )
    assert document["system"] == [{"type": "text", "text": "One."}]
    assert [each["role"] for each in document["messages"]] == ["user", "assistant", "user", "system"]
    assert dropped == []


def test_an_instruction_behind_the_last_answer_is_moved_and_named() -> None:
    document, dropped = written(foreign(QUESTION, assistant(Text(text="Hm")), system("Two.")))
    assert document["system"] == [{"type": "text", "text": "Two."}]
    assert dropped == ["messages.system_position"]


def test_instructions_alone_are_asked_as_the_users() -> None:
    document, dropped = written(foreign(system("Tell a joke.")))
    assert document["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Tell a joke."}]}]
    assert "system" not in document
    assert dropped == ["messages.role"]


def test_calls_without_ids_get_them_from_their_position_and_results_find_them() -> None:
    gemini_result = ToolResult(call_id="", name="time", result={"hour": 9})
    said = messages(
        QUESTION,
        assistant(call("", "weather"), call("", "time")),
        user(gemini_result, ToolResult(call_id="", name="weather", result={"sky": "blue"})),
    )
    assert [block["id"] for block in said[1]["content"]] == ["call_1_0", "call_1_1"]
    assert [block["tool_use_id"] for block in said[2]["content"]] == ["call_1_1", "call_1_0"]
    assert said[2]["content"][0]["content"] == '{"hour":9}'


def test_an_id_that_anthropic_would_not_take_is_changed_in_both_places() -> None:
    said = messages(QUESTION, assistant(call("fc:1/a")), result("fc:1/a"))
    assert said[1]["content"][0]["id"] == said[2]["content"][0]["tool_use_id"] == "fc_1_a"


def test_texts_of_nothing_are_left_out() -> None:
    said = messages(QUESTION, assistant(Text(text=""), call("a")), result("a", ""))
    assert [block["type"] for block in said[1]["content"]] == ["tool_use"]
    assert said[2]["content"][0]["content"] == []


def test_media_are_carried_inline_and_by_url() -> None:
    said = messages(
        user(
            Media(kind=MediaKind.IMAGE, media_type="image/png", data="iVBO"),
            Media(kind=MediaKind.IMAGE, url="https://example.com/a.png"),
            Media(kind=MediaKind.DOCUMENT, media_type="application/pdf", data="JVBE", name="a.pdf"),
            Media(kind=MediaKind.DOCUMENT, media_type="text/csv", data="YSxi"),
            Media(kind=MediaKind.DOCUMENT, url="https://example.com/a.pdf", marker=CacheMarker(ttl="1h")),
        )
    )
    assert said[0]["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
            "title": "a.pdf",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a,b"}},
        {
            "type": "document",
            "source": {"type": "url", "url": "https://example.com/a.pdf"},
            "cache_control": {"type": "ephemeral", "ttl": "1h"},
        },
    ]


def _of(part: Part) -> Conversation:
    return foreign(user(part))


@pytest.mark.parametrize(
    "conversation",
    [
        pytest.param(foreign(choices=2), id="several choices"),
        pytest.param(foreign(output=JSONOutput()), id="JSON without a schema"),
        pytest.param(
            foreign(output=JSONOutput(schema={"type": "object", "additionalProperties": {}})), id="open schema"
        ),
        pytest.param(foreign(output=JSONOutput(schema={})), id="schema of anything"),
        pytest.param(foreign(stop=("\n",)), id="stop at white space"),
        pytest.param(foreign(tools=(replace(WEATHER, kind=ToolKind.CUSTOM),)), id="free text tool"),
        pytest.param(foreign(tools=(replace(WEATHER, name="a.b"),)), id="tool name"),
        pytest.param(foreign(tools=(ServerTool(owner=API.OPENAI_CHAT, kind="web", value={}),)), id="server tool"),
        pytest.param(foreign(extra={"audio": {}}), id="unknown field"),
        pytest.param(_of(Media(kind=MediaKind.AUDIO, media_type="audio/wav", data="")), id="audio"),
        pytest.param(_of(Media(kind=MediaKind.IMAGE, media_type="image/tiff", data="")), id="TIFF"),
        pytest.param(_of(Media(kind=MediaKind.IMAGE, file_id="file-1")), id="file"),
        pytest.param(_of(Media(kind=MediaKind.IMAGE, url="gs://a/b")), id="URL of a bucket"),
        pytest.param(_of(Media(kind=MediaKind.DOCUMENT, media_type="application/zip", data="")), id="ZIP"),
        pytest.param(_of(Media(kind=MediaKind.DOCUMENT, media_type="text/plain", data="/w==")), id="not UTF-8"),
        pytest.param(_of(Native(owner=API.GEMINI, kind="executableCode", value={})), id="native"),
        pytest.param(foreign(assistant(ToolCall(id="a", name="f", arguments="{"))), id="arguments that are no JSON"),
        pytest.param(foreign(assistant(call("a", kind=ToolKind.CUSTOM))), id="free text call"),
        pytest.param(foreign(user(ToolResult(call_id="", name="f"))), id="result of no call"),
    ],
)
def test_what_would_change_the_answer_is_refused(conversation: Conversation) -> None:
    with pytest.raises(Untranslatable):
        written(conversation)


def test_what_is_harmless_is_left_out_and_named() -> None:
    document, dropped = written(
        foreign(
            Turn(
                role=Role.USER,
                name="Ann",
                parts=(
                    Text(text="Hi", citations=({},), signature="s"),
                    Media(kind=MediaKind.IMAGE, url="https://example.com/a", detail="low", name="a"),
                    Native(owner=API.OPENAI_CHAT, kind="annotation", value={}, is_harmless=True),
                ),
            ),
            assistant(Thinking(text="Hm", signature="x", owner=API.GEMINI), call("a", signature="sig")),
            result("a"),
            sampling=Sampling(presence_penalty=1, frequency_penalty=0, seed=7),
            logprobs=Logprobs(wanted=True),
            metadata={"k": "v"},
            user="u-1",
            extra={"service_tier": "auto", "verbosity": None},
            harmless=frozenset({"service_tier"}),
        )
    )
    assert dropped == [
        "service_tier",
        "metadata",
        "logprobs",
        "presence_penalty",
        "seed",
        "messages.name",
        "citations",
        "thought_signature",
        "messages.content.detail",
        "messages.content.name",
        "annotation",
        "thinking",
    ]
    assert document["metadata"] == {"user_id": "u-1"}
    assert [block["type"] for block in document["messages"][1]["content"]] == ["tool_use"]


def test_a_refusal_in_the_history_is_said_as_text() -> None:
    assert messages(QUESTION, assistant(Refusal(text="No.")))[1]["content"] == [{"type": "text", "text": "No."}]


def test_thinking_of_another_provider_never_reaches_anthropic_and_finds_its_owner_again() -> None:
    block = {"type": "thinking", "thinking": "Hm", "signature": "llm-sidecar:Gemini:thought:c2ln"}
    call_mark = {"type": "thinking", "thinking": "", "signature": "llm-sidecar:Gemini:call:Y2FsbA=="}
    use = {"type": "tool_use", "id": "a", "name": "weather", "input": {}}
    lost = {"type": "thinking", "thinking": "Hm", "signature": "llm-sidecar:unknown:thought:"}
    document = {"model": "m", "messages": [{"role": "assistant", "content": [block, lost, call_mark, use]}]}
    conversation = TRANSLATOR.decode_request(CALL, document)
    assert conversation.turns[0].parts == (
        Thinking(text="Hm", signature="c2ln", owner=API.GEMINI),
        ToolCall(id="a", name="weather", arguments={}, signature="Y2FsbA=="),
    )
    losses = Losses()
    encoded = TRANSLATOR.encode_request(conversation, model="m", losses=losses)
    assert encoded.document["messages"] == [{"role": "assistant", "content": [use]}]
    assert losses.names == ["thinking", "thought_signature"]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (ToolChoice(use=ToolUse.AUTO), {"type": "auto"}),
        (ToolChoice(use=ToolUse.NONE, parallel=False), {"type": "none"}),
        (ToolChoice(use=ToolUse.ANY, parallel=False), {"type": "any", "disable_parallel_tool_use": True}),
        (ToolChoice(use=ToolUse.NAMED, names=("weather",)), {"type": "tool", "name": "weather"}),
        (ToolChoice(parallel=False), {"type": "auto", "disable_parallel_tool_use": True}),
    ],
    ids=["auto", "none", "any", "named", "only parallel"],
)
def test_a_choice_of_tools_is_carried(choice: ToolChoice, said: dict[str, Any]) -> None:
    document, dropped = written(foreign(tools=(WEATHER,), tool_choice=choice))
    assert document["tool_choice"] == said
    assert dropped == []


def test_only_the_allowed_tools_are_sent() -> None:
    choice = ToolChoice(use=ToolUse.ANY, names=("weather",))
    document, _ = written(foreign(tools=(WEATHER, replace(WEATHER, name="time")), tool_choice=choice))
    assert [tool["name"] for tool in document["tools"]] == ["weather"]
    assert document["tool_choice"] == {"type": "any"}


def test_a_choice_without_tools_is_not_said() -> None:
    assert "tool_choice" not in written(foreign(tool_choice=ToolChoice(use=ToolUse.NONE)))[0]


def test_a_tool_without_parameters_has_an_empty_object() -> None:
    assert written(foreign(tools=(Tool(name="now"),)))[0]["tools"] == [
        {"name": "now", "input_schema": {"type": "object"}}
    ]


def test_a_strict_tool_is_closed_and_another_one_stays_as_it_is() -> None:
    parameters = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 3}}}
    tool = Tool(name="f", parameters=parameters, description="Does.", marker=CacheMarker(ttl="30m"))
    document, dropped = written(foreign(tools=(tool, replace(tool, name="g", strict=True))))
    assert document["tools"] == [
        {
            "name": "f",
            "input_schema": parameters,
            "description": "Does.",
            "cache_control": {"type": "ephemeral"},
        },
        {
            "name": "g",
            "input_schema": {
                "type": "object",
                "properties": {"n": {"type": "integer", "description": "{maximum: 3}"}},
                "additionalProperties": False,
            },
            "description": "Does.",
            "strict": True,
            "cache_control": {"type": "ephemeral"},
        },
    ]
    assert dropped == ["schema.maximum"]


def test_a_schema_that_never_ends_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(150):
        schema = {"type": "array", "items": schema}
    with pytest.raises(Untranslatable):
        written(foreign(output=JSONOutput(schema=schema)))


def test_a_schema_is_closed_and_what_is_not_enforced_becomes_advice() -> None:
    schema = {
        "type": "object",
        "properties": {
            "age": {"type": "integer", "minimum": 0, "description": "In years"},
            "when": {"oneOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}, "minItems": 1, "maxItems": 3},
        },
        "required": ["age"],
        "$defs": {"Tag": {"type": "object", "properties": {"name": {"type": "string"}}}},
    }
    document, dropped = written(foreign(output=JSONOutput(schema=schema, name="person", strict=True)))
    assert document["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "properties": {
                "age": {"type": "integer", "description": "In years\n\n{minimum: 0}"},
                "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
                "tags": {
                    "type": "array",
                    "items": {"$ref": "#/$defs/Tag"},
                    "minItems": 1,
                    "description": "{maxItems: 3}",
                },
            },
            "required": ["age"],
            "additionalProperties": False,
            "$defs": {
                "Tag": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}},
                    "additionalProperties": False,
                }
            },
        },
    }
    assert dropped == ["output.name", "schema.minimum", "schema.maxItems"]


@pytest.mark.parametrize(
    ("model", "reasoning", "said", "effort"),
    [
        (BUDGETED, Reasoning(effort="medium"), {"type": "enabled", "budget_tokens": 8192}, None),
        (BUDGETED, Reasoning(budget_tokens=500), {"type": "enabled", "budget_tokens": 1024}, None),
        (BUDGETED, Reasoning(budget_tokens=-1), {"type": "enabled", "budget_tokens": 16384}, None),
        (BUDGETED, Reasoning(effort="none"), {"type": "disabled"}, None),
        (LATER, Reasoning(effort="xhigh"), {"type": "adaptive"}, "xhigh"),
        (LATER, Reasoning(effort="minimal", visible=True), {"type": "adaptive", "display": "summarized"}, "low"),
        (LATER, Reasoning(budget_tokens=8000), {"type": "adaptive"}, "medium"),
        (LATER, Reasoning(budget_tokens=-1), {"type": "adaptive"}, None),
        (LATER, Reasoning(budget_tokens=0), {"type": "disabled"}, None),
        ("claude-fable-5", Reasoning(budget_tokens=99_999), {"type": "adaptive"}, "max"),
    ],
)
def test_reasoning_is_asked_for_as_the_model_takes_it(
    model: str, reasoning: Reasoning, said: dict[str, Any], effort: str | None
) -> None:
    document, dropped = written(foreign(reasoning=reasoning), model=model)
    assert document["thinking"] == said
    assert document.get("output_config", {}).get("effort") == effort
    assert document["max_tokens"] >= 4096 + said.get("budget_tokens", 0)
    assert dropped == []


def test_a_budget_leaves_room_for_the_answer() -> None:
    document, _ = written(foreign(reasoning=Reasoning(effort="high"), max_output_tokens=4000), model=BUDGETED)
    assert document["thinking"] == {"type": "enabled", "budget_tokens": 3000}
    assert document["max_tokens"] == 4000


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (BUDGETED, {"max_output_tokens": 1000}),
        (BUDGETED, {"tools": (WEATHER,), "tool_choice": ToolChoice(use=ToolUse.ANY)}),
        (LATER, {"tools": (WEATHER,), "tool_choice": ToolChoice(use=ToolUse.ANY)}),
        ("claude-3-5-haiku-latest", {}),
    ],
    ids=["no room", "must call", "must call, later model", "model does not think"],
)
def test_a_wish_to_think_that_cannot_be_is_dropped_and_named(model: str, fields: dict[str, Any]) -> None:
    document, dropped = written(foreign(reasoning=Reasoning(effort="high"), **fields), model=model)
    assert "thinking" not in document
    assert dropped == ["reasoning"]


def test_a_budgeted_model_does_not_begin_to_think_amid_tools() -> None:
    conversation = foreign(QUESTION, assistant(call("a")), result("a"), reasoning=Reasoning(effort="high"))
    assert written(conversation, model=BUDGETED)[1] == ["reasoning"]
    assert written(conversation, model=LATER)[0]["thinking"] == {"type": "adaptive"}


@pytest.mark.parametrize(
    ("model", "budgeted"),
    [
        ("claude-3-7-sonnet-20250219", True),
        ("claude-sonnet-4-20250514", True),
        ("claude-opus-4-0", True),
        ("claude-opus-4-1-20250805", True),
        ("claude-haiku-4-5", True),
        ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ("claude-opus-4@20250514", True),
        ("claude-opus-4-6", False),
        ("claude-opus-4-10", False),
        ("claude-opus-5-20270101", False),
    ],
)
def test_the_name_tells_whether_a_model_takes_a_budget(model: str, budgeted: bool) -> None:
    document, _ = written(foreign(reasoning=Reasoning(effort="low")), model=model)
    assert (document["thinking"]["type"] == "enabled") is budgeted


@pytest.mark.parametrize(
    ("model", "fields", "kept", "dropped"),
    [
        (MODEL, {"sampling": Sampling(temperature=0.2, top_p=1, top_k=40.0)}, {"temperature": 0.2, "top_k": 40}, []),
        (MODEL, {"sampling": Sampling(temperature=0.2, top_p=0.9)}, {"temperature": 0.2}, ["top_p"]),
        (MODEL, {"sampling": Sampling(temperature=1.5, top_p=0.9)}, {"top_p": 0.9}, ["temperature"]),
        (LATER, {"sampling": Sampling(temperature=0.2, top_p=1, top_k=1)}, {}, ["temperature", "top_k"]),
        (
            BUDGETED,
            {"sampling": Sampling(temperature=0, top_p=0.5, top_k=1), "reasoning": Reasoning(effort="low")},
            {},
            ["temperature", "top_p", "top_k"],
        ),
    ],
    ids=["plain", "both", "too hot", "later model", "thinking"],
)
def test_sampling_is_carried_as_far_as_the_model_takes_it(
    model: str, fields: dict[str, Any], kept: dict[str, Any], dropped: list[str]
) -> None:
    document, names = written(foreign(**fields), model=model)
    assert {name: document[name] for name in ("temperature", "top_p", "top_k") if name in document} == kept
    assert names == dropped


def test_stop_sequences_limits_and_streams_are_carried() -> None:
    document, _ = written(replace(foreign(stop=("END",), max_output_tokens=7), stream=True))
    assert (document["stop_sequences"], document["max_tokens"], document["stream"]) == (["END"], 7, True)
