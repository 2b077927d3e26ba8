"""Gemini's requests: what comes back, what other languages' requests become, what is dropped and what refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

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
from llm_sidecar.translation.gemini import GeminiTranslator
from llm_sidecar.translation.gemini.request_encoding import UNSIGNED
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
from tests.unit.formats.streams import call_of
from tests.unit.translation.recordings import each_recorded

PLAIN: Final = "/v1beta/models/gemini-3-flash:generateContent"
TRANSLATOR: Final = GeminiTranslator()
ASKED: Final = {"role": "user", "parts": [{"text": "Hello"}]}
SCHEMA: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
HELLO: Final = Turn(role=Role.USER, parts=(Text(text="Hello"),))
WEATHER: Final = Tool(name="weather", description="Tells the weather", parameters=SCHEMA)
GET: Final = {"name": "get"}
PNG: Final = "iVBORw0KGgo="


def decoded(document: Mapping[str, Any], target: str = PLAIN) -> Conversation:
    return TRANSLATOR.decode_request(call_of(target), document)


def parts_of(*parts: Mapping[str, Any]) -> tuple[Part, ...]:
    return decoded({"contents": [{"role": "user", "parts": list(parts)}]}).turns[0].parts


def again(document: Mapping[str, Any]) -> Mapping[str, Any]:
    losses = Losses()
    encoded = TRANSLATOR.encode_request(decoded(document), model="gemini-3-flash", losses=losses)
    assert losses.names == []
    return encoded.document


def foreign(*turns: Turn, **fields: Any) -> Conversation:
    return Conversation(
        **{"api": API.OPENAI_CHAT, "model": "gpt", "stream": False, "turns": turns or (HELLO,), **fields}
    )


def encoded(conversation: Conversation, *dropped: str, model: str = "gemini-3-flash-preview") -> Mapping[str, Any]:
    """The document for Google, every part of which its SDK must know; `dropped` is all that may be lost."""
    losses = Losses()
    document = TRANSLATOR.encode_request(conversation, model=model, losses=losses).document
    assert losses.names == list(dropped)
    for content in document["contents"]:
        types.Content.model_validate(content)
    for tool in document.get("tools", []):
        types.Tool.model_validate(tool)
    types.Content.model_validate(document.get("systemInstruction", {}))
    types.ToolConfig.model_validate(document.get("toolConfig", {}))
    types.GenerationConfig.model_validate(document.get("generationConfig", {}))
    return document


def foreign_parts(
    *parts: Part, role: Role = Role.USER, model: str = "gemini-3-flash", dropped: tuple[str, ...] = ()
) -> Any:
    turn = Turn(role=role, parts=parts)
    turns = (turn, HELLO) if role is Role.ASSISTANT else (turn,)
    return encoded(foreign(*turns), *dropped, model=model)["contents"][0]["parts"]


def refused(conversation: Conversation, model: str = "gemini-3-flash") -> str:
    with pytest.raises(Untranslatable) as caught:
        TRANSLATOR.encode_request(conversation, model=model, losses=Losses())
    return caught.value.what


def config_of(model: str = "gemini-3-flash", dropped: tuple[str, ...] = (), **fields: Any) -> Mapping[str, Any]:
    config: Mapping[str, Any] = encoded(foreign(**fields), *dropped, model=model).get("generationConfig", {})
    return config


@each_recorded(API.GEMINI)
def test_a_recorded_request_comes_back_as_it_was(exchange: Exchange) -> None:
    call = call_of(exchange.path)
    conversation = TRANSLATOR.decode_request(call, exchange.request)
    losses = Losses()

    sent = TRANSLATOR.encode_request(conversation, model=call.model or "", losses=losses)

    assert sent.document == exchange.request
    assert sent.path == call.path
    assert sent.query == exchange.path.partition("?")[2]
    assert losses.names == []


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"contents": []},
        {"contents": None, "tools": None, "generationConfig": None},
        {"contents": {"parts": {"text": "one"}}},
        {"contents": [{"parts": []}, {}]},
        {"contents": [{"role": "function", "parts": [{"functionResponse": {"name": "f"}}]}]},
        {"system_instruction": {"parts": {"text": "be brief"}}},
        {"systemInstruction": {"role": "system", "parts": [{"text": "a", "partMetadata": {"k": 1}}]}},
        {"systemInstruction": {"parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}]}},
        {"systemInstruction": {}},
        {"model": "models/gemini-3-flash"},
        {"model": "gemini-3-flash", "cachedContent": "cachedContents/1", "labels": {"a": "b"}},
        {"safety_settings": [{"category": "C", "threshold": "T"}]},
        {"tools": []},
        {"tools": [{}]},
        {"tools": {"function_declarations": {"name": "f"}}},
        {"tools": [{"functionDeclarations": []}, {"googleSearch": {}}, {"codeExecution": {}, "urlContext": None}]},
        {"tools": [{"googleSearch": {}, "functionDeclarations": [{"name": "f"}]}, {"functionDeclarations": [GET]}]},
        {"tools": [{"functionDeclarations": [GET | {"parameters": {"type": "OBJECT"}, "behavior": "BLOCKING"}]}]},
        {"tools": [{"functionDeclarations": [GET | {"parametersJsonSchema": {}, "response": {"type": "STRING"}}]}]},
        {"toolConfig": {}},
        {"toolConfig": {"functionCallingConfig": {}}},
        {"tool_config": {"function_calling_config": {"mode": "any", "allowed_function_names": ["f"]}}},
        {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": []}}},
        {"toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["f"]}, "retrievalConfig": {"a": 1}}},
        {"toolConfig": {"functionCallingConfig": {"mode": "SOMETHING_NEW", "streamFunctionCallArguments": True}}},
        {"generationConfig": {}},
        {"generationConfig": {"stopSequences": []}},
        {"generationConfig": {"temperature": 1, "topP": 0.5, "top_k": 40.0, "seed": 1, "candidateCount": 2}},
        {"generationConfig": {"presencePenalty": 0.5, "frequency_penalty": -1, "maxOutputTokens": 9, "new": {}}},
        {"generationConfig": {"responseLogprobs": True, "logprobs": 3}},
        {"generationConfig": {"responseMimeType": "text/plain", "responseModalities": ["TEXT"]}},
        {"generationConfig": {"response_mime_type": "text/x.enum", "responseSchema": {"type": "STRING"}}},
        {"generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}},
        {"generationConfig": {"responseMimeType": "application/json", "response_schema": {"type": "OBJECT"}}},
        {"generationConfig": {"responseJsonSchema": SCHEMA}},
        {"generationConfig": {"responseJsonSchema": SCHEMA, "responseSchema": {"type": "STRING"}}},
        {"generationConfig": {"thinkingConfig": {}}},
        {"generation_config": {"thinking_config": {"thinking_budget": 0, "includeThoughts": False}}},
        {"generationConfig": {"thinkingConfig": {"thinkingLevel": "low"}}},
        {"generationConfig": {"thinkingConfig": {"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED", "new": {"a": 1}}}},
        {"unknown.dotted": {"a": 1}, "generationConfig": {"also.dotted": 2}},
    ],
)  # fmt: skip
def test_a_request_of_any_form_comes_back_as_it_was(document: dict[str, Any]) -> None:
    assert again(document) == document


@pytest.mark.parametrize(
    "part",
    [
        {"text": ""},
        {"text": "a", "thought": False},
        {"text": "a", "thought": True, "thought_signature": "c2ln"},
        {"text": None},
        {},
        {"thoughtSignature": "c2ln"},
        {"inlineData": {"mimeType": "image/png", "data": PNG, "displayName": "n"}, "mediaResolution": {"level": "L"}},
        {"inline_data": {"mime_type": "application/pdf", "data": "_-8"}},
        {"inlineData": {"mimeType": "audio/wav", "data": ""}},
        {"fileData": {"fileUri": "https://host/v1beta/files/1", "mimeType": "text/plain"}},
        {"file_data": {"fileUri": "https://youtu.be/x"}, "videoMetadata": {"fps": 0.2}},
        {"functionCall": {"name": "f"}},
        {"functionCall": {"name": "f", "args": {}, "id": "1"}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "f", "partialArgs": [{"jsonPath": "$.a"}], "willContinue": True}},
        {"functionCall": {"name": "f", "args": None, "id": ""}},
        {"functionResponse": {"name": "f", "response": {}, "willContinue": False, "scheduling": "SILENT"}},
        {"functionResponse": {"name": "f", "response": {"a": 1}, "parts": [{"inlineData": {"data": PNG}}]}},
        {"executableCode": {"code": "1", "language": "PYTHON"}, "thoughtSignature": "c2ln"},
        {"something_new": [1]},
    ],
)  # fmt: skip
def test_a_part_of_any_form_comes_back_as_it_was(part: dict[str, Any]) -> None:
    document = {"contents": [{"role": "model", "parts": [part, {"text": "and more"}]}]}

    assert again(document) == document


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NAMES: Final = (
    "text", "thought", "thoughtSignature", "inlineData", "mimeType", "data", "fileData", "file_uri", "functionCall",
    "name", "args", "id", "function_response", "response", "contents", "parts", "role", "tools", "toolConfig",
    "functionDeclarations", "parameters", "function_calling_config", "mode", "generationConfig", "thinking_config",
    "thinkingLevel", "responseSchema", "responseMimeType", "systemInstruction", "type", "nullable", "model",
)  # fmt: skip
VALUES: Final = JSON | st.sampled_from(["user", "model", "ANY", "LOW", "OBJECT", "application/json", PNG])
NESTED: Final = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, min_size=1, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(NAMES), NESTED, max_size=5))
def test_whatever_is_decoded_comes_back_and_whatever_is_not_is_told(document: dict[str, Any]) -> None:
    try:
        conversation = decoded(document)
    except Undecodable:
        return

    sent = TRANSLATOR.encode_request(conversation, model="gemini-3-flash", losses=Losses()).document

    assert {**sent, "model": None} == {**document, "model": None}


def test_the_path_tells_model_version_and_stream() -> None:
    events = decoded({}, "/v1/models/gemini-3-flash:streamGenerateContent?alt=sse")
    array = decoded({"model": "models/gemini-3-flash"}, "/v1beta/models/gemini-3-flash:streamGenerateContent")

    sent_events = TRANSLATOR.encode_request(events, model="gemini-4", losses=Losses())
    sent_array = TRANSLATOR.encode_request(array, model="gemini-4", losses=Losses())

    assert events.stream
    assert (sent_events.path, sent_events.query) == ("/v1/models/gemini-4:streamGenerateContent", "alt=sse")
    # Google is always asked for events: only what the application reads is an array.
    assert (sent_array.path, sent_array.query) == ("/v1beta/models/gemini-4:streamGenerateContent", "alt=sse")
    assert sent_array.document == {"model": "models/gemini-4"}


def test_text_thoughts_and_signatures_are_told_apart() -> None:
    told = parts_of({"text": "a", "thoughtSignature": "s"}, {"text": "b", "thought": True, "thoughtSignature": "t"})

    assert isinstance(told[0], Text)
    assert isinstance(told[1], Thinking)
    assert (told[0].text, told[0].signature) == ("a", "s")
    assert (told[1].text, told[1].signature, told[1].owner) == ("b", "t", API.GEMINI)


@pytest.mark.parametrize(
    ("part", "kind", "data", "url", "file_id"),
    [
        ({"inlineData": {"mimeType": "image/png", "data": PNG}}, MediaKind.IMAGE, PNG, None, None),
        ({"inlineData": {"mimeType": "application/pdf", "data": "_-8"}}, MediaKind.DOCUMENT, "/+8=", None, None),
        ({"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}, MediaKind.AUDIO, "AAAA", None, None),
        ({"fileData": {"fileUri": "https://a/b.PNG?c"}}, MediaKind.IMAGE, None, "https://a/b.PNG?c", None),
        ({"fileData": {"fileUri": "https://youtu.be/x"}}, MediaKind.VIDEO, None, "https://youtu.be/x", None),
        ({"fileData": {"fileUri": "https://g/v1/files/1"}}, MediaKind.DOCUMENT, None, None, "https://g/v1/files/1"),
        ({"fileData": {"fileUri": "gs://b/c", "mimeType": "video/mp4"}}, MediaKind.VIDEO, None, None, "gs://b/c"),
    ],
)
def test_media_are_inline_public_or_stored(
    part: dict[str, Any], kind: MediaKind, data: str | None, url: str | None, file_id: str | None
) -> None:
    (media,) = parts_of(part)

    assert isinstance(media, Media)
    assert (media.kind, media.data, media.url, media.file_id) == (kind, data, url, file_id)


def test_calls_and_results_without_ids_are_paired_in_order() -> None:
    conversation = decoded(
        {
            "contents": [
                {"role": "model", "parts": [{"functionCall": {"name": name}} for name in ("f", "g", "f")]},
                {"role": "user", "parts": [{"functionResponse": {"name": name}} for name in ("g", "f", "f")]},
                {"role": "model", "parts": [{"functionCall": {"name": "f", "id": "own"}}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "f", "id": "own"}}]},
            ]
        }
    )
    calls = [part.id for turn in conversation.turns for part in turn.parts if isinstance(part, ToolCall)]
    results = [part.call_id for turn in conversation.turns for part in turn.parts if isinstance(part, ToolResult)]

    assert len(set(calls)) == 4
    assert results == [calls[1], calls[0], calls[2], "own"]


def test_a_schema_in_googles_own_words_becomes_json_schema() -> None:
    schema = {
        "type": "OBJECT",
        "propertyOrdering": ["b", "a"],
        "properties": {
            "a": {"type": "STRING", "nullable": True, "format": "enum", "enum": ["x"], "max_length": "3"},
            "b": {"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": 1},
            "c": {"anyOf": [{"type": "NUMBER"}, {"ref": "#/defs/d"}], "nullable": True},
        },
        "defs": {"d": {"type": "BOOLEAN", "nullable": False}},
    }
    conversation = decoded({"generationConfig": {"responseMimeType": "application/json", "responseSchema": schema}})

    assert conversation.output is not None
    told = conversation.output.schema
    assert told == {
        "type": "object",
        "properties": {
            "a": {"type": ["string", "null"], "enum": ["x", None], "maxLength": 3},
            "b": {"type": "array", "items": {"type": "integer"}, "minItems": 1},
            "c": {"anyOf": [{"type": "number"}, {"$ref": "#/defs/d"}, {"type": "null"}]},
        },
        "$defs": {"d": {"type": "boolean"}},
    }
    assert list(told["properties"]) == ["b", "a", "c"]


def test_a_schema_nested_without_end_is_undecodable() -> None:
    schema: dict[str, Any] = {"type": "STRING"}
    for _ in range(200):
        schema = {"type": "ARRAY", "items": schema}

    with pytest.raises(Undecodable, match="too deep"):
        decoded({"generationConfig": {"responseSchema": schema}})


@pytest.mark.parametrize(
    ("calling", "choice"),
    [
        ({"mode": "AUTO"}, ToolChoice(use=ToolUse.AUTO)),
        ({"mode": "NONE"}, ToolChoice(use=ToolUse.NONE)),
        ({"mode": "ANY"}, ToolChoice(use=ToolUse.ANY)),
        ({"mode": "ANY", "allowedFunctionNames": ["f"]}, ToolChoice(use=ToolUse.NAMED, names=("f",))),
        ({"mode": "ANY", "allowedFunctionNames": ["f", "g"]}, ToolChoice(use=ToolUse.ANY, names=("f", "g"))),
        ({"mode": "VALIDATED", "allowedFunctionNames": ["f"]}, ToolChoice(use=ToolUse.AUTO, names=("f",))),
    ],
)
def test_modes_of_calling_mean_choices_of_tools(calling: dict[str, Any], choice: ToolChoice) -> None:
    assert decoded({"toolConfig": {"functionCallingConfig": calling}}).tool_choice == choice
    assert encoded(foreign(tool_choice=choice))["toolConfig"]["functionCallingConfig"] == calling


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ({"contents": "text"}, "contents"),
        ({"contents": [1]}, r"contents\[0\]"),
        ({"contents": [{"role": "system"}]}, r"contents\[0\].role"),
        ({"contents": [{"parts": [{"functionCall": {"args": {}}}]}]}, "functionCall"),
        ({"contents": [{"parts": [{"functionResponse": {}}]}]}, "functionResponse"),
        ({"contents": [{"parts": [{"inlineData": {"data": PNG}}]}]}, "inlineData"),
        ({"contents": [{"parts": [{"inlineData": {"data": "-+", "mimeType": "image/png"}}]}]}, "base64"),
        ({"contents": [{"parts": [{"fileData": {}}]}]}, "fileData"),
        ({"generationConfig": {"maxOutputTokens": "5"}}, "maxOutputTokens"),
        ({"generationConfig": {"stopSequences": [1]}}, "stopSequences"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "functionDeclarations"),
    ],
)
def test_what_is_no_request_is_undecodable_and_the_field_is_named(document: dict[str, Any], what: str) -> None:
    with pytest.raises(Undecodable, match=what):
        decoded(document)


@pytest.mark.parametrize(
    "document",
    [
        {"cachedContent": "cachedContents/1"},
        {"store": True},
        {"systemInstruction": {"parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}]}},
        {"toolConfig": {"retrievalConfig": {"languageCode": "en"}}},
        {"toolConfig": {"functionCallingConfig": {"mode": "SOMETHING_NEW"}}},
        {"generationConfig": {"responseModalities": ["AUDIO"]}},
        {"generationConfig": {"responseMimeType": "text/x.enum"}},
        {"generationConfig": {"thinkingConfig": {"thinkingLevel": "SOMETHING_NEW"}}},
        {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": {}, "parts": [{}]}}]}]},
        {"contents": [{"parts": [{"fileData": {"fileUri": "https://youtu.be/x"}, "videoMetadata": {"fps": 1}}]}]},
    ],
)
def test_what_only_google_can_do_is_refused_elsewhere(document: dict[str, Any]) -> None:
    with pytest.raises(Untranslatable):
        check_conversation(decoded(document), Losses())


def test_what_does_not_change_the_answer_is_named_elsewhere() -> None:
    losses = Losses()
    conversation = decoded(
        {
            "contents": [{"parts": [{"text": "a", "partMetadata": {}}, {"text": "b", "thought": False}]}],
            "safety_settings": [{}],
            "generationConfig": {"mediaResolution": "LOW", "responseModalities": ["TEXT"], "thinkingConfig": {}},
            "tools": [{"functionDeclarations": [{"name": "f", "response": {"type": "STRING"}}]}],
        }
    )

    check_conversation(conversation, losses)

    assert losses.names == [
        "safety_settings",
        "generationConfig.mediaResolution",
        "messages.content.partMetadata",
        "tools.response",
    ]


def test_turns_are_joined_so_that_they_alternate() -> None:
    contents = encoded(
        foreign(
            Turn(role=Role.USER, parts=(Text(text="a"),)),
            Turn(role=Role.USER, parts=(Text(text="b"),)),
            Turn(role=Role.ASSISTANT, parts=(ToolCall(id="1", name="f", arguments='{"x":1}'),)),
            Turn(role=Role.ASSISTANT, parts=(ToolCall(id="2", name="g", arguments=""),)),
            Turn(role=Role.TOOL, parts=(ToolResult(call_id="2", content=(Text(text="two"),)),)),
            Turn(role=Role.TOOL, parts=(ToolResult(call_id="1", content=(Text(text="one"),), is_error=True),)),
            Turn(role=Role.USER, parts=(Text(text="c"),)),
        )
    )["contents"]

    assert contents == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        {
            "role": "model",
            "parts": [
                {"functionCall": {"id": "1", "name": "f", "args": {"x": 1}}, "thoughtSignature": UNSIGNED},
                {"functionCall": {"id": "2", "name": "g", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "2", "name": "g", "response": {"output": "two"}}},
                {"functionResponse": {"id": "1", "name": "f", "response": {"error": "one"}}},
                {"text": "c"},
            ],
        },
    ]


def test_an_empty_text_beside_a_call_is_left_out() -> None:
    call = ToolCall(id="1", name="f", arguments={}, signature="c2ln")

    assert [list(part) for part in foreign_parts(Text(text=""), call, role=Role.ASSISTANT)] == [
        ["functionCall", "thoughtSignature"]
    ]


def test_a_reused_call_id_means_the_call_before_it() -> None:
    def round_of(name: str) -> tuple[Turn, Turn]:
        return (
            Turn(role=Role.ASSISTANT, parts=(ToolCall(id="call_0", name=name, arguments={}),)),
            Turn(role=Role.TOOL, parts=(ToolResult(call_id="call_0", content=(Text(text="x"),)),)),
        )

    contents = encoded(foreign(HELLO, *round_of("f"), *round_of("g")))["contents"]

    assert [contents[index]["parts"][0]["functionResponse"]["name"] for index in (2, 4)] == ["f", "g"]


def test_instructions_stand_beside_the_messages() -> None:
    late = foreign(
        Turn(role=Role.SYSTEM, parts=(Text(text="b"),)),
        HELLO,
        Turn(role=Role.SYSTEM, parts=(Text(text="c"),)),
        system=(Text(text="a", marker=CacheMarker()),),
    )

    document = encoded(late, "messages.system_position", "cache_control")

    assert document["systemInstruction"] == {"parts": [{"text": "a"}, {"text": "b"}, {"text": "c"}]}
    assert document["contents"] == [ASKED]


def test_a_signature_of_googles_is_kept_and_only_new_models_get_a_substitute() -> None:
    signed = ToolCall(id="1", name="f", arguments={}, signature="b3du")
    unsigned = ToolCall(id="1", name="f", arguments={})
    turns = (Turn(role=Role.TOOL, parts=(ToolResult(call_id="1"),)),)

    def signature(call: ToolCall, model: str) -> str | None:
        contents = encoded(foreign(Turn(role=Role.ASSISTANT, parts=(call,)), *turns), model=model)["contents"]
        told: str | None = contents[0]["parts"][0].get("thoughtSignature")
        return told

    assert signature(signed, "gemini-3-pro-preview") == "b3du"
    assert signature(signed, "gemini-2.5-flash") == "b3du"
    assert signature(unsigned, "gemini-3-pro-preview") == UNSIGNED
    assert signature(unsigned, "gemini-flash-latest") == UNSIGNED
    assert signature(unsigned, "gemini-2.5-flash") is None


def test_thoughts_of_another_api_are_dropped_and_told() -> None:
    thought = Thinking(text="secret", signature="s", owner=API.ANTHROPIC_MESSAGES)

    assert foreign_parts(thought, Text(text="a"), role=Role.ASSISTANT, dropped=("thinking",)) == [{"text": "a"}]


def test_media_become_inline_data_and_addresses() -> None:
    image = Media(kind=MediaKind.IMAGE, media_type="image/png", data=PNG, detail="low", marker=CacheMarker())
    named = Media(kind=MediaKind.DOCUMENT, media_type="application/pdf", data="AAAA", name="a.pdf")
    linked = Media(kind=MediaKind.IMAGE, url="https://host/a.JPG?size=1")

    assert foreign_parts(
        image, named, linked, dropped=("cache_control", "messages.content.detail", "messages.content.name")
    ) == [
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}},
        {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://host/a.JPG?size=1"}},
    ]


def test_an_image_in_a_tools_result_goes_to_models_that_read_it() -> None:
    image = Media(kind=MediaKind.IMAGE, media_type="image/png", data=PNG)
    result = ToolResult(call_id="1", name="f", content=(Text(text="see"), image))

    assert foreign_parts(result, role=Role.TOOL) == [
        {
            "functionResponse": {
                "id": "1",
                "name": "f",
                "response": {"output": "see"},
                "parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}],
            }
        }
    ]
    assert "tool's result" in refused(foreign(Turn(role=Role.TOOL, parts=(result,))), "gemini-2.5-flash")


def test_settings_are_carried_in_googles_words() -> None:
    config = config_of(
        sampling=Sampling(
            temperature=0.5, top_p=0.9, top_k=40, presence_penalty=1, frequency_penalty=-1, seed=7
        ),
        choices=2,
        max_output_tokens=100,
        stop=("a", "b"),
        output=JSONOutput(schema=SCHEMA, name="city", strict=True),
        logprobs=Logprobs(wanted=True, top=2),
        dropped=("logprobs", "output.name"),
    )  # fmt: skip

    assert config == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 40,
        "presencePenalty": 1,
        "frequencyPenalty": -1,
        "seed": 7,
        "candidateCount": 2,
        "maxOutputTokens": 100,
        "stopSequences": ["a", "b"],
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
    }


def test_nothing_is_said_that_was_not_asked_for() -> None:
    assert encoded(foreign()) == {"contents": [ASKED]}


def test_tools_are_declared_with_json_schema() -> None:
    strict = Tool(name="f", strict=True, marker=CacheMarker(ttl="1h"))

    assert encoded(foreign(tools=(WEATHER, strict)), "cache_control", "tools.strict")["tools"] == [
        {
            "functionDeclarations": [
                {"name": "weather", "description": "Tells the weather", "parametersJsonSchema": SCHEMA},
                {"name": "f"},
            ]
        }
    ]


@pytest.mark.parametrize(
    ("model", "reasoning", "config"),
    [
        ("gemini-3-flash", Reasoning(effort="none"), {"thinkingLevel": "MINIMAL"}),
        ("gemini-3-flash", Reasoning(effort="low", visible=True), {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-3-pro-preview", Reasoning(effort="minimal"), {"thinkingLevel": "LOW"}),
        ("gemini-3-pro-preview", Reasoning(effort="medium"), {"thinkingLevel": "HIGH"}),
        ("gemini-3.1-pro", Reasoning(effort="medium"), {"thinkingLevel": "MEDIUM"}),
        ("gemini-flash-latest", Reasoning(effort="max"), {"thinkingLevel": "HIGH"}),
        ("gemini-3-flash", Reasoning(budget_tokens=2000), {"thinkingBudget": 2000}),
        ("gemini-3-flash", Reasoning(budget_tokens=0), {"thinkingLevel": "MINIMAL"}),
        ("gemini-3-flash", Reasoning(effort="low", budget_tokens=2000), {"thinkingLevel": "LOW"}),
        ("gemini-2.5-flash", Reasoning(effort="none"), {"thinkingBudget": 0}),
        ("gemini-2.5-pro", Reasoning(effort="none"), {"thinkingBudget": 128}),
        ("gemini-2.5-flash", Reasoning(effort="high"), {"thinkingBudget": 24_576}),
        ("gemini-2.5-flash", Reasoning(budget_tokens=64_000), {"thinkingBudget": 24_576}),
        ("gemini-2.5-flash", Reasoning(adaptive=True), {"thinkingBudget": -1}),
        ("gemini-2.5-flash", Reasoning(visible=False), {"includeThoughts": False}),
    ],
)  # fmt: skip
def test_thinking_is_told_as_the_model_understands_it(model: str, reasoning: Reasoning, config: dict[str, Any]) -> None:
    assert config_of(model, reasoning=reasoning) == {"thinkingConfig": config}


def test_an_effort_that_nobody_knows_is_dropped_and_told() -> None:
    assert config_of(reasoning=Reasoning(effort="heroic"), dropped=("reasoning.effort",)) == {}
    assert config_of(reasoning=Reasoning()) == {}


def test_a_result_object_of_another_api_is_kept_and_marked_text_told() -> None:
    told = ToolResult(call_id="1", name="f", result={"a": 1})
    marked = ToolResult(call_id="2", name="f", content=(Text(text="x", marker=CacheMarker()),))

    parts = foreign_parts(told, marked, dropped=("cache_control",))

    assert [part["functionResponse"]["response"] for part in parts] == [{"a": 1}, {"output": "x"}]


def test_the_path_must_name_the_model() -> None:
    with pytest.raises(Undecodable, match="path"):
        TRANSLATOR.decode_request(Call(api=API.GEMINI, type=RequestType.GENERATION, path="/v1/models"), {})


def test_a_model_that_cannot_think_is_not_asked_to() -> None:
    assert config_of("gemini-2.0-flash", ("reasoning",), reasoning=Reasoning(effort="high")) == {}
    assert config_of("gemma-3-27b-it", ("reasoning",), reasoning=Reasoning(effort="high")) == {}


def test_what_only_identifies_is_dropped_and_told() -> None:
    conversation = foreign(
        Turn(role=Role.USER, name="ann", parts=(Text(text="Hello", citations=({"a": 1},)),)),
        user="u",
        metadata={"a": "b"},
        extra={"service_tier": "auto", "$form": 1},
        harmless=frozenset({"service_tier"}),
    )

    assert encoded(conversation, "service_tier", "user", "metadata", "messages.name", "citations") == {
        "contents": [ASKED]
    }


@pytest.mark.parametrize(
    ("conversation", "what"),
    [
        (foreign(extra={"store": True}), "`store`"),
        (foreign(tools=(ServerTool(owner=API.OPENAI_RESPONSES, kind="web_search", value={}),)), "web_search"),
        (foreign(tools=(Tool(name="f", kind=ToolKind.CUSTOM),)), "free text"),
        (foreign(tools=(WEATHER,), tool_choice=ToolChoice(parallel=False)), "one tool call at a time"),
        (foreign(stop=("a", "b", "c", "d", "e", "f")), "5 stop sequences"),
        (foreign(choices=9), "8 choices"),
        (
            foreign(Turn(role=Role.TOOL, parts=(ToolResult(call_id="1", name="f", kind=ToolKind.CUSTOM),))),
            "takes free text",
        ),
        (
            foreign(HELLO, Turn(role=Role.SYSTEM, parts=(Media(kind=MediaKind.IMAGE, url="https://host/a"),))),
            "instructions that are not text",
        ),
        (foreign(tools=(Tool(name="1st"),)), "begin with a letter"),
        (foreign(Turn(role=Role.USER, parts=(Text(text=""),))), "without a message"),
        (foreign(Turn(role=Role.SYSTEM, parts=(Text(text="a"),))), "without a message"),
        (foreign(HELLO, Turn(role=Role.ASSISTANT, parts=(Text(text="I"),))), "begins itself"),
        (
            foreign(Turn(role=Role.USER, parts=(Media(kind=MediaKind.IMAGE, file_id="f"),))),
            "stored at its provider",
        ),
        (
            foreign(Turn(role=Role.USER, parts=(Media(kind=MediaKind.IMAGE, media_type="image/gif", data="AAAA"),))),
            "image/gif",
        ),
        (
            foreign(Turn(role=Role.USER, parts=(Native(owner=API.OPENAI_CHAT, kind="audio", value={}),))),
            "audio",
        ),
        (foreign(Turn(role=Role.TOOL, parts=(ToolResult(call_id="1"),))), "nobody called"),
        (
            foreign(Turn(role=Role.ASSISTANT, parts=(ToolCall(id="1", name="f", arguments="{no"),)), HELLO),
            "no JSON object",
        ),
    ],
)
def test_what_would_change_the_answer_is_refused(conversation: Conversation, what: str) -> None:
    assert what in refused(conversation)


def test_older_models_are_not_sent_what_they_refuse() -> None:
    linked = Turn(role=Role.USER, parts=(Media(kind=MediaKind.IMAGE, url="https://host/a.png"),))

    assert "by its address" in refused(foreign(linked), "gemini-2.0-flash")
    assert "together with tools" in refused(
        foreign(tools=(WEATHER,), output=JSONOutput(schema=SCHEMA)), "gemini-2.5-flash"
    )


def test_a_harmless_native_part_is_dropped_and_a_refusal_is_text() -> None:
    native = Native(owner=API.OPENAI_RESPONSES, kind="item_reference", value={}, is_harmless=True)

    parts = foreign_parts(native, Refusal(text="No."), role=Role.ASSISTANT, dropped=("item_reference",))

    assert parts == [{"text": "No."}]
