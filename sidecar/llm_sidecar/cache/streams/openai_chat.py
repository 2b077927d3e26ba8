"""Chat completions: chunks, and the completion that they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm_sidecar.cache.streams.merging import Document, NotUnderstood, a_list, an_object, grow, merge, the_only

if TYPE_CHECKING:
    from llm_sidecar.formats.base import ParsedRequest

_TEXTS: Final = ("reasoning_content", "reasoning", "content", "refusal")
_KNOWN: Final = frozenset({"role", "annotations", "tool_calls", "function_call", *_TEXTS})
_OF_CHUNK: Final = frozenset({"usage", "object"})
_OF_COMPLETION: Final = ("choices", "usage", "object")
_ARGUMENT: Final = {"function": "arguments", "custom": "input"}
_DONE: Final = b"data: [DONE]\n\n"


def assemble(documents: Iterable[Document]) -> Document:
    """The completion. Raises `NotUnderstood`, also for a stream without usage: a plain answer would tell it."""
    completion: dict[str, Any] = {}
    choice: dict[str, Any] = {"index": 0}
    message: dict[str, Any] = {"role": "assistant", "content": None}
    calls: dict[int, dict[str, Any]] = {}
    usage: Any = None
    envelope: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for chunk in documents:
        # Nearly all chunks repeat all but a few letters: comparing a whole costs less than merging its members.
        envelope, previous = dict(chunk), envelope
        choices = envelope.pop("choices", None)
        envelope.pop("obfuscation", None)
        if envelope != previous:
            merge(completion, envelope, without=_OF_CHUNK)
            usage = envelope.get("usage") or usage
        if choices:
            rest, previous = dict(the_only(choices, "choices")), rest
            delta = rest.pop("delta", None) or {}
            if rest != previous or rest.get("logprobs"):
                merge(choice, rest, without=("logprobs",))
                if "logprobs" in rest:
                    _take_logprobs(choice, rest["logprobs"])
            text = delta.get("content") if type(delta) is dict and len(delta) == 1 else None
            if type(text) is str:
                message["content"] = (message["content"] or "") + text
            else:
                _take_delta(message, calls, delta)
    if usage is None or choice.get("finish_reason") is None:
        raise NotUnderstood("the stream has no usage, or no finish reason")
    if calls:
        message["tool_calls"] = [_whole_call(calls[number]) for number in sorted(calls)]
    choice["message"] = message
    return {**completion, "object": "chat.completion", "choices": [choice], "usage": usage}


def _take_logprobs(choice: dict[str, Any], told: Any) -> None:
    choice.setdefault("logprobs", None)
    if told is None:
        return
    known = choice["logprobs"] = choice["logprobs"] or {}
    for name, tokens in an_object(told, "logprobs").items():
        if tokens is None:
            known.setdefault(name, None)
        else:
            known[name] = [*(known.get(name) or ()), *a_list(tokens, name)]


def _take_delta(message: dict[str, Any], calls: dict[int, dict[str, Any]], delta: Any) -> None:
    for name, value in an_object(delta, "delta").items():
        if name in _TEXTS:
            grow(message, name, value)
        elif name == "role":
            if value not in (None, "", "assistant"):
                raise NotUnderstood("a role that is not the assistant's")
        elif value is None:
            continue
        elif name == "tool_calls":
            for call in a_list(value, name):
                _take_call(calls, an_object(call, name))
        elif name == "annotations":
            message[name] = [*message.get(name, ()), *a_list(value, name)]
        elif name == "function_call":
            _take_function(message.setdefault(name, {}), an_object(value, name), "arguments")
        else:
            raise NotUnderstood(f"a delta of `{name}`")


def _take_call(calls: dict[int, dict[str, Any]], told: Document) -> None:
    number = told.get("index")
    if type(number) is not int:
        raise NotUnderstood("a tool call without a number")
    call = calls.setdefault(number, {})
    merge(call, told, without=("index", *_ARGUMENT))
    for kind, argument in _ARGUMENT.items():
        if told.get(kind) is not None:
            _take_function(call.setdefault(kind, {}), an_object(told[kind], kind), argument)


def _take_function(function: dict[str, Any], told: Document, argument: str) -> None:
    merge(function, told, without=(argument,))
    grow(function, argument, told.get(argument, ""))


def _whole_call(call: dict[str, Any]) -> dict[str, Any]:
    kind = call.get("type") or "function"
    if not call.get("id") or not call.get(kind, {}).get("name"):
        raise NotUnderstood("a tool call without an id or a name")
    return {**call, "type": kind}


def replay(completion: Document, request: ParsedRequest) -> bytes:
    """The chunks; with usage where the application asked for it. Raises `NotUnderstood`."""
    asks_for_usage = (request.document.get("stream_options") or {}).get("include_usage") is True
    usage = completion.get("usage")
    if asks_for_usage and not usage:
        raise NotUnderstood("no usage to tell")
    envelope = {name: value for name, value in completion.items() if name not in _OF_COMPLETION}
    envelope["object"] = "chat.completion.chunk"
    telling = {"usage": None} if asks_for_usage else {}
    choice = the_only(completion.get("choices"), "choices")
    chunks = [{**envelope, "choices": [told], **telling} for told in _choices(choice)]
    if asks_for_usage:
        chunks.append({**envelope, "choices": [], "usage": usage})
    return b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks) + _DONE


def _choices(choice: Document) -> Iterator[Document]:
    deltas = list(_deltas(an_object(choice.get("message"), "message")))
    has_logprobs, logprobs = "logprobs" in choice, choice.get("logprobs")
    for number, delta in enumerate(deltas):
        is_last_text = number == len(deltas) - 1 or "tool_calls" in deltas[number + 1]
        told, logprobs = (logprobs, None) if logprobs and is_last_text else (None, logprobs)
        yield {"index": 0, "delta": delta, **({"logprobs": told} if has_logprobs else {}), "finish_reason": None}
    rest = {name: value for name, value in choice.items() if name not in {"message", "logprobs"}}
    yield {**rest, "index": 0, "delta": {}, **({"logprobs": None} if has_logprobs else {})}


def _deltas(message: dict[str, Any]) -> Iterator[Document]:
    if any(value and name not in _KNOWN for name, value in message.items()) or message.get("role") != "assistant":
        raise NotUnderstood("a message with fields that have no delta")
    first: dict[str, Any] = {
        name: "" if isinstance(message[name], str) else None for name in ("content", "refusal") if name in message
    }
    if "annotations" in message:  # once: clients merge lists by the number of each element, and these have none
        first["annotations"] = message["annotations"]
    yield {"role": "assistant", **first}
    for name in _TEXTS:
        if message.get(name):
            yield {name: message[name]}
    if message.get("function_call"):
        yield {"function_call": message["function_call"]}
    for number, call in enumerate(message.get("tool_calls") or ()):
        yield from _call_deltas(number, an_object(call, "tool_calls"))


def _call_deltas(number: int, call: dict[str, Any]) -> Iterator[Document]:
    kind = call.get("type") or "function"
    argument = _ARGUMENT.get(kind)
    function = call.get(kind)
    if argument is None or not isinstance(function, dict) or not isinstance(function.get(argument), str):
        raise NotUnderstood("a tool call of an unknown kind")
    yield {"tool_calls": [{"index": number, **call, kind: {**function, argument: ""}}]}
    yield {"tool_calls": [{"index": number, kind: {argument: function[argument]}}]}
