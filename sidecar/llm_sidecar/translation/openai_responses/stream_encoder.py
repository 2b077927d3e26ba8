"""Streams of the Responses API, written for an application from another provider's answer.

    response.created, response.in_progress,
    (output_item.added, (content_part.added, output_text.delta…, output_text.done, content_part.done)…,
     output_item.done)…, response.completed

with one number for each event, and the whole response at the beginning and at the end. Text and refusals that follow
each other share a message; thoughts are told as a reasoning summary.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from llm_sidecar.contract.names import API
from llm_sidecar.formats.openai_responses import error_event
from llm_sidecar.translation.answer import Finish, ToldUsage
from llm_sidecar.translation.conversation import Conversation
from llm_sidecar.translation.events import (
    ChoiceEnded,
    DeltaKind,
    Ended,
    Event,
    Failed,
    PartDelta,
    PartEnded,
    PartKind,
    PartStarted,
    Started,
    UsageTold,
)
from llm_sidecar.translation.foreign import CALL, PART, drop_extra
from llm_sidecar.translation.losses import Losses
from llm_sidecar.translation.openai_responses import marks, output
from llm_sidecar.translation.openai_responses.answers import response_document
from llm_sidecar.translation.openai_responses.requests import encode_settings
from llm_sidecar.translation.parts import NOTHING, Document, Media, Refusal, Text, Thinking, ToolCall


@dataclass(slots=True)
class _Item:
    """An item that grows."""

    index: int
    id: str
    begun: PartStarted
    """Of its first part."""
    content: list[dict[str, Any]] = field(default_factory=list)
    """Of a message: the contents that are whole."""
    texts: list[str] = field(default_factory=list)
    """What the deltas of the part that grows told."""
    annotations: list[Document] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    signature: str = ""


class ResponsesStreamEncoder:
    """See `StreamEncoder`."""

    __slots__ = (
        "_finish",
        "_growing",
        "_losses",
        "_message",
        "_number",
        "_output",
        "_refused",
        "_settings",
        "_started",
        "_usage",
    )

    def __init__(self, conversation: Conversation, *, losses: Losses) -> None:
        self._losses = losses
        self._settings = _echo(conversation)
        self._started = Started(id="", model=conversation.model)
        self._number = 0
        self._output: list[dict[str, Any] | None] = []
        self._growing: dict[int, _Item] = {}
        self._message: _Item | None = None
        self._finish = Finish.STOP
        self._usage: ToldUsage | None = None
        self._refused = False

    def encode(self, events: Iterable[Event]) -> bytes:
        """The frames for these events."""
        return b"".join(frame for event in events for frame in self._frames(event))

    def error_tail(self, status: int, code: str, message: str) -> bytes:
        """The error event at which the SDK raises."""
        return error_event(status, code, message, sequence_number=self._number)

    def _frames(self, event: Event) -> list[bytes]:
        if isinstance(event, PartStarted | PartDelta | PartEnded | ChoiceEnded) and event.choice:
            self._losses.drop("choices")
            return []
        if isinstance(event, PartDelta):
            return self._delta(event)
        if isinstance(event, PartStarted):
            return self._begin(event)
        if isinstance(event, PartEnded):
            return self._end(event.part)
        if isinstance(event, Started):
            return self._start(event)
        if isinstance(event, Failed):
            return [self.error_tail(event.status, event.code, event.message)]
        if isinstance(event, ChoiceEnded):
            return self._end_choice(event)
        if isinstance(event, UsageTold):
            self._usage = event.usage
            return []
        return self._complete(event)

    def _start(self, event: Started) -> list[bytes]:
        identity = marks.response_id(event.id)
        created = int(time.time()) if event.created_seconds is None else event.created_seconds
        self._started = replace(event, id=identity, model=event.model or self._started.model, created_seconds=created)
        drop_extra(event.extra, where="", losses=self._losses)
        self._usage = event.usage
        response = self._response([], None)
        return [
            self._event("response.created", response=response),
            self._event("response.in_progress", response=response),
        ]

    def _begin(self, event: PartStarted) -> list[bytes]:
        drop_extra(event.extra, where=CALL if event.kind is PartKind.TOOL_CALL else PART, losses=self._losses)
        if event.kind in (PartKind.TEXT, PartKind.REFUSAL):
            return self._begin_content(event)
        if event.kind is PartKind.WHOLE:
            return self._whole(event)
        closed = self._close_message()
        prefix = "rs" if event.kind is PartKind.THINKING else output.call_prefix(custom=event.custom)
        item = self._new_item(prefix, event)
        self._growing[event.part] = item
        document = self._document(item, "in_progress")
        if event.kind is PartKind.THINKING:
            document.pop("encrypted_content")  # is told when the item is done
        return [*closed, self._item_event("added", item, document)]

    def _begin_content(self, event: PartStarted) -> list[bytes]:
        frames = []
        if self._message is None:
            self._message = self._new_item("msg", event)
            added = output.message_item(self._message.id, [], "in_progress")
            frames.append(self._item_event("added", self._message, added))
        message = self._message
        message.begun = event
        message.texts, message.annotations, message.logprobs = [], [], []
        self._growing[event.part] = message
        self._refused = self._refused or event.kind is PartKind.REFUSAL
        return [*frames, self._content_event("content_part.added", message, part=_content(message))]

    def _delta(self, event: PartDelta) -> list[bytes]:
        item = self._growing.get(event.part)
        if item is None:
            return []
        if event.kind is DeltaKind.SIGNATURE:
            self._sign(item, event.text)
            return []
        if event.kind is DeltaKind.CITATION:
            return self._cite(item, event.citation or NOTHING)
        kind = item.begun.kind
        first = not item.texts
        item.texts.append(event.text)
        if kind is PartKind.TEXT:
            return [self._text_delta(item, event)]
        if kind is PartKind.REFUSAL:
            return [self._content_event("refusal.delta", item, delta=event.text)]
        if kind is PartKind.THINKING:
            added = [self._summary_event("summary_part.added", item, part=_summary(""))] if first else []
            return [*added, self._summary_event("summary_text.delta", item, delta=event.text)]
        return [self._of_item(f"{_call_events(item)}.delta", item, delta=event.text)]

    def _text_delta(self, item: _Item, event: PartDelta) -> bytes:
        entries = output.token_logprobs(event.logprobs)
        if entries is None and event.logprobs is not None:
            self._losses.drop("logprobs")
        item.logprobs += entries or []
        return self._content_event("output_text.delta", item, delta=event.text, logprobs=entries or [])

    def _sign(self, item: _Item, signature: str) -> None:
        if item.begun.kind is PartKind.THINKING:
            item.signature += signature
        else:
            self._losses.drop("thought_signature")

    def _cite(self, item: _Item, citation: Document) -> list[bytes]:
        annotation = output.annotation(citation) if item.begun.kind is PartKind.TEXT else None
        if annotation is None:
            self._losses.drop("citations")
            return []
        item.annotations.append(annotation)
        number = len(item.annotations) - 1
        event = "output_text.annotation.added"
        return [self._content_event(event, item, annotation=annotation, annotation_index=number)]

    def _end(self, part: int) -> list[bytes]:
        item = self._growing.pop(part, None)
        if item is None:
            return []
        kind, text = item.begun.kind, "".join(item.texts)
        if kind in (PartKind.TEXT, PartKind.REFUSAL):
            return self._end_content(item, text)
        frames = []
        if kind is PartKind.THINKING:
            if item.texts:
                frames.append(self._summary_event("summary_text.done", item, text=text))
                frames.append(self._summary_event("summary_part.done", item, part=_summary(text)))
        else:
            field_name = "input" if item.begun.custom else "arguments"
            frames.append(self._of_item(f"{_call_events(item)}.done", item, **{field_name: text}))
        return [*frames, self._done(item, self._document(item, "completed"))]

    def _end_content(self, message: _Item, text: str) -> list[bytes]:
        content = _content(message)
        if message.begun.kind is PartKind.TEXT:
            done = self._content_event("output_text.done", message, text=text, logprobs=message.logprobs)
        else:
            done = self._content_event("refusal.done", message, refusal=text)
        ended = self._content_event("content_part.done", message, part=content)
        message.content.append(content)
        return [done, ended]

    def _close_message(self, status: str = "completed") -> list[bytes]:
        message, self._message = self._message, None
        if message is None:
            return []
        return [self._done(message, output.message_item(message.id, message.content, status))]

    def _whole(self, event: PartStarted) -> list[bytes]:
        """A part in one piece, told as if it had grown."""
        whole = event.whole
        if isinstance(whole, Text | Refusal | Media | ToolCall):
            where = CALL if isinstance(whole, ToolCall) else PART
            drop_extra(whole.extra, where=where, losses=self._losses)
        if output.is_image(whole):
            closed = self._close_message()
            item = self._new_item("ig", event)
            document = output.image_item(item.id, whole)
            added = document | {"status": "in_progress", "result": None}
            return [*closed, self._item_event("added", item, added), self._done(item, document)]
        grown = output.as_grown(event, whole)
        if grown is None:
            self._losses.drop(getattr(whole, "kind", "tool_result"))
            return []
        # Its `PartEnded` comes by itself.
        return [frame for each in grown for frame in self._frames(each)]

    def _end_choice(self, event: ChoiceEnded) -> list[bytes]:
        self._finish = event.finish
        if event.stop_sequence is not None:
            self._losses.drop("stop_sequence")
        drop_extra(event.extra, where="choices", losses=self._losses)
        return []

    def _complete(self, event: Ended) -> list[bytes]:
        drop_extra(event.extra, where="", losses=self._losses)
        response = self._response([], self._finish)
        status = response["status"]
        closed = self._close_message(status)
        response["output"] = [item for item in self._output if item is not None]
        return [*closed, self._event(f"response.{status}", response=response)]

    def _response(self, items: list[dict[str, Any]], finish: Finish | None) -> dict[str, Any]:
        return response_document(
            identity=self._started.id,
            model=self._started.model,
            created_seconds=self._started.created_seconds,
            output=items,
            finish=finish,
            refused=self._refused,
            usage=self._usage,
            settings=self._settings,
        )

    def _new_item(self, prefix: str, begun: PartStarted) -> _Item:
        index = len(self._output)
        self._output.append(None)
        return _Item(index=index, id=marks.item_id(prefix, self._started.id, index), begun=begun)

    def _document(self, item: _Item, status: str) -> dict[str, Any]:
        begun, text = item.begun, "".join(item.texts)
        if begun.kind is PartKind.THINKING:
            redacted = begun.whole.redacted if isinstance(begun.whole, Thinking) else None
            signature = item.signature or None
            return output.reasoning_item(item.id, text, owner=self._started.api, signature=signature, redacted=redacted)
        return output.call_item(
            item.id,
            call_id=begun.tool_id or marks.item_id("call", self._started.id, item.index),
            name=begun.tool_name,
            text=text,
            custom=begun.custom,
            signature=begun.signature,
            status=status,
        )

    def _done(self, item: _Item, document: dict[str, Any]) -> bytes:
        self._output[item.index] = document
        return self._item_event("done", item, document)

    def _item_event(self, what: str, item: _Item, document: dict[str, Any]) -> bytes:
        return self._event(f"response.output_item.{what}", output_index=item.index, item=document)

    def _of_item(self, name: str, item: _Item, **fields: Any) -> bytes:
        return self._event(f"response.{name}", item_id=item.id, output_index=item.index, **fields)

    def _content_event(self, name: str, item: _Item, **fields: Any) -> bytes:
        return self._of_item(name, item, content_index=len(item.content), **fields)

    def _summary_event(self, name: str, item: _Item, **fields: Any) -> bytes:
        return self._of_item(f"reasoning_{name}", item, summary_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        document = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(document))


def _echo(conversation: Conversation) -> Mapping[str, Any]:
    """What an answer tells of its request."""
    return encode_settings(conversation) if conversation.api is API.OPENAI_RESPONSES else NOTHING


def _content(message: _Item) -> dict[str, Any]:
    text = "".join(message.texts)
    if message.begun.kind is PartKind.REFUSAL:
        return output.refusal_content(text)
    return output.text_content(text, message.annotations, message.logprobs)


def _summary(text: str) -> dict[str, Any]:
    return {"type": "summary_text", "text": text}


def _call_events(item: _Item) -> str:
    return "custom_tool_call_input" if item.begun.custom else "function_call_arguments"
