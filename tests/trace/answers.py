"""Whether an answer is complete, and the one to its request. Whatever is neither is an error, and is never timed."""

from __future__ import annotations

import base64
from array import array
from functools import lru_cache
from typing import Any, Final

import orjson
from multidict import CIMultiDict

from llm_sidecar.simulate.embedding import vector
from tests.chaos.answers import NoProperEnd, text_of
from tests.integration.proxy.harness import Reply
from tests.trace.requests import ANSWER_BYTES, ITEM_TOKENS, Family, Kind, Request

DIMENSIONS: Final = 1536

_NAMES: Final = {Family.OPENAI: "chat", Family.ANTHROPIC: "messages", Family.GEMINI: "generate"}
_GIVEN: Final = frozenset({"hit", "coalesced", "stale"})
"""What `x-llm-sidecar-cache` says where no provider was asked for this request."""


class Wrong(Exception):
    """The answer is not what its request has to get. The message says what is wrong with it, in few words."""


def given_by_cache(request: Request, *, told: str, body: bytes) -> int:
    """How many of the request's meanings cost nothing. Raises `Wrong` where the answer is not the request's.

    Of a batch, only what is new is paid for, and its usage tells that: all items have as many tokens.
    """
    try:
        document = _checked(request, body)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise Wrong(f"not readable: {type(error).__name__}") from error
    except NoProperEnd as error:
        raise Wrong("it has no proper end") from error
    if told in _GIVEN:
        return len(request.meanings)
    if request.kind is not Kind.EMBEDDINGS:
        return 0
    paid, rest = divmod(document["usage"]["prompt_tokens"], ITEM_TOKENS)
    if rest or not 0 <= paid <= len(request.items):
        raise Wrong("the usage of a batch is not that of any number of its items")
    return len(request.items) - int(paid)


def _checked(request: Request, body: bytes) -> Any:
    if request.items:
        return _check_vectors(request, orjson.loads(body))
    if request.tokens:
        return _check_count(request, orjson.loads(body))
    if request.tool:
        return _check_tool(request, body)
    name = _NAMES[request.family] + ("-stream" if request.stream else "")
    text = text_of(name, Reply(status=200, headers=CIMultiDict(), body=body))
    if text is None or len(text) < ANSWER_BYTES:
        raise Wrong("it is not complete")
    if request.text not in text:
        raise Wrong("it is the answer to something else")
    return None


def _check_vectors(request: Request, document: Any) -> Any:
    data = document["data"]
    if [one["index"] for one in data] != [*range(len(request.items))]:
        raise Wrong("the vectors of a batch are not in its order")
    # Of all places, the last is the one that a batch put together wrongly gets wrong.
    if data[-1]["embedding"] != _encoded(request.items[-1]) or data[0]["embedding"] != _encoded(request.items[0]):
        raise Wrong("a vector belongs to another text")
    if any(len(one["embedding"]) != len(data[0]["embedding"]) for one in data):
        raise Wrong("a vector is cut")
    return document


@lru_cache(maxsize=512)
def _encoded(text: str) -> str:
    return base64.b64encode(array("f", vector(text, DIMENSIONS)).tobytes()).decode()


def _check_count(request: Request, document: Any) -> Any:
    told = document["totalTokens"] if request.family is Family.GEMINI else document["input_tokens"]
    if told != request.tokens:
        raise Wrong(f"it counts {told} tokens instead of {request.tokens}")
    return document


def _check_tool(request: Request, body: bytes) -> None:
    """The one call of a tool, complete: its name, its end, and arguments that can be read."""
    if request.stream:
        events = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]
        is_openai = request.family is Family.OPENAI
        names, arguments, finish = _openai_call(events) if is_openai else _anthropic_call(events)
    elif request.family is Family.OPENAI:
        (choice,) = orjson.loads(body)["choices"]
        calls = choice["message"]["tool_calls"]
        names, arguments = [call["function"]["name"] for call in calls], calls[0]["function"]["arguments"]
        finish = choice["finish_reason"]
    else:
        document = orjson.loads(body)
        blocks = [block for block in document["content"] if block["type"] == "tool_use"]
        names, arguments = [block["name"] for block in blocks], orjson.dumps(blocks[0]["input"]).decode()
        finish = document["stop_reason"]
    if finish not in {"tool_calls", "tool_use"}:
        raise Wrong("a tool's call has no proper end")
    if names != [request.tool] or "query" not in orjson.loads(arguments):
        raise Wrong("not the call of the tool that was named")


def _openai_call(events: list[bytes]) -> tuple[list[str], str, str | None]:
    if not events or events[-1] != b"[DONE]":
        raise Wrong("it is not complete")
    choices = [choice for event in events[:-1] for choice in orjson.loads(event)["choices"]]
    pieces = [call["function"] for choice in choices for call in choice["delta"].get("tool_calls") or ()]
    names = [piece["name"] for piece in pieces if piece.get("name")]
    finish = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    return names, "".join(piece.get("arguments") or "" for piece in pieces), finish[-1] if finish else None


def _anthropic_call(events: list[bytes]) -> tuple[list[str], str, str | None]:
    documents = [orjson.loads(event) for event in events]
    if not documents or documents[-1]["type"] != "message_stop":
        raise Wrong("it is not complete")
    blocks = [one["content_block"] for one in documents if one["type"] == "content_block_start"]
    names = [block["name"] for block in blocks if block["type"] == "tool_use"]
    deltas = [one["delta"] for one in documents if one["type"] == "content_block_delta"]
    finish = [one["delta"]["stop_reason"] for one in documents if one["type"] == "message_delta"]
    return names, "".join(delta.get("partial_json", "") for delta in deltas), finish[-1] if finish else None
