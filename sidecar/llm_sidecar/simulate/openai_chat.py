"""OpenAI's `chat/completions`: its request read, its answer and its stream written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from llm_sidecar.simulate.answer import (
    TOKENS_PER_IMAGE,
    TOKENS_PER_MESSAGE,
    Answer,
    Finish,
    Frame,
    JSONObject,
    Prompt,
    Stamp,
    Tool,
    count_tokens,
    split,
)
from llm_sidecar.simulate.errors import Family, invalid_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_sidecar.simulate.answer import Usage

_FINISH = {
    Finish.STOP: "stop",
    Finish.STOP_SEQUENCE: "stop",
    Finish.LENGTH: "length",
    Finish.TOOL: "tool_calls",
}


def read(body: JSONObject) -> Prompt:
    """Read a request, or refuse it as OpenAI would."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        message = "Missing required parameter: 'messages'."
        raise invalid_request(Family.OPENAI, message, param="messages", code="missing_required_parameter")
    tools = tuple(
        Tool(name=tool["function"]["name"], schema=tool["function"].get("parameters"))
        for tool in body.get("tools") or ()
        if tool.get("type") == "function"
    )
    choice = body.get("tool_choice")
    characters, images = _size(messages)
    stream = body.get("stream") is True
    return Prompt(
        model=body["model"],
        text=next((_text(each) for each in reversed(messages) if each.get("role") == "user"), ""),
        tool_result=_text(messages[-1]) if messages[-1].get("role") == "tool" else None,
        input_tokens=count_tokens(characters + (len(orjson.dumps(body["tools"])) if tools else 0))
        + TOKENS_PER_MESSAGE * len(messages)
        + TOKENS_PER_IMAGE * images,
        image_count=images,
        tools=tools,
        must_call=_must_call(choice, tools),
        may_call=choice != "none",
        parallel=body.get("parallel_tool_calls") is not False,
        schema=_schema(body.get("response_format")),
        thinking=body.get("reasoning_effort") not in (None, "none"),
        maximum_output_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        stop_sequences=_listed(body.get("stop")),
        answer_count=body.get("n") or 1,
        stream=stream,
        include_usage=not stream or bool((body.get("stream_options") or {}).get("include_usage")),
    )


def usage_of(usage: Usage) -> JSONObject:
    """Return usage as this API tells it: cached tokens inside the prompt, reasoning inside the completion."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.thinking_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def plain(prompt: Prompt, answer: Answer, stamp: Stamp) -> JSONObject:
    """Write the answer as one JSON object."""
    message: JSONObject = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
    if answer.tool_calls:
        message |= {"content": None, "tool_calls": None}
    choices = []
    for index in range(prompt.answer_count):
        said = dict(message)
        if answer.tool_calls:
            said["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for call_id, name, arguments in _calls(answer, stamp, index)
            ]
        choices.append({"index": index, "message": said, "logprobs": None, "finish_reason": _FINISH[answer.finish]})
    whole = _head(prompt, stamp, "chat.completion") | {"choices": choices}
    return whole | {"usage": usage_of(answer.usage)} if answer.tell_usage else whole


def frames(prompt: Prompt, answer: Answer, stamp: Stamp) -> Iterator[Frame]:
    """Write the answer as a stream; its last frame is `[DONE]`, without which it is not complete."""
    head = _head(prompt, stamp, "chat.completion.chunk")
    wants_usage = prompt.include_usage and answer.tell_usage
    rest: JSONObject = {"usage": None} if wants_usage else {}

    def chunk(index: int, delta: JSONObject, finish: str | None = None) -> JSONObject:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**head, "choices": [choice], **rest}

    for index in range(prompt.answer_count):
        if answer.tool_calls:
            yield from _call_frames(answer, stamp, index, chunk)
        else:
            yield Frame(chunk(index, {"role": "assistant", "content": "", "refusal": None}))
            for piece in answer.pieces:
                yield Frame(chunk(index, {"content": piece}), piece=piece)
    for index in range(prompt.answer_count):
        yield Frame(chunk(index, {}, _FINISH[answer.finish]), terminal=True)
    if wants_usage:
        yield Frame({**head, "choices": [], "usage": usage_of(answer.usage)}, terminal=True, tells=answer.usage)
    yield Frame("[DONE]", terminal=True)


def _call_frames(answer: Answer, stamp: Stamp, index: int, chunk: Any) -> Iterator[Frame]:
    opening: JSONObject = {"role": "assistant", "content": None}
    for position, (call_id, name, arguments) in enumerate(_calls(answer, stamp, index)):
        function = {"name": name, "arguments": ""}
        call: JSONObject = {"index": position, "id": call_id, "type": "function", "function": function}
        delta = {"tool_calls": [call]} if position else {**opening, "tool_calls": [call], "refusal": None}
        yield Frame(chunk(index, delta), piece=name)
        for piece in split(arguments, 3):
            part = {"index": position, "function": {"arguments": piece}}
            yield Frame(chunk(index, {"tool_calls": [part]}), piece=piece)


def _calls(answer: Answer, stamp: Stamp, index: int) -> list[tuple[str, str, str]]:
    return [
        ("call_" + stamp.token(f"call/{index}/{position}", 24), call.name, call.arguments_json)
        for position, call in enumerate(answer.tool_calls)
    ]


def _head(prompt: Prompt, stamp: Stamp, kind: str) -> JSONObject:
    return {
        "id": "chatcmpl-" + stamp.token("chat", 29),
        "object": kind,
        "created": stamp.created_seconds,
        "model": prompt.model,
        "service_tier": "default",
        "system_fingerprint": "fp_" + stamp.hexadecimal("fingerprint", 10),
    }


def _text(message: JSONObject) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(part["text"] for part in content if part.get("type") == "text")
    return content or ""


def _size(messages: list[JSONObject]) -> tuple[int, int]:
    characters = images = 0
    for message in messages:
        characters += len(_text(message))
        for call in message.get("tool_calls") or ():
            characters += len(call["function"]["name"]) + len(call["function"]["arguments"])
        if isinstance(message.get("content"), list):
            images += sum(part.get("type") not in ("text", "refusal") for part in message["content"])
    return characters, images


def _must_call(choice: Any, tools: tuple[Tool, ...]) -> tuple[str, ...]:
    if choice == "required":
        return tuple(tool.name for tool in tools)
    if isinstance(choice, dict) and choice.get("type") == "function":
        return (choice["function"]["name"],)
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice["allowed_tools"]
        return tuple(tool["function"]["name"] for tool in allowed["tools"]) if allowed["mode"] == "required" else ()
    return ()


def _schema(response_format: Any) -> Any:
    kind = (response_format or {}).get("type")
    if kind == "json_schema":
        return response_format["json_schema"].get("schema") or {}
    return {} if kind == "json_object" else None


def _listed(stop: str | list[str] | None) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop or ())
