"""The items of which an input and an output are made. Each is a turn of its own: a message, a call, a result, thoughts.

What is said of a message beside its content stays in the turn's `extra`. Other items are one part, hold the rest in
that part's `extra`, and are marked by `$item` in the turn's. An item's id and status are the provider's bookkeeping:
kept for it, and worth no word elsewhere. Ids that were made up here (see `marks.py`) are not told to OpenAI, which
would look for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.translation.conversation import Role, Turn
from llm_sidecar.translation.losses import Losses, Undecodable
from llm_sidecar.translation.openai_responses import marks
from llm_sidecar.translation.openai_responses.content import decode_content, encode_content, kept, said, text_type
from llm_sidecar.translation.parts import (
    Document,
    Media,
    Native,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolKind,
    ToolResult,
)
from llm_sidecar.translation.reading import Fields

ITEM: Final[Document] = MappingProxyType({"$item": True})
_ROLES: Final[Mapping[str, Role]] = MappingProxyType(
    {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM, "developer": Role.SYSTEM}
)
# A search is told by its text and its citations, a list of tools by nothing: without them the history reads the same.
_HARMLESS_ITEMS: Final = frozenset({"web_search_call", "mcp_list_tools"})
_RESULT_SUFFIX: Final = "_output"
_BOOKKEEPING: Final = ("id", "status")
_CALL_FIELDS: Final = MappingProxyType({ToolKind.FUNCTION: "arguments", ToolKind.CUSTOM: "input"})
_CALL_TYPES: Final = MappingProxyType({ToolKind.FUNCTION: "function_call", ToolKind.CUSTOM: "custom_tool_call"})
_KINDS: Final[Mapping[str, ToolKind]] = MappingProxyType(
    {
        "function_call": ToolKind.FUNCTION,
        "custom_tool_call": ToolKind.CUSTOM,
        "function_call_output": ToolKind.FUNCTION,
        "custom_tool_call_output": ToolKind.CUSTOM,
    }
)


def decode_item(item: Any, where: str) -> Turn:
    """One item of an input or an output. Raises `Undecodable`."""
    fields = Fields(item, where)
    kind = fields.text("type")
    if kind in ("message", None) and isinstance(item.get("role"), str) and item["role"] in _ROLES:
        return _decode_message(fields, where, typed=kind is not None)
    if kind == "reasoning":
        return _item(Role.ASSISTANT, _decode_reasoning(fields, where))
    if kind in ("function_call", "custom_tool_call"):
        return _item(Role.ASSISTANT, _decode_call(fields, where, _KINDS[kind]))
    if kind in ("function_call_output", "custom_tool_call_output"):
        result = _decode_result(fields, where, _KINDS[kind])
        return _item(Role.TOOL, result or native(item, kind))
    if kind is None and not isinstance(item.get("id"), str):
        raise Undecodable(f"{where}.type is missing")
    role = Role.TOOL if (kind or "").endswith(_RESULT_SUFFIX) else Role.ASSISTANT
    return _item(role, native(item, kind or "item_reference"))


def native(item: Document, kind: str) -> Native:
    """An item that only this API knows."""
    return Native(owner=API.OPENAI_RESPONSES, kind=kind, value=item, is_harmless=kind in _HARMLESS_ITEMS)


def encode_item(turn: Turn, losses: Losses) -> dict[str, Any] | None:
    """What `decode_item` read; None for thoughts of another provider, which this API cannot take back."""
    if "$item" not in turn.extra:
        return _encode_message(turn)
    part = turn.parts[0]
    if isinstance(part, Thinking):
        return encode_reasoning(part, losses)
    if isinstance(part, ToolCall):
        return _encode_call(part, losses)
    if isinstance(part, ToolResult):
        return _encode_result(part)
    if isinstance(part, Native):
        return _encode_native(part, losses)
    raise TypeError(f"{type(part).__name__} is no item")


def _encode_native(part: Native, losses: Losses) -> dict[str, Any] | None:
    if marks.is_made_up(part.value.get("id")):
        losses.drop(part.kind)  # an image that another provider made
        return None
    return dict(part.value)


def _item(role: Role, part: Part) -> Turn:
    return Turn(role=role, parts=(part,), extra=ITEM)


def _decode_message(fields: Fields, where: str, *, typed: bool) -> Turn:
    name = fields.text("role")
    role = _ROLES[name or ""]
    content = fields.take("content")
    form = None
    parts: tuple[Part, ...] = ()
    if isinstance(content, str):
        parts, form = (Text(text=content),), "string"
    elif isinstance(content, list):
        parts = decode_content(content, f"{where}.content", usual_text=text_type(role))
    elif content is None:
        form = "absent"
    else:
        raise Undecodable(f"{where}.content must be a string or a list")
    developer = name if name == "developer" else None
    marked = {**_bookkeeping(fields), "type": typed or None, "content": form, "role": developer}
    return Turn(role=role, parts=parts, extra=kept(fields.rest, **marked))


def _bookkeeping(fields: Fields) -> dict[str, Any]:
    return {name: fields.take(name) for name in _BOOKKEEPING}


def _told_bookkeeping(extra: Document) -> dict[str, Any]:
    told = {name: extra[f"${name}"] for name in _BOOKKEEPING if f"${name}" in extra}
    return {name: value for name, value in told.items() if not marks.is_made_up(value)}


def _encode_message(turn: Turn) -> dict[str, Any]:
    extra = turn.extra
    document: dict[str, Any] = {"role": extra.get("$role", turn.role.value), **said(extra), **_told_bookkeeping(extra)}
    if "$type" in extra:
        document["type"] = "message"
    form = extra.get("$content")
    if form == "string":
        document["content"] = "".join(part.text for part in turn.parts if isinstance(part, Text))
    elif form != "absent":
        usual = text_type(turn.role)
        document["content"] = [encode_content(part, usual_text=usual) for part in turn.parts]
    return document


def _decode_reasoning(fields: Fields, where: str) -> Thinking:
    summary, content = fields.array("summary"), fields.array("content")
    encrypted = fields.text("encrypted_content")
    text = "\n\n".join(_texts(summary, f"{where}.summary") + _texts(content, f"{where}.content"))
    sealed = marks.unseal(encrypted)
    if sealed is not None:
        return Thinking(text=text, signature=sealed.signature, redacted=sealed.redacted, owner=sealed.owner)
    return Thinking(
        text=text,
        signature=encrypted,
        owner=API.OPENAI_RESPONSES,
        extra=kept(fields.rest, summary=summary, content=content),
    )


def _texts(parts: list[Any] | None, where: str) -> list[str]:
    found = [part.get("text") if isinstance(part, dict) else None for part in parts or ()]
    if not all(isinstance(each, str) for each in found):
        raise Undecodable(f"{where} must be objects with a text")
    return [each for each in found if each]


def encode_reasoning(part: Thinking, losses: Losses) -> dict[str, Any] | None:
    """Thoughts of this API. Those of another are dropped."""
    if part.owner is not API.OPENAI_RESPONSES:
        losses.drop("thinking")
        return None
    extra = part.extra
    document: dict[str, Any] = {"type": "reasoning", **said(extra)}
    if "$summary" in extra:
        document["summary"] = extra["$summary"]
    if "$content" in extra:
        document["content"] = extra["$content"]
    if part.signature is not None:
        document["encrypted_content"] = part.signature
    return document


def _decode_call(fields: Fields, where: str, kind: ToolKind) -> ToolCall:
    call_id, name, arguments = fields.text("call_id"), fields.text("name"), fields.text(_CALL_FIELDS[kind])
    if call_id is None or name is None or arguments is None:
        raise Undecodable(f"{where} needs call_id, name and {_CALL_FIELDS[kind]}")
    content = fields.object("extra_content")
    return ToolCall(
        id=call_id,
        name=name,
        arguments=arguments,
        kind=kind,
        signature=marks.call_signature(content),
        extra=kept(fields.rest, extra_content=content, **_bookkeeping(fields)),
    )


def _encode_call(part: ToolCall, losses: Losses) -> dict[str, Any]:
    document = {
        "type": _CALL_TYPES[part.kind],
        "call_id": part.id,
        "name": part.name,
        _CALL_FIELDS[part.kind]: part.arguments_text(),
        **said(part.extra),
        **_told_bookkeeping(part.extra),
    }
    if part.signature is not None:
        losses.drop("thought_signature")  # came from Gemini; OpenAI takes no field that it does not know
    elif "$extra_content" in part.extra:
        document["extra_content"] = part.extra["$extra_content"]
    return document


def _decode_result(fields: Fields, where: str, kind: ToolKind) -> ToolResult | None:
    """None where the output holds a part that no other API knows."""
    call_id, name, output = fields.text("call_id"), fields.text("name"), fields.take("output")
    parts: tuple[Part, ...]
    if isinstance(output, str):
        parts, form = (Text(text=output),), "string"
    elif isinstance(output, list):
        parts, form = decode_content(output, f"{where}.output", usual_text="input_text"), None
    else:
        raise Undecodable(f"{where}.output must be a string or a list")
    content = tuple(part for part in parts if isinstance(part, Text | Media))
    if len(content) < len(parts) or call_id is None:
        return None
    extra = kept(fields.rest, output=form, **_bookkeeping(fields))
    return ToolResult(call_id=call_id, name=name, content=content, kind=kind, extra=extra)


def _encode_result(part: ToolResult) -> dict[str, Any]:
    output: Any
    if part.extra.get("$output") == "string":
        output = "".join(each.text for each in part.content if isinstance(each, Text))
    else:
        output = [encode_content(each, usual_text="input_text") for each in part.content]
    document = {
        "type": f"{_CALL_TYPES[part.kind]}{_RESULT_SUFFIX}",
        "call_id": part.call_id,
        "output": output,
        **said(part.extra),
        **_told_bookkeeping(part.extra),
    }
    return document if part.name is None else {**document, "name": part.name}
