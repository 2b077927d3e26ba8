"""Anthropic's `messages`, `messages/count_tokens` and `models`: requests read, answers and streams written."""

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
    from collections.abc import Iterator, Sequence

    from llm_sidecar.simulate.answer import Usage

_STOP_REASON = {
    Finish.STOP: "end_turn",
    Finish.STOP_SEQUENCE: "stop_sequence",
    Finish.LENGTH: "max_tokens",
    Finish.TOOL: "tool_use",
}


def read(body: JSONObject, *, is_count: bool = False) -> Prompt:
    """Read a request, or refuse it as Anthropic would."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid_request(Family.ANTHROPIC, "messages: Field required")
    if not is_count and not isinstance(body.get("max_tokens"), int):
        raise invalid_request(Family.ANTHROPIC, "max_tokens: Field required")
    # The provider's own tools (search, code) have no schema to answer by, and are not for the client to run.
    tools = tuple(
        Tool(name=tool["name"], schema=tool["input_schema"])
        for tool in body.get("tools") or ()
        if "input_schema" in tool
    )
    choice = body.get("tool_choice") or {}
    characters, images = _size([*messages, {"content": body.get("system")}])
    results = _results(messages[-1])
    return Prompt(
        model=body["model"],
        text=next((text for each in reversed(messages) if each.get("role") == "user" and (text := _text(each))), ""),
        tool_result=" ".join(results) if results else None,
        input_tokens=count_tokens(characters + (len(orjson.dumps(body["tools"])) if tools else 0))
        + TOKENS_PER_MESSAGE * len(messages)
        + TOKENS_PER_IMAGE * images,
        image_count=images,
        tools=tools,
        must_call=_must_call(choice, tools),
        may_call=choice.get("type") != "none",
        parallel=choice.get("disable_parallel_tool_use") is not True,
        schema=_schema(body),
        thinking=(body.get("thinking") or {}).get("type") in ("enabled", "adaptive"),
        maximum_output_tokens=body.get("max_tokens"),
        stop_sequences=tuple(body.get("stop_sequences") or ()),
        stream=body.get("stream") is True,
    )


def usage_of(usage: Usage) -> JSONObject:
    """Return usage as this API tells it: cached tokens beside the input, thinking inside the output."""
    told: JSONObject = {
        "input_tokens": usage.input_tokens - usage.cached_input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": usage.output_tokens,
        "service_tier": "standard",
        "inference_geo": "global",
    }
    if usage.thinking_tokens:
        told["output_tokens_details"] = {"thinking_tokens": usage.thinking_tokens}
    return told


def plain(prompt: Prompt, answer: Answer, stamp: Stamp) -> JSONObject:
    """Write the answer as one JSON object."""
    told = {"usage": usage_of(answer.usage)} if answer.tell_usage else {}
    ending = {"stop_reason": _STOP_REASON[answer.finish], "stop_sequence": answer.stop_sequence, "stop_details": None}
    return {**_head(prompt, stamp), "content": list(_blocks(answer, stamp)), **ending, **told}


def frames(prompt: Prompt, answer: Answer, stamp: Stamp) -> Iterator[Frame]:
    """Write the answer as events; the SDK drops every frame that has no `event:` line."""
    ending: JSONObject = {"stop_reason": None, "stop_sequence": None, "stop_details": None}
    message: JSONObject = {**_head(prompt, stamp), "content": [], **ending}
    if answer.tell_usage:
        message["usage"] = {**usage_of(answer.usage), "output_tokens": 1}
        message["usage"].pop("output_tokens_details", None)
    yield _frame("message_start", {"message": message})
    for index, block in enumerate(_blocks(answer, stamp)):
        opened, deltas = _opened(block, answer)
        yield _frame("content_block_start", {"index": index, "content_block": opened})
        if not index:
            yield _frame("ping", {})
        for delta, piece in deltas:
            data = {"type": "content_block_delta", "index": index, "delta": delta}
            yield Frame(data, event="content_block_delta", piece=piece, is_thought=block["type"] == "thinking")
        yield _frame("content_block_stop", {"index": index})
    ending = {**ending, "stop_reason": _STOP_REASON[answer.finish], "stop_sequence": answer.stop_sequence}
    last: JSONObject = {"delta": ending}
    if answer.tell_usage:
        usage = usage_of(answer.usage)
        for name in ("cache_creation", "service_tier", "inference_geo"):
            del usage[name]
        last["usage"] = usage
    tells = answer.usage if answer.tell_usage else None
    yield Frame({"type": "message_delta", **last}, event="message_delta", terminal=True, tells=tells)
    yield Frame({"type": "message_stop"}, event="message_stop", terminal=True)


def model(name: str) -> JSONObject:
    """Describe one model."""
    return {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").title(),
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    }


def models(names: Sequence[str]) -> JSONObject:
    """List the models."""
    ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    return {"data": [model(name) for name in names], "has_more": False, **ends}


def _frame(kind: str, data: JSONObject) -> Frame:
    return Frame({"type": kind, **data}, event=kind)


def _opened(block: JSONObject, answer: Answer) -> tuple[JSONObject, list[tuple[JSONObject, str | None]]]:
    """Return a block as it starts, and the deltas that fill it."""
    if block["type"] == "thinking":
        deltas: list[tuple[JSONObject, str | None]] = [
            ({"type": "thinking_delta", "thinking": piece}, piece) for piece in split(block["thinking"], 3)
        ]
        deltas.append(({"type": "signature_delta", "signature": block["signature"]}, None))
        return {**block, "thinking": "", "signature": ""}, deltas
    if block["type"] == "text":
        return {**block, "text": ""}, [({"type": "text_delta", "text": piece}, piece) for piece in answer.pieces]
    arguments = orjson.dumps(block["input"]).decode()
    parts = ("", *split(arguments, 3))
    return {**block, "input": {}}, [({"type": "input_json_delta", "partial_json": part}, part) for part in parts]


def _blocks(answer: Answer, stamp: Stamp) -> Iterator[JSONObject]:
    if answer.thinking:
        yield {"type": "thinking", "thinking": answer.thinking, "signature": stamp.token("signature", 128)}
    for position, call in enumerate(answer.tool_calls):
        call_id = "toolu_01" + stamp.token(f"call/{position}", 22)
        origin = {"caller": {"type": "direct"}}
        yield {"type": "tool_use", "id": call_id, "name": call.name, "input": call.arguments, **origin}
    if not answer.tool_calls:
        yield {"type": "text", "text": answer.text}


def _head(prompt: Prompt, stamp: Stamp) -> JSONObject:
    message_id = "msg_01" + stamp.token("message", 22)
    return {"model": prompt.model, "id": message_id, "type": "message", "role": "assistant"}


def _parts(message: JSONObject) -> list[JSONObject]:
    content = message.get("content")
    return content if isinstance(content, list) else [{"type": "text", "text": content or ""}]


def _text(message: JSONObject) -> str:
    return " ".join(part["text"] for part in _parts(message) if part.get("type") == "text")


def _results(message: JSONObject) -> list[str]:
    return [_text(part) for part in _parts(message) if part.get("type") == "tool_result"]


def _size(messages: list[JSONObject]) -> tuple[int, int]:
    characters = images = 0
    for part in (part for message in messages for part in _parts(message)):
        kind = part.get("type")
        if kind == "tool_result":
            inner, shown = _size([part])
            characters, images = characters + inner, images + shown
        elif kind == "tool_use":
            characters += len(part["name"]) + len(orjson.dumps(part["input"]))
        elif kind in ("image", "document"):
            images += 1
        else:
            characters += len(part.get("text") or part.get("thinking") or "")
    return characters, images


def _must_call(choice: JSONObject, tools: tuple[Tool, ...]) -> tuple[str, ...]:
    if choice.get("type") == "any":
        return tuple(tool.name for tool in tools)
    return (choice["name"],) if choice.get("type") == "tool" else ()


def _schema(body: JSONObject) -> Any:
    # The beta told the format at the top level; now it is part of the output's configuration.
    told = (body.get("output_config") or {}).get("format") or body.get("output_format")
    return told.get("schema") or {} if told else None
