"""Conversations, written as Gemini's requests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from llm_sidecar.contract.names import API
from llm_sidecar.translation.base import EncodedRequest
from llm_sidecar.translation.conversation import Conversation, Role, ServerTool, Tool, Turn
from llm_sidecar.translation.foreign import check_conversation
from llm_sidecar.translation.gemini import configuration
from llm_sidecar.translation.gemini.models import THIRD, generation
from llm_sidecar.translation.gemini.part_encoding import PartEncoder
from llm_sidecar.translation.gemini.requests import (
    MODEL_PREFIX,
    OWN_SCHEMA,
    ROLE,
    SYSTEM_CONTENT,
    TOOL_LAYOUT,
    VERSION,
)
from llm_sidecar.translation.losses import STRICT_TOOL, SYSTEM_POSITION, Losses, Untranslatable
from llm_sidecar.translation.parts import NOTHING, Part, Text
from llm_sidecar.translation.spelling import SpelledObject

_ROLES: Final = {Role.USER: "user", Role.TOOL: "user", Role.ASSISTANT: "model"}
_EVENTS: Final = "alt=sse"
_NEWEST_VERSION: Final = "v1beta"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
"""Of a tool, as Google takes it."""

UNSIGNED: Final = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
"""What Google documents to be sent as the signature of a call that another model made; its bytes say
`skip_thought_signature_validator`. Without it, models from the third generation on refuse such a call."""


def encode_request(conversation: Conversation, *, model: str, losses: Losses) -> EncodedRequest:
    """See `Translator.encode_request`."""
    own = conversation.api is API.GEMINI
    document = SpelledObject(conversation.extra if own else NOTHING)
    parts = PartEncoder(own=own, losses=losses, generation=generation(model))
    if own:
        prefix = conversation.extra.get(MODEL_PREFIX)
        document.put("model", None if prefix is None else f"{prefix}{model}")
        document.put_array("contents", [_own_content(turn, parts) for turn in conversation.turns])
    else:
        _tell_foreign(conversation, losses)
        document.put_array("contents", _contents(conversation, parts))
    document.put("systemInstruction", _system(conversation, parts))
    document.put_array("tools", _tools(conversation, parts))
    configuration.encode_tool_choice(document, conversation, own=own)
    configuration.encode_settings(document, conversation, own=own, model=model, losses=losses)
    version = conversation.extra.get(VERSION, _NEWEST_VERSION) if own else _NEWEST_VERSION
    verb = "streamGenerateContent" if conversation.stream else "generateContent"
    return EncodedRequest(
        path=f"/{version}/models/{quote(model, safe='')}:{verb}",
        query=_EVENTS if conversation.stream else "",
        document=document.finish(*configuration.CONTAINERS),
    )


def _tell_foreign(conversation: Conversation, losses: Losses) -> None:
    check_conversation(conversation, losses)
    for name, value in (("user", conversation.user), ("metadata", conversation.metadata)):
        if value is not None:
            losses.drop(name)
    for turn in conversation.turns:
        if turn.name is not None:
            losses.drop("messages.name")


def _own_content(turn: Turn, parts: PartEncoder) -> dict[str, Any]:
    document = SpelledObject(turn.extra)
    document.put("role", turn.extra.get(ROLE, _ROLES.get(turn.role)))
    document.put_array("parts", _encoded(turn.parts, parts))
    return document.finish()


def _encoded(turn: tuple[Part, ...], parts: PartEncoder) -> Iterator[dict[str, Any]]:
    for part in turn:
        encoded = parts.encode(part)
        if encoded is not None:
            yield encoded


def _contents(conversation: Conversation, parts: PartEncoder) -> list[dict[str, Any]]:
    """Turns that alternate, with all results of parallel calls in one of them."""
    contents: list[dict[str, Any]] = []
    for turn in conversation.turns:
        if turn.role is Role.SYSTEM:
            continue
        role = _ROLES[turn.role]
        # An empty text says nothing, and is refused.
        encoded = [part for part in _encoded(turn.parts, parts) if part != {"text": ""}]
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += encoded
        elif encoded:
            contents.append({"role": role, "parts": encoded})
    if not contents:
        raise Untranslatable("a request without a message of the user's")
    if contents[-1]["role"] == "model":
        raise Untranslatable("an answer that the request begins itself")
    if parts.generation >= THIRD:
        _sign_calls(contents)
    return contents


def _sign_calls(contents: list[dict[str, Any]]) -> None:
    """The first of parallel calls is the one that must be signed."""
    for content in contents:
        first = next((part for part in content["parts"] if "functionCall" in part), None)
        if first is not None:
            first.setdefault("thoughtSignature", UNSIGNED)


def _system(conversation: Conversation, parts: PartEncoder) -> dict[str, Any] | None:
    if parts.own:
        extra = conversation.extra.get(SYSTEM_CONTENT)
        if extra is None:
            return None
        document = SpelledObject(extra)
        document.put("role", extra[ROLE])
        document.put_array("parts", _encoded(conversation.system, parts))
        return document.finish()
    texts = [*conversation.system, *_system_turns(conversation, parts.losses)]
    return {"parts": list(_encoded(tuple(texts), parts))} if texts else None


def _system_turns(conversation: Conversation, losses: Losses) -> Iterator[Text]:
    """Instructions among the messages: this API knows none, so all of them stand before the first message."""
    begun = False
    for turn in conversation.turns:
        if turn.role is not Role.SYSTEM:
            begun = True
            continue
        if begun:
            losses.drop(SYSTEM_POSITION)
        for part in turn.parts:
            if not isinstance(part, Text):
                raise Untranslatable("instructions that are not text")
            yield part


def _tools(conversation: Conversation, parts: PartEncoder) -> list[dict[str, Any]]:
    tools = list(conversation.tools)
    if not parts.own:
        declared = [_declaration(_function(tool), parts) for tool in tools]
        return [{"functionDeclarations": declared}] if declared else []
    encoded: list[dict[str, Any]] = []
    position = 0
    for declarations, others, extra in conversation.extra.get(TOOL_LAYOUT, ()):
        document = SpelledObject(extra)
        functions = tools[position : position + declarations]
        position += declarations
        document.put_array("functionDeclarations", [_declaration(_function(tool), parts) for tool in functions])
        holder = document.finish()
        for tool in tools[position : position + others]:
            holder |= tool.value if isinstance(tool, ServerTool) else {}
        position += others
        encoded.append(holder)
    return encoded


def _function(tool: Tool | ServerTool) -> Tool:
    if isinstance(tool, ServerTool):
        raise Untranslatable(f"the tool `{tool.kind}`, which its provider runs")
    return tool


def _declaration(tool: Tool, parts: PartEncoder) -> dict[str, Any]:
    if tool.kind != "function":
        raise Untranslatable("a tool that takes free text")
    if not parts.own and _NAME.fullmatch(tool.name) is None:
        raise Untranslatable("a tool whose name does not begin with a letter or `_`, or has other signs than `_.:-`")
    if tool.marker is not None:
        parts.losses.drop("cache_control")
    if tool.strict is not None:
        parts.losses.drop(STRICT_TOOL)
    extra = parts.kept(tool.extra)
    document = SpelledObject(extra)
    document.put("name", tool.name)
    document.put("description", tool.description)
    if OWN_SCHEMA in extra:
        document.put("parameters", extra[OWN_SCHEMA])
    else:
        document.put("parametersJsonSchema", tool.parameters)
    return document.finish()
