"""Of all that the SDKs can put into a request, only what is text in the body has a bound.

The types are read from the SDKs that are installed: one that a new version adds has no bound until it is named here.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Any

import orjson
import pytest
from anthropic.types import ContentBlockParam, ToolUnionParam, message_create_params, tool_result_block_param
from anthropic.types.beta import BetaContentBlockParam, BetaToolUnionParam, beta_tool_result_block_param
from anthropic.types.beta import message_create_params as beta_create_params
from google.genai import types as gemini
from openai.types import embedding_create_params
from openai.types.chat import ChatCompletionToolUnionParam, completion_create_params
from openai.types.chat import chat_completion_assistant_message_param as assistant
from openai.types.chat import chat_completion_content_part_param as chat_parts
from openai.types.chat import chat_completion_message_tool_call_union_param as chat_calls
from openai.types.responses import response_create_params, response_custom_tool_call_output_param, tool_param
from openai.types.responses import response_function_call_output_item_list_param as function_output
from openai.types.responses import response_input_item_param as items
from openai.types.responses import response_input_message_content_list_param as input_contents
from openai.types.responses import response_output_message_param as output_message
from pydantic.alias_generators import to_camel
from typing_extensions import is_typeddict

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.input_bound import input_tokens_at_most
from llm_sidecar.formats.registry import FORMATS

Build = Callable[[Any], dict[str, Any]]


def is_bounded(api: API, body: Mapping[str, Any]) -> bool:
    call = Call(api=api, type=RequestType.GENERATION, path="/", model="m" if api is API.GEMINI else None)
    named = body if api is API.GEMINI or "model" in body else {"model": "m", **body}
    return input_tokens_at_most(FORMATS[api].parse_request(call, orjson.dumps(named))) is not None


def alternatives(hint: Any) -> Iterator[Any]:
    """What a value may be, unions and wrappers taken apart."""
    hint = getattr(hint, "__value__", hint)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, UnionType):
        for one in typing.get_args(hint):
            yield from alternatives(one)
    elif origin is not None and getattr(origin, "__name__", "") in {"Required", "NotRequired", "Annotated"}:
        yield from alternatives(typing.get_args(hint)[0])
    elif hint is not NoneType:
        yield hint


def part_types(hint: Any) -> Iterator[Any]:
    """The typed dictionaries of a union, or of the arrays in it."""
    for one in alternatives(hint):
        if is_typeddict(one):
            yield one
        elif (
            typing.get_origin(one) is not None and typing.get_args(one) and typing.get_origin(one) is not typing.Literal
        ):
            yield from part_types(typing.get_args(one)[0])


def is_required(hint: Any) -> bool:
    return getattr(typing.get_origin(hint), "__name__", getattr(typing.get_origin(hint), "_name", "")) == "Required"


def sample(hint: Any) -> Any:
    """The least that a type demands."""
    one = next(alternatives(hint))
    if is_typeddict(one):
        hints = typing.get_type_hints(one, include_extras=True)
        return {name: sample(hint) for name, hint in hints.items() if name == "type" or is_required(hint)}
    if typing.get_origin(one) is typing.Literal:
        return typing.get_args(one)[0]
    if one in (str, int, float, bool):
        return one("1")
    arguments = typing.get_args(one)
    is_array = arguments and not issubclass(typing.get_origin(one) or dict, Mapping)
    return [sample(arguments[0])] if is_array else {"a": "b"}


def chat(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hello"}, message]}


def response(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"store": False, "input": [{"role": "user", "content": "hello"}, item]}


def answered(part: Mapping[str, Any]) -> dict[str, Any]:
    told = {**part, "annotations": []} if "annotations" in part else part  # a sample's would name a stored file
    return response({"type": "message", "role": "assistant", "id": "msg_1", "content": [told]})


def messages(block: Mapping[str, Any]) -> dict[str, Any]:
    return {"max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}, block]}]}


def tool_result(block: Mapping[str, Any]) -> dict[str, Any]:
    return messages({"type": "tool_result", "tool_use_id": "t", "content": [block]})


def called(kind: str) -> Build:
    return lambda part: response({"type": kind, "call_id": "c", "output": [part]})


CHAT_TEXTS = {"text", "refusal"}
OUTPUT_TEXTS = {"output_text", "refusal"}
ITEMS = {"message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"}
BLOCKS = {"text", "tool_use", "tool_result"}
OWN_TOOLS = {"function", "custom"}
PLACES: dict[str, tuple[API, Any, Build, set[str]]] = {
    "chat part": (
        API.OPENAI_CHAT,
        chat_parts.ChatCompletionContentPartParam,
        lambda part: chat({"role": "user", "content": [part]}),
        CHAT_TEXTS,
    ),
    "chat answer": (
        API.OPENAI_CHAT,
        assistant.ContentArrayOfContentPart,
        lambda part: chat({"role": "assistant", "content": [part]}),
        CHAT_TEXTS,
    ),
    "chat call": (
        API.OPENAI_CHAT,
        chat_calls.ChatCompletionMessageToolCallUnionParam,
        lambda call: chat({"role": "assistant", "tool_calls": [call]}),
        OWN_TOOLS,
    ),
    "chat tool": (
        API.OPENAI_CHAT,
        ChatCompletionToolUnionParam,
        lambda tool: {**chat({"role": "user", "content": "hello"}), "tools": [tool]},
        OWN_TOOLS,
    ),
    "responses item": (API.OPENAI_RESPONSES, items.ResponseInputItemParam, response, ITEMS),
    "responses part": (
        API.OPENAI_RESPONSES,
        input_contents.ResponseInputContentParam,
        lambda part: response({"role": "user", "content": [part]}),
        {"input_text"},
    ),
    "responses answer": (
        API.OPENAI_RESPONSES,
        output_message.Content,
        answered,
        OUTPUT_TEXTS,
    ),
    "function's output": (
        API.OPENAI_RESPONSES,
        function_output.ResponseFunctionCallOutputItemParam,
        called("function_call_output"),
        {"input_text"},
    ),
    "custom tool's output": (
        API.OPENAI_RESPONSES,
        response_custom_tool_call_output_param.OutputOutputContentList,
        called("custom_tool_call_output"),
        {"input_text"},
    ),
    "responses tool": (
        API.OPENAI_RESPONSES,
        tool_param.ToolParam,
        lambda tool: {"store": False, "input": "hello", "tools": [tool]},
        OWN_TOOLS,
    ),
    "block": (API.ANTHROPIC_MESSAGES, ContentBlockParam, messages, BLOCKS),
    "beta block": (API.ANTHROPIC_MESSAGES, BetaContentBlockParam, messages, BLOCKS),
    "tool's result": (API.ANTHROPIC_MESSAGES, tool_result_block_param.Content, tool_result, {"text"}),
    "beta tool's result": (API.ANTHROPIC_MESSAGES, beta_tool_result_block_param.Content, tool_result, {"text"}),
    "tool": (
        API.ANTHROPIC_MESSAGES,
        ToolUnionParam,
        lambda tool: {**messages({"type": "text", "text": "a"}), "tools": [tool]},
        {"custom"},
    ),
    "beta tool": (
        API.ANTHROPIC_MESSAGES,
        BetaToolUnionParam,
        lambda tool: {**messages({"type": "text", "text": "a"}), "tools": [tool]},
        {"custom"},
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_only_the_sdks_text_parts_have_a_bound(place: str) -> None:
    api, union, build, texts = PLACES[place]
    told: dict[str, bool] = {}
    for one in part_types(union):
        part = sample(one)
        told[f"{one.__name__} {part.get('type')}"] = is_bounded(api, build(part))
    bounded = {name.rsplit(" ", 1)[1] for name, is_one in told.items() if is_one}
    assert bounded == texts & {name.rsplit(" ", 1)[1] for name in told}, told
    assert bounded
    assert all(not is_one or name.rsplit(" ", 1)[1] in texts for name, is_one in told.items()), told


FIELDS = {"text": "a", "thought": True, "function_call": {"name": "f"}, "function_response": {"response": {}}}


@pytest.mark.parametrize("spelled", [str, to_camel], ids=["snake", "camel"])
def test_only_the_text_fields_of_geminis_parts_have_a_bound(spelled: Callable[[str], str]) -> None:
    for field in gemini.Part.model_fields:
        part = {spelled(field): FIELDS.get(field, {"a": "b"})}
        assert is_bounded(API.GEMINI, {"contents": [{"role": "user", "parts": [part]}]}) == (field in FIELDS), field
    for field in gemini.Tool.model_fields:
        tool = {spelled(field): [{"name": "f"}] if field == "function_declarations" else {"a": "b"}}
        bounded = is_bounded(API.GEMINI, {"contents": [{"parts": [{"text": "a"}]}], "tools": [tool]})
        assert bounded == (field == "function_declarations"), field


def test_a_functions_response_in_parts_has_no_bound() -> None:
    for field in gemini.FunctionResponsePart.model_fields:
        answer = {"functionResponse": {"response": {}, "parts": [{field: {"a": "b"}}]}}
        assert not is_bounded(API.GEMINI, {"contents": [{"parts": [answer]}]})


CHAT_BODY = chat({"role": "user", "content": "a"})
ELSEWHERE: dict[str, tuple[API, Any, dict[str, Any], set[str]]] = {
    "chat": (
        API.OPENAI_CHAT,
        completion_create_params.CompletionCreateParamsNonStreaming,
        CHAT_BODY,
        {"web_search_options", "moderation"},
    ),
    "responses": (
        API.OPENAI_RESPONSES,
        response_create_params.ResponseCreateParamsNonStreaming,
        {"store": False, "input": "a"},
        {"previous_response_id", "conversation", "prompt", "context_management", "image"},
    ),
    "messages": (
        API.ANTHROPIC_MESSAGES,
        message_create_params.MessageCreateParamsNonStreaming,
        messages({"type": "text", "text": "a"}),
        {"container", "diagnostics"},
    ),
    "beta messages": (
        API.ANTHROPIC_MESSAGES,
        beta_create_params.MessageCreateParamsNonStreaming,
        messages({"type": "text", "text": "a"}),
        {"mcp_servers", "container", "context_management", "compaction", "thread", "fallbacks"},
    ),
    "embeddings": (API.OPENAI_EMBEDDINGS, embedding_create_params.EmbeddingCreateParams, {"input": "a"}, set()),
}


@pytest.mark.parametrize("place", ELSEWHERE)
def test_members_that_bring_input_from_elsewhere_have_no_bound(place: str) -> None:
    api, params, body, elsewhere = ELSEWHERE[place]
    hints = typing.get_type_hints(params)
    assert is_bounded(api, body)
    for name in elsewhere & hints.keys():
        assert not is_bounded(api, {**body, name: sample(hints[name]) or "one"}), name
    for name in ("temperature", "top_p", "user", "metadata", "stop", "service_tier", "max_tokens"):
        if name in hints:
            assert is_bounded(api, {**body, name: sample(hints[name])}), name
    assert not is_bounded(api, {**body, "attachments_of_tomorrow": "https://example.com/a.mp4"})
