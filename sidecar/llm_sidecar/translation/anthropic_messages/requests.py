"""Requests read, and written again in this same language.

`extra` of the conversation holds `output_config`'s fields beyond effort and format under dotted names, and the names of
lists that were empty under `$empty`. Refused by other languages, because the answer would be another one or the call
may not leave: `container`, `mcp_servers`, `thread`, `inference_geo`, and every field that is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_sidecar.translation.anthropic_messages import blocks, reasoning
from llm_sidecar.translation.anthropic_messages.blocks import ABSENT, CONTENT, OWN, STRING, fields_of, needed
from llm_sidecar.translation.anthropic_messages.written_blocks import BlockWriter, marker, rest
from llm_sidecar.translation.base import EncodedRequest
from llm_sidecar.translation.conversation import (
    Conversation,
    JSONOutput,
    Reasoning,
    Role,
    Sampling,
    ServerTool,
    Tool,
    ToolChoice,
    ToolUse,
    Turn,
)
from llm_sidecar.translation.losses import Losses, Undecodable
from llm_sidecar.translation.parts import NOTHING, Document, Text
from llm_sidecar.translation.reading import Fields

PATH: Final = "/v1/messages"

HARMLESS: Final = frozenset(
    {
        "betas",
        "billing_policy",
        "cache_control",
        "compaction",
        "context_management",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "service_tier",
        "speed",
        "user_profile_id",
        "workspace_id",
        "output_config.task_budget",
        "messages.output_config",
        "messages.content.cache_control",
        "messages.content.citations",
        "messages.content.transformations",
        "messages.tool_calls.cache_control",
        "messages.tool_results.cache_control",
        "system.cache_control",
        "system.citations",
        "tools.allowed_callers",
        "tools.cache_control",
        "tools.defer_loading",
        "tools.eager_input_streaming",
        "tools.input_examples",
    }
)
"""What only tells how a call is billed, cached, watched or sped up, or how tools are streamed and loaded."""

_STREAM: Final = "$stream"
_SYSTEM: Final = "$system"
_EMPTY: Final = "$empty"
_METADATA: Final = "$metadata"
_OUTPUT: Final = "$output_format"
_TYPE: Final = "$type"
_DOTTED: Final = "output_config."
_CONFIG: Final = "$output_config"
"""An empty one."""
_OWN_MARKS: Final = frozenset({_STREAM, _SYSTEM, _EMPTY, _METADATA, _CONFIG})
_LISTS: Final = ("system", "tools", "stop_sequences")
_ROLES: Final = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM}
_USES: Final = {"auto": ToolUse.AUTO, "any": ToolUse.ANY, "tool": ToolUse.NAMED, "none": ToolUse.NONE}
USE_NAMES: Final = {use: name for name, use in _USES.items()}


def decode(document: Mapping[str, Any]) -> Conversation:
    """Read a request. Raises `Undecodable`."""
    fields = Fields(document, "the request")
    model = needed(fields.text("model"), "model")
    messages = needed(fields.array("messages"), "messages")
    stream = fields.flag("stream")
    marks: dict[str, Any] = {} if stream is None or stream else {_STREAM: False}
    if empty := [name for name in _LISTS if document.get(name) == []]:
        marks[_EMPTY] = empty
    user, metadata = _metadata(fields, marks)
    effort, output = _output_config(fields, marks)
    system = _system(fields, marks)
    return Conversation(
        api=OWN,
        model=model,
        stream=stream is True,
        turns=tuple(_turn(message, f"messages[{index}]") for index, message in enumerate(messages)),
        system=system,
        tools=tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(fields.array("tools") or ())),
        tool_choice=_tool_choice(fields.object("tool_choice")),
        output=output,
        max_output_tokens=fields.whole("max_tokens"),
        stop=tuple(_strings(fields.array("stop_sequences") or [], "stop_sequences")),
        sampling=Sampling(
            temperature=fields.number("temperature"), top_p=fields.number("top_p"), top_k=fields.number("top_k")
        ),
        reasoning=reasoning.decode(fields.object("thinking"), effort),
        user=user,
        metadata=metadata,
        extra={**fields.rest, **marks} or NOTHING,
        harmless=HARMLESS,
    )


def encode(conversation: Conversation, *, model: str, losses: Losses) -> EncodedRequest:
    """Write a request that came in this language: as it came, but for thinking that another provider wrote."""
    writer = BlockWriter(is_own=True, losses=losses)
    extra = conversation.extra
    document: dict[str, Any] = {"model": model, **_limits(conversation)}
    document |= {name: [] for name in extra.get(_EMPTY, ())}
    if conversation.system:
        system = writer.blocks(conversation.system)
        document["system"] = conversation.system[0].text if extra.get(_SYSTEM) == STRING else system
    document["messages"] = [_message(turn, writer) for turn in conversation.turns]
    if conversation.tools:
        document["tools"] = [_written_tool(tool) for tool in conversation.tools]
    if (choice := conversation.tool_choice) is not None:
        document["tool_choice"] = _written_choice(choice)
    document |= reasoning.own_thinking(conversation.reasoning)
    document |= _written_output(conversation.output, conversation.reasoning, extra)
    if conversation.user is not None or conversation.metadata is not None or _METADATA in extra:
        user = {} if conversation.user is None else {"user_id": conversation.user}
        document["metadata"] = {**user, **(conversation.metadata or {}), **extra.get(_METADATA, {})}
    if conversation.stream or _STREAM in extra:
        document["stream"] = conversation.stream
    for name, value in extra.items():
        if name not in _OWN_MARKS and not name.startswith(_DOTTED):
            document[name] = value
    return EncodedRequest(path=PATH, document=document)


def _metadata(fields: Fields, marks: dict[str, Any]) -> tuple[str | None, Document | None]:
    metadata = fields.object("metadata")
    if metadata is None:
        return None, None
    inner = Fields(metadata, "metadata")
    user = inner.text("user_id")
    left = inner.rest
    if any(value is not None for value in left.values()):
        return user, left
    marks[_METADATA] = left
    return user, None


def _output_config(fields: Fields, marks: dict[str, Any]) -> tuple[str | None, JSONOutput | None]:
    """Effort and format. Betas before this field had the format as a field of the request."""
    output = _json_output(fields.object("output_format"), _OUTPUT)
    config = fields.object("output_config")
    if config is None:
        return None, output
    inner = Fields(config, "output_config")
    effort = inner.text("effort")
    told = inner.object("format")
    if output is not None and told is not None:
        raise Undecodable("output_format and output_config.format both ask for a format")
    output = output or _json_output(told, None)
    marks |= {_DOTTED + name: value for name, value in inner.rest.items()}
    if not config:
        marks[_CONFIG] = True
    return effort, output


def _json_output(told: dict[str, Any] | None, mark: str | None) -> JSONOutput | None:
    if told is None:
        return None
    inner = Fields(told, "the output format")
    extra: dict[str, Any] = {} if mark is None else {mark: True}
    schema = inner.object("schema")
    if told.get("type") == "json_schema":
        inner.take("type")
    return JSONOutput(schema=schema, extra={**inner.rest, **extra} or NOTHING)


def _written_output(output: JSONOutput | None, thought: Reasoning | None, extra: Document) -> dict[str, Any]:
    config = {name.removeprefix(_DOTTED): value for name, value in extra.items() if name.startswith(_DOTTED)}
    written: dict[str, Any] = {}
    if thought is not None and thought.effort is not None:
        config["effort"] = thought.effort
    if output is not None:
        schema = {} if output.schema is None else {"schema": output.schema}
        left = {name: value for name, value in output.extra.items() if name != _OUTPUT}
        whole = {"type": "json_schema", **schema, **left}
        if _OUTPUT in output.extra:
            written["output_format"] = whole
        else:
            config["format"] = whole
    if config or _CONFIG in extra:
        written["output_config"] = config
    return written


def _system(fields: Fields, marks: dict[str, Any]) -> tuple[Text, ...]:
    system = fields.take("system")
    if system is None:
        return ()
    if isinstance(system, str):
        marks[_SYSTEM] = STRING
        return (Text(text=system),)
    if not isinstance(system, list):
        raise Undecodable("system must be a string or an array")
    parts = blocks.decode(system, "system")
    texts = tuple(part for part in parts if isinstance(part, Text))
    if len(texts) != len(parts):
        marks["system"] = system
        return ()
    return texts


def _turn(message: Any, where: str) -> Turn:
    fields = Fields(message, where)
    role = _ROLES.get(needed(fields.text("role"), f"{where}.role"))
    if role is None:
        raise Undecodable(f"{where}.role must be user, assistant or system")
    content = fields.take("content")
    if isinstance(content, list):
        return Turn(role=role, parts=blocks.decode(content, f"{where}.content"), extra=fields.rest)
    if isinstance(content, str):
        return Turn(role=role, parts=(Text(text=content),), extra={**fields.rest, CONTENT: STRING})
    if content is None:
        return Turn(role=role, parts=(), extra={**fields.rest, CONTENT: ABSENT})
    raise Undecodable(f"{where}.content must be a string or an array")


def _message(turn: Turn, writer: BlockWriter) -> dict[str, Any]:
    spelling = turn.extra.get(CONTENT)
    content: Any = writer.blocks(turn.parts)
    if spelling == STRING:
        content = "".join(part.text for part in turn.parts if isinstance(part, Text))
    said = {} if spelling == ABSENT else {"content": content}
    return {"role": turn.role.value, **said, **rest(turn.extra)}


def _tool(tool: Any, where: str) -> Tool | ServerTool:
    if not isinstance(tool, dict):
        raise Undecodable(f"{where} must be an object")
    kind = tool.get("type")
    if kind not in (None, "custom") or "input_schema" not in tool:
        return ServerTool(owner=OWN, kind=str(kind), value=tool)
    fields, tool_marker = fields_of(tool, where)
    return Tool(
        name=needed(fields.text("name"), f"{where}.name"),
        description=fields.text("description"),
        parameters=needed(fields.object("input_schema"), f"{where}.input_schema"),
        strict=fields.flag("strict"),
        marker=tool_marker,
        extra=fields.rest if kind is None else {**fields.rest, _TYPE: kind},
    )


def _written_tool(tool: Tool | ServerTool) -> Mapping[str, Any]:
    if isinstance(tool, ServerTool):
        return tool.value
    written = {"name": tool.name, "input_schema": tool.parameters, **marker(tool.marker, is_own=True)}
    if tool.description is not None:
        written["description"] = tool.description
    if tool.strict is not None:
        written["strict"] = tool.strict
    kind = {"type": tool.extra[_TYPE]} if _TYPE in tool.extra else {}
    return {**written, **kind, **{name: value for name, value in tool.extra.items() if name != _TYPE}}


def _tool_choice(told: dict[str, Any] | None) -> ToolChoice | None:
    if told is None:
        return None
    fields = Fields(told, "tool_choice")
    # A kind that is not known here stays in `extra`, where other languages refuse it.
    use = _USES.get(told["type"]) if isinstance(told.get("type"), str) else None
    if use is not None:
        fields.take("type")
    name = fields.text("name") if use is ToolUse.NAMED else None
    single = fields.flag("disable_parallel_tool_use")
    return ToolChoice(
        use=use,
        names=() if name is None else (name,),
        parallel=None if single is None else not single,
        extra=fields.rest,
    )


def _written_choice(choice: ToolChoice) -> dict[str, Any]:
    written: dict[str, Any] = {} if choice.use is None else {"type": USE_NAMES[choice.use]}
    if choice.names:
        written["name"] = choice.names[0]
    if choice.parallel is not None:
        written["disable_parallel_tool_use"] = not choice.parallel
    return {**written, **choice.extra}


def _limits(conversation: Conversation) -> dict[str, Any]:
    sampling = conversation.sampling
    told = {
        "max_tokens": conversation.max_output_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "stop_sequences": list(conversation.stop) or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _strings(values: list[Any], where: str) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise Undecodable(f"{where} must hold strings only")
    return values
