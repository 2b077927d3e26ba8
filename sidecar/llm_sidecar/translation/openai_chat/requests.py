"""A request to chat completions, to and from the middle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.translation.base import EncodedRequest
from llm_sidecar.translation.conversation import Conversation, JSONOutput, Logprobs, Reasoning, Sampling
from llm_sidecar.translation.foreign import CALL, PART, TOOL, TURN
from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.openai_chat.leftovers import nested, nested_rest, restore
from llm_sidecar.translation.openai_chat.messages import decode_message, encode_message
from llm_sidecar.translation.openai_chat.tools import decode_tool, decode_tool_choice, encode_tool, encode_tool_choice
from llm_sidecar.translation.parts import Document
from llm_sidecar.translation.reading import Fields

PATH: Final = "/chat/completions"
HARMLESS: Final = frozenset(
    {
        "max_tokens",  # only if `max_completion_tokens` is told besides
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "verbosity",
        f"{TURN}.annotations",
        f"{TURN}.reasoning",
        f"{TURN}.reasoning_details",
        f"{PART}.cache_control",
        f"{PART}.prompt_cache_breakpoint",
        f"{CALL}.extra_content",
        f"{CALL}.index",
        f"{TOOL}.cache_control",
        f"{TOOL}.prompt_cache_breakpoint",
    }
)
"""What other languages may leave out. The rest (`functions`, `logit_bias`, `store`, `web_search_options`, ...) not."""

_SAMPLING: Final = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty")
_DEFAULTS: Final[Mapping[str, Any]] = {"store": False, "modalities": ["text"], "response_format": {"type": "text"}}
"""Values that say nothing but what is so anyhow."""


def decode_request(document: Mapping[str, Any]) -> Conversation:
    """Raises `Undecodable`."""
    fields = Fields(document, "the request")
    form: dict[str, Any] = {}
    model = fields.text("model") or ""
    stream = fields.flag("stream")
    if stream is False:
        form["$stream"] = False
    if (options := fields.object("stream_options")) is not None:
        form["$stream_options"] = options
    for name, value in _DEFAULTS.items():
        if fields.rest.get(name) == value and value is not None:
            form[f"${name}"] = fields.take(name) if value is not False else fields.flag(name)
    messages = fields.array("messages")
    if messages is None:
        raise Undecodable("messages must be an array")
    return Conversation(
        api=API.OPENAI_CHAT,
        model=model,
        stream=stream is True,
        turns=tuple(decode_message(message, f"messages[{n}]") for n, message in enumerate(messages)),
        tools=_tools(fields, form),
        tool_choice=decode_tool_choice(fields),
        output=_output(fields),
        max_output_tokens=_limit(fields, form),
        stop=_stop(fields, form),
        sampling=Sampling(**{name: fields.number(name) for name in _SAMPLING}, seed=fields.whole("seed")),
        choices=fields.whole("n"),
        reasoning=_reasoning(fields),
        logprobs=_logprobs(fields),
        user=fields.text("user"),
        metadata=fields.object("metadata"),
        harmless=HARMLESS,
        extra={**fields.rest, **form},
    )


def encode_request(conversation: Conversation, model: str) -> EncodedRequest:
    """The request for a conversation in this language's shape. Raises `Untranslatable`."""
    extra = conversation.extra
    document: dict[str, Any] = {"model": model, "messages": [encode_message(turn) for turn in conversation.turns]}
    if conversation.tools or "$tools" in extra:
        document["tools"] = [encode_tool(tool) for tool in conversation.tools]
    document |= encode_tool_choice(conversation.tool_choice)
    document |= _encode_output(conversation.output)
    document |= _encode_stop(conversation)
    sampling = conversation.sampling
    told: dict[str, Any] = {name: getattr(sampling, name) for name in _SAMPLING} | {
        extra.get("$limit", "max_completion_tokens"): conversation.max_output_tokens,
        "seed": sampling.seed,
        "n": conversation.choices,
        "reasoning_effort": conversation.reasoning.effort if conversation.reasoning else None,
        "logprobs": conversation.logprobs.wanted if conversation.logprobs else None,
        "top_logprobs": conversation.logprobs.top if conversation.logprobs else None,
        "user": conversation.user,
        "metadata": conversation.metadata,
        "stream": conversation.stream or extra.get("$stream"),
    }
    document |= {name: value for name, value in told.items() if value is not None and (name, value) != ("stream", None)}
    document |= {name: extra[f"${name}"] for name in _DEFAULTS if f"${name}" in extra}
    options = extra.get("$stream_options")
    if conversation.stream:
        document["stream_options"] = {**(options or {}), "include_usage": True}
    elif options is not None:
        document["stream_options"] = options
    return EncodedRequest(path=PATH, document=restore(document, _without_null_options(conversation)))


def asks_for_usage(conversation: Conversation) -> bool:
    """Whether the application wants the usage chunk of its stream."""
    options: Document = conversation.extra.get("$stream_options") or {}
    return options.get("include_usage") is True


def _without_null_options(conversation: Conversation) -> Document:
    if not conversation.stream or "stream_options" not in conversation.extra:
        return conversation.extra
    return {name: value for name, value in conversation.extra.items() if name != "stream_options"}


def _tools(fields: Fields, form: dict[str, Any]) -> tuple[Any, ...]:
    tools = fields.array("tools")
    if tools == []:
        form["$tools"] = "empty"
    return tuple(decode_tool(tool, f"tools[{n}]") for n, tool in enumerate(tools or ()))


def _limit(fields: Fields, form: dict[str, Any]) -> int | None:
    limit = fields.whole("max_completion_tokens")
    if limit is not None:
        return limit
    limit = fields.whole("max_tokens")
    if limit is not None:
        form["$limit"] = "max_tokens"
    return limit


def _stop(fields: Fields, form: dict[str, Any]) -> tuple[str, ...]:
    stop = fields.take("stop")
    if isinstance(stop, str):
        form["$stop"] = "text"
        return (stop,)
    if stop is None:
        return ()
    if not isinstance(stop, list) or not all(isinstance(each, str) for each in stop):
        raise Undecodable("stop must be a string or an array of strings")
    if not stop:
        form["$stop"] = "empty"
    return tuple(stop)


def _encode_stop(conversation: Conversation) -> dict[str, Any]:
    form = conversation.extra.get("$stop")
    if form == "text":
        return {"stop": conversation.stop[0]}
    return {"stop": list(conversation.stop)} if conversation.stop or form == "empty" else {}


def _reasoning(fields: Fields) -> Reasoning | None:
    effort = fields.text("reasoning_effort")
    return None if effort is None else Reasoning(effort=effort)


def _logprobs(fields: Fields) -> Logprobs | None:
    wanted, top = fields.flag("logprobs"), fields.whole("top_logprobs")
    return None if wanted is None and top is None else Logprobs(wanted=wanted, top=top)


def _output(fields: Fields) -> JSONOutput | None:
    told = fields.rest.get("response_format")
    kind = told.get("type") if isinstance(told, Mapping) else None
    if kind not in ("json_object", "json_schema"):
        return None  # left over: nothing that the middle knows
    outer = Fields(fields.take("response_format"), "response_format")
    outer.take("type")
    if kind == "json_object":
        return JSONOutput(extra={**outer.rest, "$type": kind})
    inner = Fields(outer.take("json_schema"), "response_format.json_schema")
    return JSONOutput(
        schema=inner.object("schema"),
        name=inner.text("name"),
        description=inner.text("description"),
        strict=inner.flag("strict"),
        extra={**outer.rest, "$type": kind, **nested("json_schema", inner.rest)},
    )


def _encode_output(output: JSONOutput | None) -> dict[str, Any]:
    if output is None:
        return {}
    kind = output.extra.get("$type", "json_object" if output.schema is None else "json_schema")
    document: dict[str, Any] = {"type": kind}
    if kind == "json_schema":
        told = {
            "name": output.name,
            "description": output.description,
            "schema": output.schema,
            "strict": output.strict,
        }
        inner = {name: value for name, value in told.items() if value is not None}
        document["json_schema"] = restore(inner, nested_rest(output.extra, "json_schema"))
    return {"response_format": restore(document, output.extra, "json_schema")}
