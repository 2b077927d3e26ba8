"""Bringing a request of another language into the shape of chat completions, or telling why that cannot be.

What comes out has only what `requests.py` can say; everything left out is told in the losses.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.translation.conversation import (
    Conversation,
    JSONOutput,
    Logprobs,
    Reasoning,
    ServerTool,
    Tool,
    ToolChoice,
    ToolUse,
)
from llm_sidecar.translation.foreign import check_conversation
from llm_sidecar.translation.losses import STRICT_OUTPUT, STRICT_TOOL, Losses, Untranslatable
from llm_sidecar.translation.openai_chat.turns import shaped_turns
from llm_sidecar.translation.parts import NOTHING, ToolKind

_MAX_STOP_SEQUENCES: Final = 4
_SCHEMA_NAME: Final = "output"
"""Of a JSON schema without a name, which chat demands."""
_EFFORT_BUDGETS: Final = ((0, "none"), (1024, "low"), (8192, "medium"))
"""Effort by the largest budget that it stands for, as Google's own chat API has it; beyond: high."""


def shaped(conversation: Conversation, losses: Losses) -> Conversation:
    """The same request in the shape of this language. Raises `Untranslatable`."""
    check_conversation(conversation, losses)
    if len(conversation.stop) > _MAX_STOP_SEQUENCES:
        raise Untranslatable(f"more than {_MAX_STOP_SEQUENCES} stop sequences")
    if conversation.metadata is not None:
        losses.drop("metadata")
    if conversation.sampling.top_k is not None:
        losses.drop("top_k")
    tools = tuple(_tool(tool, losses) for tool in conversation.tools)
    return replace(
        conversation,
        api=API.OPENAI_CHAT,
        turns=shaped_turns(conversation, losses),
        system=(),
        tools=tools,
        tool_choice=_tool_choice(conversation.tool_choice, tools, losses),
        output=_output(conversation, losses),
        sampling=replace(conversation.sampling, top_k=None),
        reasoning=_reasoning(conversation.reasoning, losses),
        logprobs=_logprobs(conversation.logprobs),
        metadata=None,
        extra=NOTHING,
    )


def _tool(tool: Tool | ServerTool, losses: Losses) -> Tool:
    if isinstance(tool, ServerTool):
        raise Untranslatable(f"the provider's own tool `{tool.kind}`")
    if tool.marker is not None:
        losses.drop("cache_control")
    strict = tool.strict
    if strict and not _is_closed(tool.parameters):
        losses.drop(STRICT_TOOL)
        strict = None
    return replace(tool, strict=strict, marker=None, extra=NOTHING)


def _tool_choice(choice: ToolChoice | None, tools: tuple[Tool, ...], losses: Losses) -> ToolChoice | None:
    if choice is None:
        return None
    if not tools and choice.use in (None, ToolUse.AUTO, ToolUse.NONE):
        # Chat refuses a choice among no tools, which says nothing.
        losses.drop("tool_choice")
        return None
    custom = {tool.name for tool in tools if tool.kind is ToolKind.CUSTOM}
    names = () if choice.use is ToolUse.NONE else choice.names
    if choice.use is not ToolUse.NAMED and custom.intersection(names):
        raise Untranslatable("a choice among custom tools")
    return replace(choice, names=names, extra={"$kind": "custom"} if custom.intersection(names) else NOTHING)


def _output(conversation: Conversation, losses: Losses) -> JSONOutput | None:
    output = conversation.output
    if output is None or output.schema is None:
        return None if output is None else JSONOutput()
    strict = output.strict
    if strict is None and conversation.api is not API.OPENAI_RESPONSES:
        strict = True  # elsewhere a schema always binds
    if strict and not _is_closed(output.schema):
        losses.drop(STRICT_OUTPUT)
        strict = None
    return replace(output, name=output.name or _SCHEMA_NAME, strict=strict, extra=NOTHING)


def _is_closed(schema: Any) -> bool:
    """Whether `strict` may be said of a schema: of all its objects every field is required, and no other allowed."""
    stack = [schema]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            if node.get("type") == "object" and not _is_closed_object(node):
                return False
            stack.extend(node.values())
    return True


def _is_closed_object(node: dict[str, Any]) -> bool:
    required, properties = node.get("required", []), node.get("properties", {})
    if node.get("additionalProperties") is not False:
        return False
    if not isinstance(required, list) or not isinstance(properties, dict):
        return False
    return all(isinstance(name, str) for name in required) and set(properties) == set(required)


def _reasoning(reasoning: Reasoning | None, losses: Losses) -> Reasoning | None:
    if reasoning is None:
        return None
    if reasoning.visible:
        losses.drop("reasoning.visible")
    if reasoning.effort is not None:
        return Reasoning(effort=reasoning.effort)
    budget = reasoning.budget_tokens
    if budget is None or budget < 0:
        return None  # as the model sees fit, which is what nothing says
    return Reasoning(effort=next((effort for most, effort in _EFFORT_BUDGETS if budget <= most), "high"))


def _logprobs(logprobs: Logprobs | None) -> Logprobs | None:
    if logprobs is None or logprobs.wanted is False:
        return None
    # `top_logprobs` is refused where `logprobs` is not true.
    return Logprobs(wanted=True, top=logprobs.top)
