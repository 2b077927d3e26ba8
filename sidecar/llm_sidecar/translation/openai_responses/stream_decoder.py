"""Streams of the Responses API, read.

Items and contents are numbered by the API; parts are numbered here, as they begin. What a delta did not tell, the
`done` event or the whole item at the end does: servers that resemble OpenAI leave some of either out. Items of unknown
kinds come in one piece when they are done, so the events of their growing mean nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

from llm_sidecar.contract.names import API
from llm_sidecar.formats import openai_errors
from llm_sidecar.formats.fields import count, load_mapping, mapping, text
from llm_sidecar.formats.sse import DONE, FrameSplitter, each_frame
from llm_sidecar.translation.answer import Finish
from llm_sidecar.translation.events import ChoiceEnded, DeltaKind, Ended, Event, Failed, PartKind, Started, UsageTold
from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.openai_responses import marks
from llm_sidecar.translation.openai_responses.answers import echo_marked, finish_of, told_usage
from llm_sidecar.translation.openai_responses.growing import WHOLE_ITEM, GrowingParts, Key
from llm_sidecar.translation.openai_responses.items import native

_CALLS: Final[Mapping[str | None, str]] = MappingProxyType({"function_call": "arguments", "custom_tool_call": "input"})
_ANSWER_FIELDS: Final = frozenset({"id", "model", "created_at", "output", "usage"})
_CONTENTS: Final[Mapping[str | None, PartKind]] = MappingProxyType(
    {"output_text": PartKind.TEXT, "refusal": PartKind.REFUSAL}
)
_CONTENT_FIELDS: Final = MappingProxyType({PartKind.TEXT: "text", PartKind.REFUSAL: "refusal"})

_Reader = Callable[["ResponsesStreamDecoder", dict[str, Any]], Iterator[Event]]


class ResponsesStreamDecoder:
    """See `StreamDecoder`."""

    __slots__ = ("_done_items", "_finished", "_parts", "_splitter", "_started")

    def __init__(self, *, max_frame_bytes: int) -> None:
        self._splitter = FrameSplitter(max_frame_bytes=max_frame_bytes)
        self._parts = GrowingParts()
        self._done_items: set[int] = set()
        self._started = False
        self._finished = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Events of the frames that are complete now. Raises `FrameTooLarge`, `Undecodable`."""
        return self._read_block(self._splitter.push(chunk))

    def finish(self) -> list[Event]:
        """Events of a last frame that is whole but for its empty line."""
        rest = self._splitter.rest()
        is_whole = all(load_mapping(data) is not None for _, data in each_frame(rest) if data)
        return self._read_block(rest) if is_whole else []

    def _read_block(self, block: bytes) -> list[Event]:
        events: list[Event] = []
        for name, data in each_frame(block):
            if self._finished or not data or data == DONE:
                continue
            document = load_mapping(data)
            if document is None:
                raise Undecodable("a stream event is not a JSON object")
            events += self._read(text(document, "type") or name.decode("ascii", "replace"), document)
        return events

    def _read(self, kind: str, document: dict[str, Any]) -> Iterator[Event]:
        if kind == "error" or (not kind and document.get("error")):
            yield self._failed(mapping(document, "error") or document)
        elif kind == "response.failed":
            yield self._failed(mapping(mapping(document, "response"), "error"))
        elif not kind:
            raise Undecodable("a stream event has no type")
        else:
            yield from self._start(mapping(document, "response"))
            reader = self._readers.get(kind)
            yield from self._unknown(kind, document) if reader is None else reader(self, document)

    def _failed(self, error: Mapping[str, Any]) -> Failed:
        told = openai_errors.read_stream_error(error)
        self._finished = True
        return Failed(status=told.status, code=told.code, message=told.message)

    def _start(self, response: Mapping[str, Any]) -> Iterator[Event]:
        if self._started:
            return
        self._started = True
        created = response.get("created_at")
        rest = {name: value for name, value in response.items() if name not in _ANSWER_FIELDS}
        yield Started(
            id=text(response, "id") or "",
            model=text(response, "model") or "",
            api=API.OPENAI_RESPONSES,
            created_seconds=int(created) if isinstance(created, int | float) else None,
            extra=echo_marked(rest),
        )

    def _unknown(self, kind: str, document: dict[str, Any]) -> Iterator[Event]:
        """What belongs to an item comes with it; content beside all items (audio) is told as it is."""
        if "delta" in document and "item_id" not in document and "output_index" not in document:
            yield from self._parts.whole(native(document, kind))

    def _item_added(self, document: dict[str, Any]) -> Iterator[Event]:
        index, item = _index(document, "output_index"), mapping(document, "item")
        kind = text(item, "type")
        if kind in _CALLS:
            yield from self._begin_call(index, item)
        elif kind == "reasoning":
            yield from self._begin_thoughts(index)

    def _item_done(self, document: dict[str, Any]) -> Iterator[Event]:
        index, item = _index(document, "output_index"), mapping(document, "item")
        if index in self._done_items:
            return
        self._done_items.add(index)
        kind = text(item, "type")
        if kind == "message":
            contents = item.get("content")
            for number, content in enumerate(contents if isinstance(contents, list) else ()):
                yield from self._finish_content((index, number), content)
        elif kind in _CALLS:
            yield from self._begin_call(index, item)
            yield from self._parts.complete((index, WHOLE_ITEM), item.get(_CALLS[kind]), DeltaKind.ARGUMENTS)
        elif kind == "reasoning":
            yield from self._finish_thoughts(index, item)
        else:
            yield from self._parts.whole(native(dict(item), str(kind)))

    def _begin_call(self, index: int, item: Mapping[str, Any]) -> Iterator[Event]:
        content = item.get("extra_content")
        yield from self._parts.begin(
            (index, WHOLE_ITEM),
            PartKind.TOOL_CALL,
            tool_id=text(item, "call_id") or "",
            tool_name=text(item, "name") or "",
            custom=item.get("type") == "custom_tool_call",
            signature=marks.call_signature(content if isinstance(content, dict) else None),
        )

    def _begin_thoughts(self, index: int) -> Iterator[Event]:
        yield from self._parts.begin((index, WHOLE_ITEM), PartKind.THINKING)

    def _finish_thoughts(self, index: int, item: Mapping[str, Any]) -> Iterator[Event]:
        key = (index, WHOLE_ITEM)
        yield from self._begin_thoughts(index)
        if self._parts.has_ended(key):
            return
        if not self._parts.has_text(key):
            for name in ("summary", "content"):
                parts = item.get(name)
                for number, part in enumerate(parts if isinstance(parts, list) else ()):
                    told = text(part, "text") if isinstance(part, dict) else None
                    yield from self._parts.think(key, (name, number), told)
        yield from self._parts.grow(key, text(item, "encrypted_content") or "", DeltaKind.SIGNATURE)
        yield from self._parts.end(key)

    def _content_added(self, document: dict[str, Any]) -> Iterator[Event]:
        kind = _CONTENTS.get(text(mapping(document, "part"), "type"))
        if kind is not None:
            yield from self._parts.begin(_content_key(document), kind)

    def _content_done(self, document: dict[str, Any]) -> Iterator[Event]:
        part = mapping(document, "part")
        if part.get("type") != "reasoning_text":
            yield from self._finish_content(_content_key(document), part)

    def _finish_content(self, key: Key, content: Any) -> Iterator[Event]:
        """The end of a message's content, told twice: by itself and with the whole message."""
        if self._parts.has_ended(key):
            return
        if not isinstance(content, dict):
            raise Undecodable("the content of a message is not an object")
        kind = _CONTENTS.get(text(content, "type"))
        if kind is None:
            yield from self._parts.whole(native(content, str(content.get("type"))), key)
            return
        yield from self._parts.begin(key, kind)
        yield from self._parts.complete(key, content.get(_CONTENT_FIELDS[kind]), DeltaKind.TEXT)

    def _text_delta(self, document: dict[str, Any]) -> Iterator[Event]:
        key, entries = _content_key(document), document.get("logprobs")
        yield from self._parts.begin(key, PartKind.TEXT)
        logprobs = {"content": entries} if entries else None
        yield from self._parts.grow(key, document.get("delta"), DeltaKind.TEXT, logprobs=logprobs)

    def _refusal_delta(self, document: dict[str, Any]) -> Iterator[Event]:
        key = _content_key(document)
        yield from self._parts.begin(key, PartKind.REFUSAL)
        yield from self._parts.grow(key, document.get("delta"), DeltaKind.TEXT)

    def _annotation(self, document: dict[str, Any]) -> Iterator[Event]:
        key = _content_key(document)
        yield from self._parts.begin(key, PartKind.TEXT)
        yield from self._parts.cite(key, mapping(document, "annotation"))

    def _call_delta(self, document: dict[str, Any]) -> Iterator[Event]:
        key = (_index(document, "output_index"), WHOLE_ITEM)
        yield from self._parts.grow(key, document.get("delta"), DeltaKind.ARGUMENTS)

    def _summary_delta(self, document: dict[str, Any]) -> Iterator[Event]:
        yield from self._thoughts_delta(document, ("summary", document.get("summary_index")))

    def _reasoning_delta(self, document: dict[str, Any]) -> Iterator[Event]:
        yield from self._thoughts_delta(document, ("content", document.get("content_index")))

    def _thoughts_delta(self, document: dict[str, Any], paragraph: object) -> Iterator[Event]:
        index = _index(document, "output_index")
        yield from self._begin_thoughts(index)
        yield from self._parts.think((index, WHOLE_ITEM), paragraph, document.get("delta"))

    def _end_of_answer(self, document: dict[str, Any]) -> Iterator[Event]:
        response = mapping(document, "response")
        output = response.get("output")
        for index, item in enumerate(output if isinstance(output, list) else ()):
            yield from self._item_done({"output_index": index, "item": item})
        yield from self._parts.end_all()
        finish = finish_of(
            response,
            calls=PartKind.TOOL_CALL in self._parts.kinds,
            refuses=PartKind.REFUSAL in self._parts.kinds,
        )
        yield ChoiceEnded(finish=finish or Finish.STOP)
        usage = told_usage(mapping(response, "usage") or None)
        if usage is not None:
            yield UsageTold(usage=usage)
        self._finished = True
        yield Ended()

    _readers: ClassVar[Mapping[str, _Reader]] = MappingProxyType(
        {
            "response.output_item.added": _item_added,
            "response.output_item.done": _item_done,
            "response.content_part.added": _content_added,
            "response.content_part.done": _content_done,
            "response.output_text.delta": _text_delta,
            "response.output_text.annotation.added": _annotation,
            "response.refusal.delta": _refusal_delta,
            "response.function_call_arguments.delta": _call_delta,
            "response.custom_tool_call_input.delta": _call_delta,
            "response.reasoning_summary_text.delta": _summary_delta,
            "response.reasoning_text.delta": _reasoning_delta,
            "response.completed": _end_of_answer,
            "response.incomplete": _end_of_answer,
        }
    )


def _index(document: Mapping[str, Any], name: str) -> int:
    index = count(document, name)
    if index is None:
        raise Undecodable(f"a stream event's {name} is missing")
    return index


def _content_key(document: Mapping[str, Any]) -> Key:
    return _index(document, "output_index"), _index(document, "content_index")
