"""Gemini's requests, read into the middle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Call
from llm_sidecar.translation.conversation import Conversation, Role, ServerTool, Tool, Turn
from llm_sidecar.translation.foreign import PART, TOOL
from llm_sidecar.translation.gemini import configuration
from llm_sidecar.translation.gemini.parts import PairedIds, decode_part
from llm_sidecar.translation.gemini.schema import to_json_schema
from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.parts import Document, Text
from llm_sidecar.translation.spelling import SpelledFields

HARMLESS: Final = frozenset(
    {
        "labels",
        "safetySettings",
        "safety_settings",
        "serviceTier",
        "service_tier",
        "generationConfig.mediaResolution",
        "generationConfig.media_resolution",
        "generationConfig.audioTimestamp",
        "generationConfig.audio_timestamp",
        "generationConfig.enableEnhancedCivicAnswers",
        "generationConfig.enable_enhanced_civic_answers",
        # A signature or a note on media; how finely they are looked at.
        f"{PART}.thoughtSignature",
        f"{PART}.thought_signature",
        f"{PART}.partMetadata",
        f"{PART}.part_metadata",
        f"{PART}.mediaResolution",
        f"{PART}.media_resolution",
        # What a tool gives back, for the model to know beforehand.
        f"{TOOL}.response",
        f"{TOOL}.responseJsonSchema",
        f"{TOOL}.response_json_schema",
        f"{TOOL}.behavior",
    }
)
"""See `Conversation.harmless`."""

JSON_ARRAY: Final = "$json_array"
"""The application reads its stream as one JSON array."""
VERSION: Final = "$version"
"""Of the API, in the path."""
MODEL_PREFIX: Final = "$model_prefix"
"""What stands before the model's name in the body, where that names it."""
SYSTEM_CONTENT: Final = "$system"
"""`extra` of the object around the system instruction's parts."""
ROLE: Final = "$role"
"""A role that is spelled otherwise than `user` and `model`; None where it is left out."""
TOOL_LAYOUT: Final = "$tools"
"""For each of `tools`: how many functions it declares, which other tools it holds, and its own `extra`."""
OWN_SCHEMA: Final = "$schema"
"""A schema in Gemini's own language, of which the middle has the translation."""

_MODELS: Final = "models/"
_ROLES: Final[Mapping[str | None, Role]] = {
    "user": Role.USER,
    "model": Role.ASSISTANT,
    "function": Role.TOOL,
    None: Role.USER,
}


def decode_request(call: Call, document: Mapping[str, Any]) -> Conversation:
    """See `Translator.decode_request`."""
    if call.model is None:
        raise Undecodable("the path must name the model")
    fields = SpelledFields(document, "request")
    fields.keep(JSON_ARRAY, call.stream_is_json_array or None)
    fields.keep(VERSION, call.path.split("/")[1])
    if (named := fields.text("model")) is not None:
        fields.keep(MODEL_PREFIX, _MODELS if named.startswith(_MODELS) else "")
    ids = PairedIds()
    turns = tuple(
        _turn(content, f"contents[{index}]", ids) for index, content in enumerate(fields.repeated("contents"))
    )
    system = _system(fields)
    tools = _tools(fields)
    tool_choice = configuration.decode_tool_choice(fields.container("toolConfig"))
    settings = configuration.decode_settings(fields.container("generationConfig"), fields)
    return Conversation(
        api=API.GEMINI,
        model=call.model,
        stream=call.stream is True,
        turns=turns,
        system=system,
        tools=tools,
        tool_choice=tool_choice,
        output=settings.output,
        max_output_tokens=settings.max_output_tokens,
        stop=settings.stop,
        sampling=settings.sampling,
        choices=settings.choices,
        reasoning=settings.reasoning,
        logprobs=settings.logprobs,
        extra=fields.extra,
        harmless=HARMLESS,
    )


def _turn(content: Any, where: str, ids: PairedIds) -> Turn:
    fields = SpelledFields(content, where)
    told = fields.text("role")
    role = _ROLES.get(told)
    if role is None:
        raise Undecodable(f"{where}.role must be user or model")
    parts = tuple(
        decode_part(part, f"{where}.parts[{index}]", ids) for index, part in enumerate(fields.repeated("parts"))
    )
    extra = fields.extra
    if told not in ("user", "model"):
        extra = {**extra, ROLE: told}
    return Turn(role=role, parts=parts, extra=extra)


def _system(fields: SpelledFields) -> tuple[Text, ...]:
    """Instructions that are no plain text stay as they are: no other API has such."""
    value = fields.peek("systemInstruction")
    if not isinstance(value, dict):
        return ()
    content = SpelledFields(value, "systemInstruction")
    role = content.text("role")
    parts = [decode_part(part, "systemInstruction.parts", PairedIds()) for part in content.repeated("parts")]
    texts = tuple(part for part in parts if isinstance(part, Text))
    if len(texts) == len(parts) and not any(value is not None for value in content.left.values()):
        fields.object("systemInstruction")
        fields.keep(SYSTEM_CONTENT, {**content.extra, ROLE: role})
        return texts
    return ()


def _tools(fields: SpelledFields) -> tuple[Tool | ServerTool, ...]:
    tools: list[Tool | ServerTool] = []
    layout: list[tuple[int, int, Document]] = []
    for index, element in enumerate(fields.repeated("tools")):
        where = f"tools[{index}]"
        holder = SpelledFields(element, where)
        declared = [_tool(each, where) for each in holder.repeated("functionDeclarations")]
        others = {name: value for name, value in holder.left.items() if value is not None}
        extra = {name: value for name, value in holder.extra.items() if name not in others}
        tools += declared
        tools += [ServerTool(owner=API.GEMINI, kind=name, value={name: value}) for name, value in others.items()]
        layout.append((len(declared), len(others), extra))
    fields.keep(TOOL_LAYOUT, tuple(layout) or None)
    return tuple(tools)


def _tool(declaration: Any, where: str) -> Tool:
    fields = SpelledFields(declaration, f"{where}.functionDeclarations")
    name = fields.text("name")
    if name is None:
        raise Undecodable(f"{where}.functionDeclarations must tell a name")
    parameters = fields.object("parametersJsonSchema")
    if parameters is None and (own := fields.object("parameters")) is not None:
        parameters = to_json_schema(own, f"{where}.functionDeclarations.parameters")
        fields.keep(OWN_SCHEMA, own)
    return Tool(name=name, description=fields.text("description"), parameters=parameters, extra=fields.extra)
