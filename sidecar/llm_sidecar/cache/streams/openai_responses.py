"""OpenAI Responses: events, the last of which holds the whole response, and such events made from a response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm_sidecar.cache.streams.merging import Document, NotUnderstood, a_list, an_object

if TYPE_CHECKING:
    from llm_sidecar.formats.base import ParsedRequest

_Said = tuple[str, Document]
"""An event's type, without `response.`, and its fields."""
_INPUTS: Final = {
    "function_call": ("arguments", "function_call_arguments"),
    "custom_tool_call": ("input", "custom_tool_call_input"),
}
"""Of an item that grows: its field, and what its events are called."""


def assemble(documents: Iterable[Document]) -> Document:
    """The response. Raises `NotUnderstood` where its end does not hold all that came before."""
    response: Any = None
    items = 0
    for event in documents:
        if event.get("type") == "response.output_item.done":
            items += 1
        elif event.get("type") == "response.completed":
            response = event.get("response")
    if len(a_list(an_object(response, "response").get("output"), "output")) < items:
        raise NotUnderstood("a response without the items that were streamed")
    return an_object(response, "response")


def replay(response: Document, request: ParsedRequest) -> bytes:  # noqa: ARG001 - all languages are asked alike
    """The events. Raises `NotUnderstood`."""
    return b"".join(
        b"event: %b\ndata: %b\n\n"
        % (f"response.{kind}".encode(), orjson.dumps({"type": f"response.{kind}", "sequence_number": number, **fields}))
        for number, (kind, fields) in enumerate(_events(response))
    )


def _events(response: Document) -> Iterator[_Said]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    if "completed_at" in begun:
        begun["completed_at"] = None
    yield "created", {"response": begun}
    yield "in_progress", {"response": begun}
    for index, item in enumerate(a_list(response.get("output"), "output")):
        yield from _item(index, an_object(item, "output"))
    yield "completed", {"response": response}


def _item(index: int, item: dict[str, Any]) -> Iterator[_Said]:
    begun, grown = _grown(item)
    if "status" in begun and grown:
        begun["status"] = "in_progress"
    place = {"item_id": item.get("id") or "", "output_index": index}
    yield "output_item.added", {"output_index": index, "item": begun}
    for kind, fields in grown:
        yield kind, {**place, **fields}
    yield "output_item.done", {"output_index": index, "item": item}


def _grown(item: dict[str, Any]) -> tuple[dict[str, Any], list[_Said]]:
    """What an item begins as, and the events by which it grows. One of another kind begins whole."""
    kind = item.get("type")
    if kind == "message":
        content = a_list(item.get("content"), "content")
        return {**item, "content": []}, [said for n, part in enumerate(content) for said in _part(n, part)]
    if kind in _INPUTS and isinstance(item.get(_INPUTS[kind][0]), str):
        field, events = _INPUTS[kind]
        name = {"name": item["name"]} if kind == "function_call" and "name" in item else {}
        grown: list[_Said] = [
            (f"{events}.delta", {"delta": item[field]}),
            (f"{events}.done", {**name, field: item[field]}),
        ]
        return {**item, field: ""}, grown
    if kind == "reasoning" and item.get("summary"):
        summary = a_list(item["summary"], "summary")
        return {**item, "summary": []}, [said for n, part in enumerate(summary) for said in _summary(n, part)]
    return dict(item), []


def _part(number: int, part: Any) -> Iterator[_Said]:
    whole = an_object(part, "content")
    place = {"content_index": number}
    if whole.get("type") != "output_text" or not isinstance(whole.get("text"), str):
        raise NotUnderstood(f"a part of `{whole.get('type')}`")
    logprobs = whole.get("logprobs") or []
    begun = {**whole, "text": "", "annotations": []}
    yield "content_part.added", {**place, "part": {**begun, "logprobs": []} if "logprobs" in whole else begun}
    yield "output_text.delta", {**place, "delta": whole["text"], "logprobs": logprobs}
    for index, annotation in enumerate(whole.get("annotations") or ()):
        yield "output_text.annotation.added", {**place, "annotation_index": index, "annotation": annotation}
    yield "output_text.done", {**place, "text": whole["text"], "logprobs": logprobs}
    yield "content_part.done", {**place, "part": whole}


def _summary(number: int, part: Any) -> Iterator[_Said]:
    whole = an_object(part, "summary")
    place = {"summary_index": number}
    if whole.get("type") != "summary_text" or not isinstance(whole.get("text"), str):
        raise NotUnderstood(f"a summary of `{whole.get('type')}`")
    yield "reasoning_summary_part.added", {**place, "part": {**whole, "text": ""}}
    yield "reasoning_summary_text.delta", {**place, "delta": whole["text"]}
    yield "reasoning_summary_text.done", {**place, "text": whole["text"]}
    yield "reasoning_summary_part.done", {**place, "part": whole}
