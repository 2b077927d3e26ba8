"""Anthropic messages: events, and the message that they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm_sidecar.cache.streams.merging import Document, NotUnderstood, a_list, an_object, grow

if TYPE_CHECKING:
    from llm_sidecar.formats.base import ParsedRequest

_GROWING: Final = {"text_delta": "text", "thinking_delta": "thinking"}
_TOOL_USES: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_TOLD_AT_THE_END: Final = ("stop_reason", "stop_sequence", "stop_details", "container")


class _Block:
    """One block while it grows."""

    def __init__(self, block: Any) -> None:
        self.whole = dict(an_object(block, "content_block"))
        self.json = ""
        self.is_ended = False

    def take(self, delta: Document) -> None:
        kind = delta.get("type")
        if kind in _GROWING and _GROWING[kind] in self.whole:
            grow(self.whole, _GROWING[kind], delta.get(_GROWING[kind]))
        elif kind == "signature_delta" and self.whole.get("type") == "thinking":
            self.whole["signature"] = delta.get("signature")
        elif kind == "citations_delta" and self.whole.get("type") == "text":
            self.whole["citations"] = [*(self.whole.get("citations") or ()), delta.get("citation")]
        elif kind == "input_json_delta" and self.whole.get("type") in _TOOL_USES:
            self.json += str(delta.get("partial_json") or "")
        else:
            raise NotUnderstood(f"a delta of `{kind}`")

    def end(self) -> None:
        self.is_ended = True
        if self.json:
            try:
                self.whole["input"] = orjson.loads(self.json)
            except orjson.JSONDecodeError:
                raise NotUnderstood("a tool's input that is no JSON") from None


def assemble(documents: Iterable[Document]) -> Document:
    """The message. Raises `NotUnderstood`."""
    message: dict[str, Any] = {}
    blocks: list[_Block] = []
    for event in documents:
        kind = event.get("type")
        if kind == "message_start" and not message:
            message = dict(an_object(event.get("message"), "message"))
        elif kind == "content_block_start" and event.get("index") == len(blocks):
            blocks.append(_Block(event.get("content_block")))
        elif kind == "content_block_delta":
            _block(blocks, event).take(an_object(event.get("delta"), "delta"))
        elif kind == "content_block_stop":
            _block(blocks, event).end()
        elif kind == "message_delta" and message:
            _take_end(message, event)
        elif kind not in ("ping", "message_stop"):
            raise NotUnderstood(f"an event `{kind}`")
    if not message or message.get("content") or not all(block.is_ended for block in blocks):
        raise NotUnderstood("a message without a beginning, or a block without an end")
    message["content"] = [block.whole for block in blocks]
    return message


def _block(blocks: list[_Block], event: Document) -> _Block:
    index = event.get("index")
    if type(index) is not int or not 0 <= index < len(blocks) or blocks[index].is_ended:
        raise NotUnderstood("a delta of no open block")
    return blocks[index]


def _take_end(message: dict[str, Any], event: Document) -> None:
    """A later value wins; in usage, only where it says something."""
    message.update(an_object(event.get("delta"), "delta"))
    for name, value in event.items():
        if name == "usage":
            told = {key: count for key, count in an_object(value, name).items() if count is not None}
            message[name] = {**(message.get(name) or {}), **told}
        elif name not in ("type", "delta"):
            message[name] = value


def replay(message: Document, request: ParsedRequest) -> bytes:  # noqa: ARG001 - all languages are asked alike
    """The events. Raises `NotUnderstood`."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), orjson.dumps(event)) for event in _events(message)
    )


def _events(message: Document) -> Iterator[Document]:
    usage = an_object(message.get("usage"), "usage")
    begun: dict[str, Any] = {
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": 0},
    }
    yield {"type": "message_start", "message": {**message, **begun}}
    for index, block in enumerate(a_list(message.get("content"), "content")):
        yield from _block_events(index, an_object(block, "content"))
    delta = {name: message[name] for name in _TOLD_AT_THE_END if name in message}
    yield {"type": "message_delta", "delta": delta, "usage": usage}
    yield {"type": "message_stop"}


def _block_events(index: int, block: dict[str, Any]) -> Iterator[Document]:
    begun, deltas = _split(block)
    yield {"type": "content_block_start", "index": index, "content_block": begun}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _split(block: dict[str, Any]) -> tuple[Document, list[Document]]:
    """What a block begins as, and what makes it grow. A kind that does not grow begins whole, as in Anthropic's own."""
    kind = block.get("type")
    if kind == "text":
        citations = block.get("citations") or []
        begun = {**block, "text": "", **({"citations": []} if citations else {})}
        cited: list[Document] = [{"type": "citations_delta", "citation": citation} for citation in citations]
        return begun, [*_told({"type": "text_delta", "text": block.get("text")}), *cited]
    if kind == "thinking":
        signed = {"type": "signature_delta", "signature": block.get("signature")}
        thought = {"type": "thinking_delta", "thinking": block.get("thinking")}
        return {**block, "thinking": "", "signature": ""}, [*_told(thought), *_told(signed)]
    if kind in _TOOL_USES:
        given = {"type": "input_json_delta", "partial_json": orjson.dumps(block.get("input")).decode()}
        return {**block, "input": {}}, [given]
    return block, []


def _told(delta: dict[str, Any]) -> list[Document]:
    """The delta, unless it says nothing."""
    return [delta] if all(delta.values()) else []
