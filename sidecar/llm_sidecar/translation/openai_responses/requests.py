"""Requests of the Responses API: read into the middle, and written again as they were.

State pins a request to its provider: `store: true`, `previous_response_id`, `conversation`, `background`, prompts by
id, items by reference, tools that OpenAI runs. All of these stay in `extra` or become `Native` and `ServerTool`, which
other languages refuse. An unset `store` leaves a copy at OpenAI that nobody asked for: it does not pin.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.formats.fields import text
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
from llm_sidecar.translation.foreign import REASONING, TOOL, TURN
from llm_sidecar.translation.losses import Losses, Undecodable
from llm_sidecar.translation.openai_responses.content import kept, said
from llm_sidecar.translation.openai_responses.items import decode_item, encode_item
from llm_sidecar.translation.parts import Document, Text, ToolKind
from llm_sidecar.translation.reading import Fields

HARMLESS: Final = frozenset(
    {
        "background_options",
        "context_management",
        "image",
        "include",
        "max_tool_calls",  # counts the calls of OpenAI's own tools, and those are refused
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "stream_options",
        "text.verbosity",
        "truncation",
        f"{TURN}.phase",
        f"{TOOL}.allowed_callers",
        f"{TOOL}.defer_loading",
        f"{TOOL}.output_schema",
        f"{REASONING}.context",
    }
)
LOGPROBS: Final = "message.output_text.logprobs"
_TEXT_PREFIX: Final = "text."
_UNSET: Final[Mapping[str, Any]] = MappingProxyType({"store": False, "background": False, "truncation": "disabled"})
"""Values that say what an absent field says, as far as another provider is concerned."""
_USES: Final[Mapping[str, ToolUse]] = MappingProxyType(
    {"auto": ToolUse.AUTO, "none": ToolUse.NONE, "required": ToolUse.ANY}
)
USE_WORDS: Final[Mapping[ToolUse, str]] = MappingProxyType({use: word for word, use in _USES.items()})
_CLIENT_TOOLS: Final[Mapping[str, ToolKind]] = MappingProxyType(
    {"function": ToolKind.FUNCTION, "custom": ToolKind.CUSTOM}
)


def decode_request(document: Mapping[str, Any]) -> Conversation:
    """Raises `Undecodable`."""
    fields = Fields(document, "the request")
    model = fields.text("model")
    if not model:
        raise Undecodable("the request.model is missing")
    stream, tools = fields.flag("stream"), fields.array("tools")
    instructions, include = fields.text("instructions"), fields.array("include")
    given = fields.take("input")
    output, text_extra = _decode_text(fields.object("text"))
    wants_logprobs = None if include is None else LOGPROBS in include or None
    spelling = {
        "stream": False if stream is False else None,
        "input": "string" if isinstance(given, str) else "absent" if given is None else None,
        "tools": [] if tools == [] else None,
        **{f"unset.{name}": fields.take(name) for name, value in _UNSET.items() if _is(document.get(name), value)},
    }
    return Conversation(
        api=API.OPENAI_RESPONSES,
        model=model,
        stream=stream is True,
        turns=_decode_input(given),
        system=() if instructions is None else (Text(text=instructions),),
        tools=tuple(_decode_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools or ())),
        tool_choice=_decode_tool_choice(fields.take("tool_choice"), parallel=fields.flag("parallel_tool_calls")),
        output=output,
        max_output_tokens=fields.whole("max_output_tokens"),
        sampling=Sampling(temperature=fields.number("temperature"), top_p=fields.number("top_p")),
        reasoning=_decode_reasoning(fields.object("reasoning")),
        logprobs=_decode_logprobs(wanted=wants_logprobs, top=fields.whole("top_logprobs")),
        user=fields.text("user"),
        metadata=fields.object("metadata"),
        extra=kept({**fields.rest, **text_extra, **_include(include)}, **spelling),
        harmless=HARMLESS,
    )


def encode_own(conversation: Conversation, *, model: str, losses: Losses) -> dict[str, Any]:
    """The document that `decode_request` read, for `model`."""
    extra = conversation.extra
    document = {name: value for name, value in said(extra).items() if not name.startswith(_TEXT_PREFIX)}
    document["model"] = model
    if conversation.stream or "$stream" in extra:
        document["stream"] = conversation.stream
    form = extra.get("$input")
    if form == "string":
        document["input"] = "".join(p.text for turn in conversation.turns for p in turn.parts if isinstance(p, Text))
    elif form != "absent":
        items = [encode_item(turn, losses) for turn in conversation.turns]
        document["input"] = [item for item in items if item is not None]
    if "$include" in extra:
        document["include"] = extra["$include"]
    for name in _UNSET:
        if f"$unset.{name}" in extra:
            document[name] = extra[f"$unset.{name}"]
    return document | encode_settings(conversation)


def encode_settings(conversation: Conversation) -> dict[str, Any]:
    """All of a request of this API that its answer tells again: how to answer, rather than to what."""
    extra, sampling, logprobs = conversation.extra, conversation.sampling, conversation.logprobs
    settings = {
        "instructions": conversation.system[0].text if conversation.system else None,
        "max_output_tokens": conversation.max_output_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_logprobs": logprobs.top if logprobs else None,
        "user": conversation.user,
        "metadata": conversation.metadata,
        "tool_choice": _encode_tool_choice(conversation.tool_choice),
        "parallel_tool_calls": conversation.tool_choice.parallel if conversation.tool_choice else None,
        "reasoning": _encode_reasoning(conversation.reasoning),
        "text": _encode_text(conversation),
    }
    told = {name: value for name, value in settings.items() if value is not None}
    if conversation.tools or "$tools" in extra:
        told["tools"] = [_encode_tool(tool) for tool in conversation.tools]
    return told


def _is(value: object, usual: object) -> bool:
    return value == usual and type(value) is type(usual)


def _decode_input(given: Any) -> tuple[Turn, ...]:
    if given is None:
        return ()
    if isinstance(given, str):
        return (Turn(role=Role.USER, parts=(Text(text=given),)),)
    if not isinstance(given, list):
        raise Undecodable("the request.input must be a string or a list")
    return tuple(decode_item(item, f"input[{index}]") for index, item in enumerate(given))


def _include(include: list[Any] | None) -> Document:
    """Only what is asked for beyond log probabilities is more than a spelling."""
    if include is None:
        return {}
    return {"$include" if all(name == LOGPROBS for name in include) else "include": include}


def _decode_logprobs(*, wanted: bool | None, top: int | None) -> Logprobs | None:
    return None if wanted is None and top is None else Logprobs(wanted=wanted, top=top)


def _decode_text(told: dict[str, Any] | None) -> tuple[JSONOutput | None, Document]:
    """The schema, and what goes into the request's `extra`."""
    if told is None:
        return None, {}
    fields = Fields(told, "text")
    form = fields.object("format")
    extra: dict[str, Any] = {f"{_TEXT_PREFIX}{name}": value for name, value in fields.rest.items()}
    if form is None:
        return None, extra or {"$text": told}
    of_format = Fields(form, "text.format")
    kind = of_format.text("type")
    if kind == "json_object":
        return JSONOutput(extra=of_format.rest), extra
    if kind == "json_schema":
        schema = of_format.object("schema")
        if schema is None:
            raise Undecodable("text.format.schema is missing")
        name, description = of_format.text("name"), of_format.text("description")
        strict = of_format.flag("strict")
        return JSONOutput(schema=schema, name=name, description=description, strict=strict, extra=of_format.rest), extra
    # Plain text is what an absent format says; another kind (a grammar, say) is none of the middle's.
    return None, {**extra, ("$text_format" if form == {"type": "text"} else f"{_TEXT_PREFIX}format"): form}


def _encode_text(conversation: Conversation) -> dict[str, Any] | None:
    extra, output = conversation.extra, conversation.output
    told = {name.removeprefix(_TEXT_PREFIX): value for name, value in extra.items() if name.startswith(_TEXT_PREFIX)}
    if output is not None:
        told["format"] = encode_format(output)
    elif "$text_format" in extra:
        told["format"] = extra["$text_format"]
    return told or extra.get("$text")


def encode_format(output: JSONOutput) -> dict[str, Any]:
    """`text.format`."""
    if output.schema is None:
        return {"type": "json_object", **said(output.extra)}
    fields = {"name": output.name, "description": output.description, "strict": output.strict}
    told = {name: value for name, value in fields.items() if value is not None}
    return {"type": "json_schema", **told, "schema": output.schema, **said(output.extra)}


def _decode_reasoning(reasoning: dict[str, Any] | None) -> Reasoning | None:
    if reasoning is None:
        return None
    fields = Fields(reasoning, "reasoning")
    summary, generate = fields.text("summary"), fields.text("generate_summary")
    usual_mode = fields.take("mode") if reasoning.get("mode") == "standard" else None
    return Reasoning(
        effort=fields.text("effort"),
        visible=True if summary or generate else None,
        extra=kept(fields.rest, summary=summary, generate_summary=generate, mode=usual_mode),
    )


def _encode_reasoning(reasoning: Reasoning | None) -> dict[str, Any] | None:
    if reasoning is None:
        return None
    document = said(reasoning.extra)
    if reasoning.effort is not None:
        document["effort"] = reasoning.effort
    for name in ("summary", "generate_summary", "mode"):
        if f"${name}" in reasoning.extra:
            document[name] = reasoning.extra[f"${name}"]
    return document


def _decode_tool(tool: Any, where: str) -> Tool | ServerTool:
    fields = Fields(tool, where)
    kind = fields.text("type")
    if kind is None:
        raise Undecodable(f"{where}.type is missing")
    if kind not in _CLIENT_TOOLS:
        return ServerTool(owner=API.OPENAI_RESPONSES, kind=kind, value=tool)
    name = fields.text("name")
    if name is None:
        raise Undecodable(f"{where}.name is missing")
    free_text = fields.take("format") if tool.get("format") == {"type": "text"} else None
    return Tool(
        name=name,
        description=fields.text("description"),
        parameters=fields.object("parameters"),
        strict=fields.flag("strict"),
        kind=_CLIENT_TOOLS[kind],
        extra=kept(fields.rest, format=free_text),
    )


def _encode_tool(tool: Tool | ServerTool) -> dict[str, Any]:
    if isinstance(tool, ServerTool):
        return dict(tool.value)
    fields = {
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
        "format": tool.extra.get("$format"),
    }
    told = {name: value for name, value in fields.items() if value is not None}
    return {"type": tool.kind.value, "name": tool.name, **told, **said(tool.extra)}


def _decode_tool_choice(choice: Any, *, parallel: bool | None) -> ToolChoice | None:
    if choice is None:
        return None if parallel is None else ToolChoice(parallel=parallel)
    if isinstance(choice, str):
        if choice not in _USES:
            raise Undecodable("the request.tool_choice is not one of auto, none, required")
        return ToolChoice(use=_USES[choice], parallel=parallel)
    fields = Fields(choice, "tool_choice")
    kind = fields.text("type")
    if kind in _CLIENT_TOOLS:
        name = fields.text("name")
        if name is None:
            raise Undecodable("tool_choice.name is missing")
        return ToolChoice(use=ToolUse.NAMED, names=(name,), parallel=parallel, extra=kept(fields.rest, type=kind))
    if kind == "allowed_tools":
        mode, tools = fields.text("mode"), fields.array("tools")
        names = _names(tools)
        if mode in ("auto", "required") and names is not None:
            return ToolChoice(use=_USES[mode], names=names, parallel=parallel, extra=kept(fields.rest, tools=tools))
    return ToolChoice(parallel=parallel, extra=kept(choice, native=True))


def _names(tools: list[Any] | None) -> tuple[str, ...] | None:
    """Of the application's own tools; None if there are others, or anything but type and name is told."""
    names = []
    for tool in tools or ():
        if not isinstance(tool, dict) or tool.keys() != {"type", "name"}:
            return None
        if not isinstance(tool["name"], str) or text(tool, "type") not in _CLIENT_TOOLS:
            return None
        names.append(tool["name"])
    return tuple(names) or None


def _encode_tool_choice(choice: ToolChoice | None) -> Any:
    if choice is None:
        return None
    extra = choice.extra
    if choice.use is None:
        return said(extra) if "$native" in extra else None
    if choice.use is ToolUse.NAMED:
        return {"type": extra["$type"], "name": choice.names[0], **said(extra)}
    word = USE_WORDS[choice.use]
    if not choice.names:
        return word
    return {"type": "allowed_tools", "mode": word, "tools": extra["$tools"], **said(extra)}
