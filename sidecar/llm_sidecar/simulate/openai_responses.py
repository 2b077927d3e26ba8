"""OpenAI's `responses`: its request read, its answer and its full sequence of events written."""

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

# What the API tells of a request that did not say: name in the answer, and the value.
_DEFAULTS: JSONObject = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": "in_memory",
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def read(body: JSONObject) -> Prompt:
    """Read a request, or refuse it as OpenAI would."""
    given = body.get("input")
    if not isinstance(given, str | list) and not body.get("prompt"):
        message = "Missing required parameter: 'input'."
        raise invalid_request(Family.OPENAI, message, param="input", code="missing_required_parameter")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given or ())
    tools = tuple(
        Tool(name=tool["name"], schema=tool.get("parameters"))
        for tool in body.get("tools") or ()
        if tool.get("type") == "function"
    )
    characters, images = _size(items)
    last = items[-1] if items else {}
    return Prompt(
        model=body["model"],
        text=next((_text(item) for item in reversed(items) if item.get("role") == "user"), ""),
        tool_result=_output(last) if last.get("type") == "function_call_output" else None,
        input_tokens=count_tokens(
            characters + len(body.get("instructions") or "") + (len(orjson.dumps(body["tools"])) if tools else 0)
        )
        + TOKENS_PER_MESSAGE * len(items)
        + TOKENS_PER_IMAGE * images,
        image_count=images,
        tools=tools,
        must_call=_must_call(body.get("tool_choice"), tools),
        may_call=body.get("tool_choice") != "none",
        parallel=body.get("parallel_tool_calls") is not False,
        schema=_schema((body.get("text") or {}).get("format")),
        thinking=(body.get("reasoning") or {}).get("effort") not in (None, "none"),
        maximum_output_tokens=body.get("max_output_tokens"),
        stream=body.get("stream") is True,
    )


def usage_of(usage: Usage) -> JSONObject:
    """Return usage as this API tells it."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": usage.cached_input_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def plain(prompt: Prompt, answer: Answer, stamp: Stamp, body: JSONObject) -> JSONObject:
    """Write the answer as one JSON object, which tells the request's settings again."""
    items = [_finished(item, answer) for item in _items(prompt, answer, stamp, body)]
    return _whole(prompt, stamp, body, status=_status(answer), output=items, answer=answer)


def frames(prompt: Prompt, answer: Answer, stamp: Stamp, body: JSONObject) -> Iterator[Frame]:
    """Write the answer as events, each with its number."""
    for number, (kind, data, piece) in enumerate(_events(prompt, answer, stamp, body)):
        is_last = kind in ("response.completed", "response.incomplete")
        tells = answer.usage if is_last and answer.tell_usage else None
        event = {"type": kind, **data, "sequence_number": number}
        yield Frame(event, event=kind, piece=piece, terminal=is_last, tells=tells)


def _events(
    prompt: Prompt, answer: Answer, stamp: Stamp, body: JSONObject
) -> Iterator[tuple[str, JSONObject, str | None]]:
    begun = _whole(prompt, stamp, body, status="in_progress", output=[], answer=None)
    yield "response.created", {"response": begun}, None
    yield "response.in_progress", {"response": begun}, None
    done = []
    for position, item in enumerate(_items(prompt, answer, stamp, body)):
        at = {"output_index": position}
        yield "response.output_item.added", {**at, "item": _opened(item)}, None
        if item["type"] == "message":
            yield from _text_events({"item_id": item["id"], **at, "content_index": 0}, answer)
        elif item["type"] == "function_call":
            yield from _argument_events({"item_id": item["id"], **at}, item["arguments"])
        elif item["summary"]:
            yield from _summary_events({"item_id": item["id"], **at, "summary_index": 0}, item["summary"][0]["text"])
        done.append(_finished(item, answer))
        yield "response.output_item.done", {**at, "item": done[-1]}, None
    status = _status(answer)
    yield (
        f"response.{status}",
        {"response": _whole(prompt, stamp, body, status=status, output=done, answer=answer)},
        None,
    )


def _text_events(at: JSONObject, answer: Answer) -> Iterator[tuple[str, JSONObject, str | None]]:
    yield "response.content_part.added", {**at, "part": _part("")}, None
    for piece in answer.pieces:
        yield "response.output_text.delta", {**at, "delta": piece, "logprobs": []}, piece
    yield "response.output_text.done", {**at, "text": answer.text, "logprobs": []}, None
    yield "response.content_part.done", {**at, "part": _part(answer.text)}, None


def _argument_events(at: JSONObject, arguments: str) -> Iterator[tuple[str, JSONObject, str | None]]:
    for piece in split(arguments, 3):
        yield "response.function_call_arguments.delta", {**at, "delta": piece}, piece
    yield "response.function_call_arguments.done", {**at, "arguments": arguments}, None


def _summary_events(at: JSONObject, text: str) -> Iterator[tuple[str, JSONObject, str | None]]:
    yield "response.reasoning_summary_part.added", {**at, "part": {"type": "summary_text", "text": ""}}, None
    for piece in split(text, 3):
        yield "response.reasoning_summary_text.delta", {**at, "delta": piece}, None
    yield "response.reasoning_summary_text.done", {**at, "text": text}, None
    yield "response.reasoning_summary_part.done", {**at, "part": {"type": "summary_text", "text": text}}, None


def _items(prompt: Prompt, answer: Answer, stamp: Stamp, body: JSONObject) -> Iterator[JSONObject]:
    if prompt.thinking:
        yield _reasoning(answer, stamp, body)
    for position, call in enumerate(answer.tool_calls):
        yield {
            "id": "fc_" + stamp.hexadecimal(f"item/{position}", 50),
            "type": "function_call",
            "arguments": call.arguments_json,
            "call_id": "call_" + stamp.token(f"call/{position}", 24),
            "name": call.name,
        }
    if not answer.tool_calls:
        yield {"id": "msg_" + stamp.hexadecimal("message", 50), "type": "message", "role": "assistant"}


def _reasoning(answer: Answer, stamp: Stamp, body: JSONObject) -> JSONObject:
    """Thoughts are shown as a summary to those who ask for one, and given along encrypted to those who ask for that."""
    shows = (body.get("reasoning") or {}).get("summary") and answer.thinking
    item: JSONObject = {
        "id": "rs_" + stamp.hexadecimal("reasoning", 50),
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": answer.thinking}] if shows else [],
    }
    if "reasoning.encrypted_content" in (body.get("include") or ()):
        item["encrypted_content"] = stamp.token("encrypted", 128)
    return item


def _opened(item: JSONObject) -> JSONObject:
    if item["type"] == "message":
        return {**item, "status": "in_progress", "content": []}
    if item["type"] == "function_call":
        return {**item, "status": "in_progress", "arguments": ""}
    return {**item, "summary": []}


def _finished(item: JSONObject, answer: Answer) -> JSONObject:
    status = _status(answer)
    if item["type"] == "message":
        return {**item, "status": status, "content": [_part(answer.text)]}
    return {**item, "status": status} if item["type"] == "function_call" else item


def _part(text: str) -> JSONObject:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _status(answer: Answer) -> str:
    return "incomplete" if answer.finish is Finish.LENGTH else "completed"


def _whole(
    prompt: Prompt, stamp: Stamp, body: JSONObject, *, status: str, output: list[JSONObject], answer: Answer | None
) -> JSONObject:
    reasoning, text = body.get("reasoning") or {}, body.get("text") or {}
    whole: JSONObject = {
        "id": response_id(stamp),
        "object": "response",
        "created_at": stamp.created_seconds,
        "status": status,
        "completed_at": stamp.created_seconds if status == "completed" else None,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": prompt.model,
        "output": output,
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "service_tier": "default",
        "text": {"format": text.get("format") or {"type": "text"}, "verbosity": text.get("verbosity") or "medium"},
        "tools": body.get("tools") or [],
        "usage": usage_of(answer.usage) if answer is not None and answer.tell_usage else None,
    }
    return whole | {name: default if body.get(name) is None else body[name] for name, default in _DEFAULTS.items()}


def response_id(stamp: Stamp) -> str:
    """Return the id of the response that belongs to this stamp."""
    return "resp_" + stamp.hexadecimal("response", 50)


def _text(item: JSONObject) -> str:
    content = item.get("content")
    if isinstance(content, list):
        return " ".join(part["text"] for part in content if "text" in part)
    return content or ""


def _output(item: JSONObject) -> str:
    output = item.get("output")
    return output if isinstance(output, str) else orjson.dumps(output).decode()


def _size(items: list[JSONObject]) -> tuple[int, int]:
    characters = images = 0
    for item in items:
        characters += len(_text(item)) + len(item.get("arguments") or "") + len(item.get("name") or "")
        if "output" in item:
            characters += len(_output(item))
        if isinstance(item.get("content"), list):
            images += sum(part.get("type") in ("input_image", "input_file") for part in item["content"])
    return characters, images


def _must_call(choice: Any, tools: tuple[Tool, ...]) -> tuple[str, ...]:
    if choice == "required":
        return tuple(tool.name for tool in tools)
    if isinstance(choice, dict) and choice.get("type") == "function":
        return (choice["name"],)
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools" and choice.get("mode") == "required":
        return tuple(tool["name"] for tool in choice["tools"])
    return ()


def _schema(text_format: Any) -> Any:
    kind = (text_format or {}).get("type")
    if kind == "json_schema":
        return text_format.get("schema") or {}
    return {} if kind == "json_object" else None
