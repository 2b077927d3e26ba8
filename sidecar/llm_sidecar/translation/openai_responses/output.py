"""The items of an output, made of the parts of another provider's answer; whole, or as they grow in a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from llm_sidecar.contract.names import API
from llm_sidecar.translation.events import DeltaKind, Event, PartDelta, PartKind, PartStarted
from llm_sidecar.translation.losses import Losses
from llm_sidecar.translation.openai_responses import marks
from llm_sidecar.translation.parts import (
    Document,
    Media,
    MediaKind,
    Native,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolKind,
)

UNKNOWN_OWNER: Final = API.OPENAI_CHAT
"""Of thoughts whose provider is not told. That API has no signatures: such thoughts are nobody's to read again."""


def message_item(identity: str, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    """A message of the assistant."""
    return {"id": identity, "type": "message", "status": status, "role": "assistant", "content": content}


def text_content(text: str, annotations: list[Document], logprobs: list[Any]) -> dict[str, Any]:
    """Text of a message."""
    return {"type": "output_text", "annotations": annotations, "logprobs": logprobs, "text": text}


def refusal_content(text: str) -> dict[str, Any]:
    """A refusal in a message."""
    return {"type": "refusal", "refusal": text}


def reasoning_item(
    identity: str, text: str, *, owner: API | None, signature: str | None, redacted: str | None = None
) -> dict[str, Any]:
    """Thoughts, shown as a summary: that is where clients of this API look for them."""
    return {
        "id": identity,
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text}] if text else [],
        "encrypted_content": marks.seal(owner or UNKNOWN_OWNER, signature, redacted),
    }


def call_item(
    identity: str, *, call_id: str, name: str, text: str, custom: bool, signature: str | None, status: str
) -> dict[str, Any]:
    """A tool call. `text`: its arguments, or a custom tool's input."""
    item: dict[str, Any] = {"id": identity, "call_id": call_id, "name": name}
    if custom:
        item |= {"type": "custom_tool_call", "input": text}
    else:
        item |= {"type": "function_call", "arguments": text, "status": status}
    return item if signature is None else {**item, "extra_content": marks.with_call_signature(signature)}


def is_image(part: Part | None) -> TypeGuard[Media]:
    """True for an image that `image_item` can tell: this API has no item for other media of a model's."""
    return isinstance(part, Media) and part.kind is MediaKind.IMAGE and part.data is not None


def image_item(identity: str, part: Media) -> dict[str, Any]:
    """An image that the model made."""
    form = (part.media_type or "image/png").removeprefix("image/")
    return {
        "id": identity,
        "type": "image_generation_call",
        "status": "completed",
        "output_format": form,
        "result": part.data,
    }


def call_prefix(*, custom: bool) -> str:
    """With what the ids of tool calls begin."""
    return "ctc" if custom else "fc"


def annotation(citation: Document) -> Document | None:
    """A citation in this API's form; None where it is of a kind that this API cannot tell.

    OpenAI's chat has the same ones, one level deeper.
    """
    nested = citation.get("url_citation")
    if citation.get("type") == "url_citation" and isinstance(nested, dict):
        return {"type": "url_citation", **nested}
    return citation if citation.get("type") == "url_citation" and "url" in citation else None


def token_logprobs(logprobs: Document | None) -> list[Any] | None:
    """The entries of log probabilities in the form of OpenAI's chat, which are those of this API; None for others."""
    content = logprobs.get("content") if logprobs else None
    return content if isinstance(content, list) else None


def as_grown(event: PartStarted, whole: Part | None) -> list[Event] | None:
    """A whole part as the events of one that grew, but for its end; None for what this API has no item for."""
    part = event.part
    if isinstance(whole, Text | Refusal):
        kind = PartKind.TEXT if isinstance(whole, Text) else PartKind.REFUSAL
        begun: list[Event] = [PartStarted(part=part, kind=kind)]
        return [*begun, PartDelta(part=part, kind=DeltaKind.TEXT, text=whole.text)] if whole.text else begun
    if isinstance(whole, Thinking):
        begun = [PartStarted(part=part, kind=PartKind.THINKING, whole=whole)]
        if whole.text:
            begun.append(PartDelta(part=part, kind=DeltaKind.TEXT, text=whole.text))
        if whole.signature:
            begun.append(PartDelta(part=part, kind=DeltaKind.SIGNATURE, text=whole.signature))
        return begun
    if isinstance(whole, ToolCall):
        return [
            PartStarted(
                part=part,
                kind=PartKind.TOOL_CALL,
                tool_id=whole.id,
                tool_name=whole.name,
                custom=whole.kind is ToolKind.CUSTOM,
                signature=whole.signature,
            ),
            PartDelta(part=part, kind=DeltaKind.ARGUMENTS, text=whole.arguments_text()),
        ]
    return None


class OutputItems:
    """Puts parts into items: text and refusals that follow each other share a message."""

    __slots__ = ("_answer_id", "_items", "_losses", "_texts")

    def __init__(self, answer_id: str, losses: Losses) -> None:
        self._answer_id = answer_id
        self._losses = losses
        self._items: list[dict[str, Any]] = []
        self._texts: list[dict[str, Any]] = []

    def add(self, part: Part) -> None:
        """What this API has no item for is told and left out: the answer is paid for."""
        if isinstance(part, Text | Refusal):
            self._say(part)
            return
        identity = len(self._items)
        if isinstance(part, Thinking):
            self._items.append(
                reasoning_item(
                    self._id("rs", identity),
                    part.text,
                    owner=part.owner,
                    signature=part.signature,
                    redacted=part.redacted,
                )
            )
        elif isinstance(part, ToolCall):
            self._items.append(self._call(part, identity))
        elif is_image(part):
            self._items.append(image_item(self._id("ig", identity), part))
        else:
            self._losses.drop(part.kind if isinstance(part, Native | Media) else "tool_result")

    def take_logprobs(self, logprobs: Mapping[str, Any] | None) -> None:
        """Put the choice's log probabilities beside its text, if it has one text; else they cannot be told apart."""
        entries = token_logprobs(logprobs)
        if entries is not None and len(self._texts) == 1:
            self._texts[0]["logprobs"] = entries
        elif logprobs is not None:
            self._losses.drop("logprobs")

    def finished(self) -> list[dict[str, Any]]:
        """The whole output."""
        return self._items

    def _say(self, part: Text | Refusal) -> None:
        if not self._items or self._items[-1]["type"] != "message":
            self._items.append(message_item(self._id("msg", len(self._items)), [], "completed"))
        content: list[dict[str, Any]] = self._items[-1]["content"]
        if isinstance(part, Refusal):
            content.append(refusal_content(part.text))
            return
        if part.signature is not None:
            self._losses.drop("thought_signature")
        annotations = [annotation(each) for each in part.citations]
        if None in annotations:
            self._losses.drop("citations")
        content.append(text_content(part.text, [each for each in annotations if each is not None], []))
        self._texts.append(content[-1])

    def _call(self, part: ToolCall, number: int) -> dict[str, Any]:
        custom = part.kind is ToolKind.CUSTOM
        return call_item(
            self._id(call_prefix(custom=custom), number),
            call_id=part.id or self._id("call", number),
            name=part.name,
            text=part.arguments_text(),
            custom=custom,
            signature=part.signature,
            status="completed",
        )

    def _id(self, prefix: str, number: int) -> str:
        return marks.item_id(prefix, self._answer_id, number)
