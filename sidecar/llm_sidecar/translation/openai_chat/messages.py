"""One message of chat completions is one turn, and back: both in requests and, for the model's own, in answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.translation.conversation import Role, Turn
from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.openai_chat.content import decode_item, encode_item
from llm_sidecar.translation.openai_chat.leftovers import nested, nested_rest, restore
from llm_sidecar.translation.parts import (
    NOTHING,
    Document,
    Media,
    Native,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolKind,
    ToolResult,
)
from llm_sidecar.translation.reading import Fields

_ROLES: Final = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
}
_THOUGHTS: Final = ("reasoning_content", "reasoning")
_MESSAGE: Final = "message"
_CALL: Final = "tool_calls"


def decode_message(message: Any, where: str) -> Turn:
    """A message as a turn. One of an unknown role is kept whole. Raises `Undecodable`."""
    fields = Fields(message, where)
    told = fields.text("role") or ""
    role = _ROLES.get(told)
    if role is None:
        whole = Native(owner=API.OPENAI_CHAT, kind=_MESSAGE, value=message)
        return Turn(role=Role.USER, parts=(whole,))
    form: dict[str, Any] = {"$role": told} if told == "developer" else {}
    if role is Role.TOOL:
        return _decode_result(fields, where)
    name = fields.text("name")
    parts = [*_thoughts(fields)] if role is Role.ASSISTANT else []
    content, spelling = _decode_content(fields, where)
    parts += content
    if role is Role.ASSISTANT:
        parts += _refusal(fields)
        parts += _calls(fields, where)
    return Turn(role=role, parts=tuple(parts), name=name, extra=_left(fields, form | spelling))


def encode_message(turn: Turn) -> dict[str, Any]:
    """A turn, in this language's shape, as a message. Raises `Untranslatable`."""
    first = turn.parts[0] if turn.parts else None
    if isinstance(first, Native) and first.kind == _MESSAGE:
        return dict(first.value)
    message: dict[str, Any] = {"role": turn.extra.get("$role", turn.role.value)}
    if isinstance(first, ToolResult):
        _encode_result(message, first)
    elif turn.name is not None:
        message["name"] = turn.name
    _encode_parts(message, turn)
    return restore(message, turn.extra)


def _left(fields: Fields, form: dict[str, Any]) -> Document:
    """An empty list says no more than `null`: that it was there is a matter of form."""
    rest = {(f"$empty.{name}" if value == [] else name): value for name, value in fields.rest.items()}
    return rest | form or NOTHING


def _decode_content(fields: Fields, where: str) -> tuple[list[Part], dict[str, Any]]:
    content = fields.take("content")
    if content is None:
        return [], {}
    if isinstance(content, str):
        # No language takes empty text; it stands where there is nothing to say but calls.
        return ([Text(text=content)], {}) if content else ([], {"$content": "empty"})
    if not isinstance(content, list):
        raise Undecodable(f"{where}.content must be a string or an array")
    items = [decode_item(item, f"{where}.content[{n}]") for n, item in enumerate(content)]
    return items, {"$content": "list"}


def _thoughts(fields: Fields) -> list[Part]:
    for name in _THOUGHTS:
        if isinstance(fields.rest.get(name), str):
            extra = NOTHING if name == _THOUGHTS[0] else {"$field": name}
            return [Thinking(text=fields.take(name), owner=API.OPENAI_CHAT, extra=extra)]
    return []


def _refusal(fields: Fields) -> list[Part]:
    text = fields.text("refusal")
    return [] if text is None else [Refusal(text=text)]


def _calls(fields: Fields, where: str) -> list[Part]:
    if not fields.rest.get(_CALL):
        return []
    calls = fields.array(_CALL) or []
    return [decode_call(call, f"{where}.{_CALL}[{n}]") for n, call in enumerate(calls)]


def decode_call(call: Any, where: str) -> Part:
    """One of `tool_calls`; of a type that is not known: whole. Raises `Undecodable`."""
    fields = Fields(call, where)
    told = fields.text("type")
    kind = "function" if told is None else told
    if kind not in ("function", "custom"):
        return Native(owner=API.OPENAI_CHAT, kind=_CALL, value=call)
    inner = Fields(fields.take(kind), f"{where}.{kind}")
    arguments = inner.take("arguments" if kind == "function" else "input")
    form: dict[str, Any] = {} if told is not None else {"$type": "absent"}
    if arguments is None:
        form["$arguments"] = "absent"
    elif not isinstance(arguments, str | dict):
        raise Undecodable(f"{where}.{kind}.arguments must be a string")
    elif isinstance(arguments, dict):
        form["$arguments"] = "object"
    call_id = fields.text("id")
    if call_id is None:
        form["$id"] = "absent"
    name = inner.text("name")
    if name is None:
        raise Undecodable(f"{where}.{kind}.name must be a string")
    return ToolCall(
        id=call_id or "",
        name=name,
        arguments="" if arguments is None else arguments,
        kind=ToolKind(kind),
        signature=take_signature(fields),
        extra={**fields.rest, **form, **nested(kind, inner.rest)},
    )


def take_signature(fields: Fields) -> str | None:
    """Gemini's thought signature, if `extra_content` says that and no more."""
    match fields.rest.get("extra_content"):
        case {"google": {"thought_signature": str(signature), **others}, **more} if not others and not more:
            fields.take("extra_content")
            return signature
    return None


def signature_field(signature: str | None) -> dict[str, Any]:
    """Gemini's thought signature, as a field of a tool call."""
    return {} if signature is None else {"extra_content": {"google": {"thought_signature": signature}}}


def _decode_result(fields: Fields, where: str) -> Turn:
    call_id, name = fields.text("tool_call_id"), fields.text("name")
    content, form = _decode_content(fields, where)
    if call_id is None:
        raise Undecodable(f"{where}.tool_call_id must be a string")
    unknown = [part for part in content if not isinstance(part, Text | Media)]
    if unknown:
        raise Undecodable(f"{where}.content must be text")
    parts = tuple(part for part in content if isinstance(part, Text | Media))
    result = ToolResult(call_id=call_id, name=name, content=parts)
    return Turn(role=Role.TOOL, parts=(result,), extra=_left(fields, form))


def _encode_result(message: dict[str, Any], result: ToolResult) -> None:
    message["tool_call_id"] = result.call_id
    if result.name is not None:
        message["name"] = result.name


def _encode_parts(message: dict[str, Any], turn: Turn) -> None:
    content: list[Part] = []
    calls: list[dict[str, Any]] = []
    for part in turn.parts:
        if isinstance(part, ToolResult):
            content += part.content
        elif isinstance(part, Thinking):
            message[part.extra.get("$field", _THOUGHTS[0])] = part.text
        elif isinstance(part, Refusal) and "$item" not in part.extra:
            message["refusal"] = part.text
        elif isinstance(part, ToolCall):
            calls.append(encode_call(part))
        elif isinstance(part, Native) and part.kind == _CALL:
            calls.append(dict(part.value))
        else:
            content.append(part)
    _encode_content(message, content, turn.extra.get("$content"))
    if calls:
        message[_CALL] = calls
    for name in turn.extra:
        if name.startswith("$empty."):
            message[name.removeprefix("$empty.")] = []


def _encode_content(message: dict[str, Any], content: list[Part], form: str | None) -> None:
    only = content[0] if len(content) == 1 else None
    if form == "empty":
        message["content"] = ""
    elif form is None and isinstance(only, Text) and only.marker is None:
        message["content"] = only.text
    elif content or form == "list":
        message["content"] = [encode_item(part) for part in content]


def encode_call(call: ToolCall) -> dict[str, Any]:
    """One of `tool_calls`."""
    kind = call.kind.value
    inner: dict[str, Any] = {"name": call.name}
    if call.extra.get("$arguments") != "absent":
        as_object = call.extra.get("$arguments") == "object"
        inner["arguments" if kind == "function" else "input"] = (
            call.arguments if as_object and isinstance(call.arguments, Mapping) else call.arguments_text()
        )
    restore(inner, nested_rest(call.extra, kind))
    document: dict[str, Any] = {} if "$id" in call.extra else {"id": call.id}
    if "$type" not in call.extra:
        document["type"] = kind
    document |= {kind: inner, **signature_field(call.signature)}
    return restore(document, call.extra, kind)
