"""A whole answer of chat completions, to and from the middle."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.translation.answer import Answer, Choice, ToldUsage
from llm_sidecar.translation.conversation import Role, Turn
from llm_sidecar.translation.foreign import drop_answer_extras
from llm_sidecar.translation.losses import THINKING_SIGNATURE, Losses, Undecodable
from llm_sidecar.translation.openai_chat.finishes import decode_finish, encode_finish
from llm_sidecar.translation.openai_chat.leftovers import restore
from llm_sidecar.translation.openai_chat.messages import decode_message, encode_message, signature_field
from llm_sidecar.translation.openai_chat.usage import decode_usage, encode_usage
from llm_sidecar.translation.parts import Document, Media, Native, Part, Refusal, Text, Thinking, ToolCall
from llm_sidecar.translation.reading import Fields

_OBJECT: Final = "chat.completion"
_LONGEST_ID_PART: Final = 24
"""OpenAI takes ids of tool calls of at most 40 characters."""


def decode_answer(document: Mapping[str, Any]) -> Answer:
    """Raises `Undecodable`."""
    fields = Fields(document, "the answer")
    form: dict[str, Any] = {}
    for name, usual in (("object", _OBJECT), ("id", None), ("model", None)):
        if name not in document or (usual is not None and document[name] != usual):
            form[f"${name}"] = fields.take(name)
    fields.take("object")
    choices = fields.array("choices")
    if choices is None:
        raise Undecodable("choices must be an array")
    usage = fields.object("usage")
    return Answer(
        api=API.OPENAI_CHAT,
        id=fields.text("id") or "",
        model=fields.text("model") or "",
        choices=tuple(_decode_choice(choice, n) for n, choice in enumerate(choices)),
        created_seconds=fields.whole("created"),
        usage=None if usage is None else decode_usage(usage),
        extra={**fields.rest, **form},
    )


def _decode_choice(choice: Any, position: int) -> Choice:
    where = f"choices[{position}]"
    fields = Fields(choice, where)
    message = fields.object("message")
    if message is None:
        raise Undecodable(f"{where}.message must be an object")
    turn = decode_message({"role": "assistant", **message}, f"{where}.message")
    if turn.role is not Role.ASSISTANT:
        raise Undecodable(f"{where}.message.role must be `assistant`")
    form: dict[str, Any] = {} if "role" in message else {"$role": "absent"}
    if turn.name is not None:
        form["message.name"] = turn.name
    index, word = fields.whole("index"), fields.text("finish_reason")
    if index is None:
        form["$index"] = "absent"
    parts, left = _with_citations(turn)
    refused = any(isinstance(part, Refusal) for part in parts)
    return Choice(
        index=position if index is None else index,
        parts=parts,
        finish=None if word is None else decode_finish(word, refused=refused),
        logprobs=fields.object("logprobs"),
        extra={**fields.rest, **form, "$finish": word, **_prefixed(left)},
    )


def _with_citations(turn: Turn) -> tuple[tuple[Part, ...], Document]:
    """Citations stand beside the text; they belong to it."""
    found = turn.extra.get("annotations")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        return turn.parts, turn.extra
    if sum(isinstance(part, Text) for part in turn.parts) != 1:
        return turn.parts, turn.extra
    parts = tuple(replace(part, citations=tuple(found)) if isinstance(part, Text) else part for part in turn.parts)
    return parts, {name: value for name, value in turn.extra.items() if name != "annotations"}


def _prefixed(extra: Document) -> dict[str, Any]:
    """The message's own leftovers, within its choice's."""
    return {
        f"$message.{name[1:]}" if name.startswith("$") else f"message.{name}": value for name, value in extra.items()
    }


def _unprefixed(extra: Document) -> dict[str, Any]:
    found = {}
    for name, value in extra.items():
        if name.startswith("$message."):
            found[f"${name.removeprefix('$message.')}"] = value
        elif name.startswith("message."):
            found[name.removeprefix("message.")] = value
    return found


def encode_answer(answer: Answer, losses: Losses) -> Mapping[str, Any]:
    """The answer's document. It is paid for: what a message cannot say is left out and told, and nothing refused."""
    return _encode_own(answer) if answer.api is API.OPENAI_CHAT else _encode_foreign(answer, losses)


def _encode_own(answer: Answer) -> Mapping[str, Any]:
    extra = answer.extra
    document: dict[str, Any] = {"id": answer.id, "object": _OBJECT, "model": answer.model}
    for name in ("id", "object", "model"):
        if f"${name}" in extra:
            del document[name]
            document |= {name: extra[f"${name}"]} if extra[f"${name}"] is not None else {}
    if answer.created_seconds is not None:
        document["created"] = answer.created_seconds
    document["choices"] = [_encode_own_choice(choice) for choice in answer.choices]
    if answer.usage is not None:
        document["usage"] = dict(answer.usage.extra)
    return restore(document, extra)


def _encode_own_choice(choice: Choice) -> dict[str, Any]:
    message = encode_message(Turn(role=Role.ASSISTANT, parts=choice.parts, extra=_unprefixed(choice.extra)))
    citations = [citation for part in choice.parts if isinstance(part, Text) for citation in part.citations]
    if citations:
        message["annotations"] = citations
    if "$role" in choice.extra:
        del message["role"]
    document: dict[str, Any] = {} if "$index" in choice.extra else {"index": choice.index}
    document["message"] = message
    if choice.logprobs is not None:
        document["logprobs"] = choice.logprobs
    if choice.extra.get("$finish") is not None:
        document["finish_reason"] = choice.extra["$finish"]
    left = {name: value for name, value in choice.extra.items() if not name.startswith("message.")}
    return restore(document, left)


def _encode_foreign(answer: Answer, losses: Losses) -> Mapping[str, Any]:
    drop_answer_extras(answer, losses)
    answer_id = answer.id or f"chatcmpl-{uuid.uuid4().hex}"
    document: dict[str, Any] = {
        "id": answer_id,
        "object": _OBJECT,
        "created": answer.created_seconds if answer.created_seconds is not None else int(time.time()),
        "model": answer.model,
        "choices": [_encode_foreign_choice(choice, answer_id, losses) for choice in answer.choices],
    }
    usage: ToldUsage | None = answer.usage
    return document if usage is None else {**document, "usage": encode_usage(usage.buckets)}


def _encode_foreign_choice(choice: Choice, answer_id: str, losses: Losses) -> dict[str, Any]:
    if choice.logprobs is not None:
        losses.drop("logprobs")
    if choice.stop_sequence is not None:
        losses.drop("stop_sequence")
    said = _Said(answer_id, choice.index, losses)
    for part in choice.parts:
        said.take(part)
    finish = None
    if choice.finish is not None:
        refused, called = said.refusal is not None, bool(said.calls)
        finish = encode_finish(choice.finish, refused=refused, called=called, losses=losses)
    return {"index": choice.index, "message": said.message(), "logprobs": None, "finish_reason": finish}


class _Said:
    """What a foreign answer said, gathered under the few fields of a message."""

    __slots__ = ("_answer_id", "_choice", "_content", "_losses", "_thoughts", "calls", "refusal")

    def __init__(self, answer_id: str, choice: int, losses: Losses) -> None:
        self._answer_id = answer_id
        self._choice = choice
        self._losses = losses
        self._content: str | None = None
        self._thoughts: str | None = None
        self.refusal: str | None = None
        self.calls: list[dict[str, Any]] = []

    def take(self, part: Part) -> None:
        """What has no place in a message is told and left out."""
        if isinstance(part, Text):
            self._content = (self._content or "") + part.text
            drop_of_text(part, self._losses)
        elif isinstance(part, Thinking):
            self._thoughts = ((self._thoughts or "") + part.text) or None
            drop_of_thinking(part, self._losses)
        elif isinstance(part, Refusal):
            self.refusal = (self.refusal or "") + part.text
        elif isinstance(part, ToolCall):
            self.calls.append(call_field(part, made_up_id(self._answer_id, self._choice, len(self.calls))))
        else:
            self._losses.drop(name_of(part))

    def message(self) -> dict[str, Any]:
        """The message, with the fields that are always there."""
        message: dict[str, Any] = {"role": "assistant", "content": self._content, "refusal": self.refusal}
        if self._thoughts is not None:
            message["reasoning_content"] = self._thoughts
        if self.calls:
            message["tool_calls"] = self.calls
        return message


def name_of(part: Part) -> str:
    """The name under which a part without a place in a message is told as left out."""
    if isinstance(part, Native):
        return part.kind
    return part.kind.value if isinstance(part, Media) else "tool_result"


def drop_of_text(text: Text, losses: Losses) -> None:
    """Tell what a chat message cannot say of a text."""
    if text.citations:
        losses.drop("citations")
    if text.signature is not None:
        losses.drop("thought_signature")


def drop_of_thinking(thinking: Thinking, losses: Losses) -> None:
    """Tell what a chat message cannot say of thoughts: all but their text."""
    if thinking.signature is not None:
        losses.drop("thought_signature" if thinking.owner is API.GEMINI else THINKING_SIGNATURE)
    if thinking.redacted is not None:
        losses.drop("redacted_thinking")


def call_field(call: ToolCall, made_up: str) -> dict[str, Any]:
    """One of `tool_calls`, of a foreign call."""
    kind = call.kind.value
    argument = "arguments" if kind == "function" else "input"
    inner = {"name": call.name, argument: call.arguments_text() or ("{}" if kind == "function" else "")}
    return {"id": call.id or made_up, "type": kind, kind: inner, **signature_field(call.signature)}


def made_up_id(answer_id: str, choice: int, position: int) -> str:
    """An id for a call without one. Of this answer alone: a conversation has many answers, and each may call."""
    return f"call_{answer_id[-_LONGEST_ID_PART:]}_{choice}_{position}"
