"""Declared tools and the choice among them, as chat completions have them."""

from __future__ import annotations

from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.translation.conversation import ServerTool, Tool, ToolChoice, ToolUse
from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.openai_chat.content import encode_marker, take_marker
from llm_sidecar.translation.openai_chat.leftovers import nested, nested_rest, restore
from llm_sidecar.translation.parts import ToolKind
from llm_sidecar.translation.reading import Fields

_USES: Final = {"none": ToolUse.NONE, "auto": ToolUse.AUTO, "required": ToolUse.ANY}
_WORDS: Final = {use: word for word, use in _USES.items()}


def decode_tool(tool: Any, where: str) -> Tool | ServerTool:
    """One of `tools`. Raises `Undecodable`."""
    fields = Fields(tool, where)
    kind = fields.text("type") or ""
    if kind not in ("function", "custom"):
        return ServerTool(owner=API.OPENAI_CHAT, kind=kind, value=tool)
    inner = Fields(fields.take(kind), f"{where}.{kind}")
    name = inner.text("name")
    if name is None:
        raise Undecodable(f"{where}.{kind}.name must be a string")
    marker, form = take_marker(fields)
    is_function = kind == "function"
    return Tool(
        name=name,
        description=inner.text("description"),
        parameters=inner.object("parameters") if is_function else None,
        strict=inner.flag("strict") if is_function else None,
        kind=ToolKind(kind),
        marker=marker,
        extra={**fields.rest, **form, **nested(kind, inner.rest)},
    )


def encode_tool(tool: Tool | ServerTool) -> dict[str, Any]:
    """One of `tools`, in this language's shape."""
    if isinstance(tool, ServerTool):
        return dict(tool.value)
    kind = tool.kind.value
    told = {"description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
    inner = {"name": tool.name, **{name: value for name, value in told.items() if value is not None}}
    restore(inner, nested_rest(tool.extra, kind))
    document = {"type": kind, kind: inner, **encode_marker(tool.marker, tool.extra)}
    return restore(document, tool.extra, kind)


def decode_tool_choice(fields: Fields) -> ToolChoice | None:
    """From `tool_choice` and `parallel_tool_calls`."""
    told = fields.take("tool_choice")
    parallel = fields.flag("parallel_tool_calls")
    if told is None:
        return None if parallel is None else ToolChoice(parallel=parallel)
    if isinstance(told, str) and told in _USES:
        return ToolChoice(use=_USES[told], parallel=parallel)
    if (named := _named(told)) is not None:
        return ToolChoice(use=ToolUse.NAMED, names=(named[1],), parallel=parallel, extra={"$kind": named[0]})
    if (allowed := _allowed(told)) is not None:
        return ToolChoice(use=allowed[0], names=allowed[1], parallel=parallel)
    # Something newer: only this language can say it again.
    return ToolChoice(parallel=parallel, extra={"tool_choice": told})


def _named(told: Any) -> tuple[str, str] | None:
    """Kind and name, if they are all that is said."""
    for kind in ("function", "custom"):
        inner = told.get(kind) if isinstance(told, dict) else None
        name = inner.get("name") if isinstance(inner, dict) else None
        if isinstance(name, str) and told == {"type": kind, kind: {"name": name}}:
            return kind, name
    return None


def _allowed(told: Any) -> tuple[ToolUse, tuple[str, ...]] | None:
    """Use and names, if they are all that is said, and all are functions."""
    inner = told.get("allowed_tools") if isinstance(told, dict) else None
    tools = inner.get("tools") if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or not isinstance(tools, list):
        return None
    names = tuple(named[1] for named in map(_named, tools) if named is not None and named[0] == "function")
    mode = inner.get("mode")
    use = _USES.get(mode) if isinstance(mode, str) else None
    if not names or use is None or use is ToolUse.NONE or told != _allowed_tools(mode, names):
        return None
    return use, names


def _allowed_tools(mode: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [_function(name) for name in names]}}


def _function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def encode_tool_choice(choice: ToolChoice | None) -> dict[str, Any]:
    """`tool_choice` and `parallel_tool_calls`, as far as they are said."""
    if choice is None:
        return {}
    document: dict[str, Any] = {}
    if choice.use is ToolUse.NAMED:
        kind = choice.extra.get("$kind", "function")
        document["tool_choice"] = {"type": kind, kind: {"name": choice.names[0]}}
    elif choice.use is not None and choice.names:
        document["tool_choice"] = _allowed_tools(_WORDS[choice.use], choice.names)
    elif choice.use is not None:
        document["tool_choice"] = _WORDS[choice.use]
    if choice.parallel is not None:
        document["parallel_tool_calls"] = choice.parallel
    return restore(document, choice.extra)
