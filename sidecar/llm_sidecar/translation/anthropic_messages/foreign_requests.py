"""Requests of other languages, written as Anthropic's.

Carried beyond the plain: a choice among some of the tools, by sending only these; the end user's id. Left out and
named: metadata, log probabilities, penalties, seed, names of schemas and participants, a temperature above 1 (which is
Anthropic's highest, and what it takes for none), `top_p` beside a temperature (newer models refuse both), and sampling
that thinking or a model newer than 4.6 does not allow. Refused: several choices, JSON without a schema, tools that take
free text or that the provider runs, stop sequences of white space alone.
"""

from __future__ import annotations

from typing import Any, Final

from llm_sidecar.translation import foreign
from llm_sidecar.translation.anthropic_messages import models, reasoning, schema
from llm_sidecar.translation.anthropic_messages.reasoning import ANSWER_TOKENS, Thought
from llm_sidecar.translation.anthropic_messages.requests import PATH, USE_NAMES
from llm_sidecar.translation.anthropic_messages.turns import Messages, arrange, checked_name
from llm_sidecar.translation.anthropic_messages.written_blocks import marker
from llm_sidecar.translation.base import EncodedRequest
from llm_sidecar.translation.conversation import Conversation, JSONOutput, Sampling, ServerTool, Tool, ToolUse
from llm_sidecar.translation.losses import Losses, Untranslatable
from llm_sidecar.translation.parts import ToolKind

HEADERS: Final = (("anthropic-version", "2023-06-01"),)
_FORCED: Final = (ToolUse.ANY, ToolUse.NAMED)
_HIGHEST_TEMPERATURE: Final = 1
_LEAST_TOP_P_WHEN_THINKING: Final = 0.95


def encode(conversation: Conversation, *, model: str, losses: Losses) -> EncodedRequest:
    """Write the request. Raises `Untranslatable`."""
    foreign.check_conversation(conversation, losses)
    _leave_out(conversation, losses)
    arranged = arrange(conversation, losses)
    tools = _tools(conversation, losses)
    choice = conversation.tool_choice
    thought = reasoning.wished(
        conversation.reasoning,
        model=model,
        max_tokens=conversation.max_output_tokens,
        must_call=choice is not None and choice.use in _FORCED,
        answers_tools=arranged.answers_tools,
        losses=losses,
    )
    document: dict[str, Any] = {"model": model, "max_tokens": _max_tokens(conversation, thought)}
    document |= _said(arranged)
    if tools:
        document["tools"] = tools
        document |= _tool_choice(conversation)
    document |= _output(conversation.output, thought, losses)
    if thought.thinking is not None:
        document["thinking"] = thought.thinking
    if conversation.stop:
        document["stop_sequences"] = list(conversation.stop)
    if models.takes_sampling(model):
        document |= _sampling(conversation.sampling, thought, losses)
    else:
        _drop_sampling(conversation.sampling, losses)
    if conversation.user is not None:
        document["metadata"] = {"user_id": conversation.user}
    if conversation.stream:
        document["stream"] = True
    return EncodedRequest(path=PATH, document=document, headers=HEADERS)


def _leave_out(conversation: Conversation, losses: Losses) -> None:
    """What this API has no word for."""
    if (conversation.choices or 1) > 1:
        raise Untranslatable("several choices")
    if conversation.metadata:
        losses.drop("metadata")
    if conversation.logprobs is not None and conversation.logprobs.wanted is not False:
        losses.drop("logprobs")
    sampling = conversation.sampling
    for name in ("presence_penalty", "frequency_penalty", "seed"):
        # No penalty is what Anthropic has.
        if getattr(sampling, name) is not None and (name == "seed" or getattr(sampling, name) != 0):
            losses.drop(name)
    if any(not stop.strip() for stop in conversation.stop):
        raise Untranslatable("a stop sequence of white space")


def _max_tokens(conversation: Conversation, thought: Thought) -> int:
    told = conversation.max_output_tokens
    return ANSWER_TOKENS + thought.tokens if told is None else told


def _said(arranged: Messages) -> dict[str, Any]:
    system = {"system": arranged.system} if arranged.system else {}
    return {**system, "messages": arranged.messages}


def _tools(conversation: Conversation, losses: Losses) -> list[dict[str, Any]]:
    choice = conversation.tool_choice
    only = choice.names if choice is not None and choice.use is not ToolUse.NAMED else ()
    written = []
    for tool in conversation.tools:
        if isinstance(tool, ServerTool):
            raise Untranslatable(f"the tool `{tool.kind}`, which only its own provider has")
        if tool.kind is ToolKind.CUSTOM:
            raise Untranslatable("a tool that takes free text")
        if not only or tool.name in only:
            written.append(_tool(tool, losses))
        else:
            # It may not be called; Anthropic can only be told so by not being told of it.
            losses.drop("tools")
    return written


def _tool(tool: Tool, losses: Losses) -> dict[str, Any]:
    parameters = dict(tool.parameters or {})
    if tool.strict:
        parameters = schema.enforceable({"type": "object", **parameters}, losses)
    written: dict[str, Any] = {
        "name": checked_name(tool.name),
        "input_schema": {"type": "object", **parameters},
        **marker(tool.marker, is_own=False),
    }
    if tool.description is not None:
        written["description"] = tool.description
    if tool.strict is not None:
        written["strict"] = tool.strict
    return written


def _tool_choice(conversation: Conversation) -> dict[str, Any]:
    choice = conversation.tool_choice
    if choice is None or (choice.use is None and choice.parallel is None):
        return {}
    use = choice.use or ToolUse.AUTO
    written: dict[str, Any] = {"type": USE_NAMES[use]}
    if use is ToolUse.NAMED:
        if len(choice.names) != 1:
            raise Untranslatable("a choice of a named tool without its name")
        written["name"] = choice.names[0]
    if choice.parallel is not None and use is not ToolUse.NONE:
        written["disable_parallel_tool_use"] = not choice.parallel
    return {"tool_choice": written}


def _output(output: JSONOutput | None, thought: Thought, losses: Losses) -> dict[str, Any]:
    config: dict[str, Any] = {} if thought.effort is None else {"effort": thought.effort}
    if output is not None:
        if output.schema is None:
            raise Untranslatable("JSON output without a schema")
        for name in ("name", "description"):
            if getattr(output, name) is not None:
                losses.drop(f"output.{name}")
        config["format"] = {"type": "json_schema", "schema": schema.enforceable(output.schema, losses)}
    return {"output_config": config} if config else {}


def _drop_sampling(sampling: Sampling, losses: Losses) -> None:
    # 1 is the default of the first two.
    for name, value in (("temperature", sampling.temperature), ("top_p", sampling.top_p), ("top_k", sampling.top_k)):
        if value is not None and (value != 1 or name == "top_k"):
            losses.drop(name)


def _sampling(sampling: Sampling, thought: Thought, losses: Losses) -> dict[str, Any]:
    written: dict[str, Any] = {}
    if sampling.temperature is not None:
        if sampling.temperature > _HIGHEST_TEMPERATURE or (thought.is_on and sampling.temperature != 1):
            losses.drop("temperature")
        else:
            written["temperature"] = sampling.temperature
    # 1 keeps all tokens, as does leaving it out.
    if sampling.top_p is not None and sampling.top_p != 1:
        if "temperature" in written or (thought.is_on and sampling.top_p < _LEAST_TOP_P_WHEN_THINKING):
            losses.drop("top_p")
        else:
            written["top_p"] = sampling.top_p
    if sampling.top_k is not None:
        if thought.is_on:
            losses.drop("top_k")
        else:
            # Gemini's is a number with a point.
            written["top_k"] = int(sampling.top_k)
    return written
