"""The parts of the middle, written as Gemini's: for requests and for answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.translation.foreign import CALL, leave_out
from llm_sidecar.translation.gemini.models import THINKING, THIRD, Generation
from llm_sidecar.translation.gemini.parts import MADE_ID, PADDING, UNTHOUGHT, URL_SAFE
from llm_sidecar.translation.losses import DETAIL, FILE_NAME, THINKING_SIGNATURE, Losses, Untranslatable
from llm_sidecar.translation.parts import (
    NOTHING,
    CacheMarker,
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
    ToolResult,
)
from llm_sidecar.translation.spelling import SpelledObject

_MEDIA_TYPES: Final[Mapping[MediaKind, tuple[str, ...]]] = {
    MediaKind.IMAGE: ("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"),
    MediaKind.DOCUMENT: ("application/pdf", "application/json", "text/"),
    MediaKind.AUDIO: ("audio/",),
    MediaKind.VIDEO: ("video/",),
}
"""What the models read, by prefix."""
_TYPE_OF_ENDING: Final[Mapping[str, str]] = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "heic": "image/heic",
    "heif": "image/heif",
    "pdf": "application/pdf",
}


@dataclass(slots=True, kw_only=True)
class PartEncoder:
    """Writes parts of one document."""

    own: bool
    """The document came in this API, and its `extra` with it."""
    losses: Losses
    generation: Generation
    """Of the model that is to read them."""
    names: dict[str, str] = field(default_factory=dict)
    """Names of tools by call id, as far as the turns were written: a result must tell it."""

    def kept(self, extra: Document) -> Document:
        """A node's `extra`, where it is ours."""
        return extra if self.own else NOTHING

    def encode(self, part: Part) -> dict[str, Any] | None:
        """One part; None where it is left out, which `losses` tells."""
        match part:
            case Text():
                return self._text(part)
            case Refusal():
                return {"text": part.text}
            case Thinking():
                return self._thinking(part)
            case ToolCall():
                return self._call(part)
            case ToolResult():
                return self._result(part)
            case Media():
                return self._media(part)
            case Native():
                return self._native(part)

    def _text(self, part: Text) -> dict[str, Any]:
        self._drop_marker(part.marker)
        if part.citations:
            self.losses.drop("citations")
        document = SpelledObject(self.kept(part.extra))
        document.put("text", part.text)
        document.put("thought", self.kept(part.extra).get(UNTHOUGHT))
        document.put("thoughtSignature", part.signature)
        return document.finish()

    def _thinking(self, part: Thinking) -> dict[str, Any] | None:
        if part.owner is not API.GEMINI:
            self.losses.drop("thinking")
            return None
        document = SpelledObject(self.kept(part.extra))
        document.put("text", part.text)
        document.put("thought", value=True)
        document.put("thoughtSignature", part.signature)
        return document.finish()

    def _call(self, part: ToolCall) -> dict[str, Any]:
        self._drop_marker(part.marker)
        if part.kind is ToolKind.CUSTOM:
            raise Untranslatable("a call of a tool that takes free text")
        self.names[part.id] = part.name
        extra = self.kept(part.extra)
        document = SpelledObject(extra)
        document.put("functionCall.id", _told_id(part.id, extra))
        document.put("functionCall.name", part.name)
        arguments = part.arguments_object()
        if self.own:
            document.put_object("functionCall.args", arguments)
        else:
            document.put("functionCall.args", dict(arguments))
        document.put("thoughtSignature", part.signature)
        return document.finish("functionCall")

    def _result(self, part: ToolResult) -> dict[str, Any]:
        self._drop_marker(part.marker)
        if part.kind is ToolKind.CUSTOM:
            raise Untranslatable("the result of a tool that takes free text")
        extra = self.kept(part.extra)
        document = SpelledObject(extra)
        document.put("functionResponse.id", _told_id(part.call_id, extra))
        name = part.name or self.names.get(part.call_id)
        if name is None:
            raise Untranslatable("the result of a tool that nobody called")
        document.put("functionResponse.name", name)
        document.put("functionResponse.response", part.result if self.own else self._response(part))
        if media := [self._media_of_result(each) for each in part.content if isinstance(each, Media)]:
            document.put("functionResponse.parts", media)
        return document.finish("functionResponse")

    def _response(self, part: ToolResult) -> Document:
        """`output` and `error` are the names by which the models know a result from a failure."""
        if part.result is not None:
            return part.result
        texts = [each for each in part.content if isinstance(each, Text)]
        for each in texts:
            self._drop_marker(each.marker)
        return {"error" if part.is_error else "output": "\n".join(each.text for each in texts)}

    def _media_of_result(self, part: Media) -> dict[str, Any]:
        if self.generation < THIRD or part.data is None:
            raise Untranslatable(f"{_a(part.kind)} in a tool's result")
        return self._media(part)

    def _media(self, part: Media) -> dict[str, Any]:
        self._drop_marker(part.marker)
        if not self.own:
            self._check_media(part)
        extra = self.kept(part.extra)
        document = SpelledObject(extra)
        if part.data is not None:
            document.put("inlineData.mimeType", part.media_type)
            document.put("inlineData.data", _as_it_came(part.data, extra))
            document.put("inlineData.displayName", part.name if self.own else None)
        else:
            document.put("fileData.mimeType", part.media_type or self._guessed_type(part))
            document.put("fileData.fileUri", part.url or part.file_id)
            document.put("fileData.displayName", part.name if self.own else None)
        return document.finish("inlineData", "fileData")

    def _check_media(self, part: Media) -> None:
        if part.detail is not None:
            self.losses.drop(DETAIL)
        if part.name is not None:
            self.losses.drop(FILE_NAME)
        if part.file_id is not None:
            raise Untranslatable("a file that is stored at its provider")
        if part.data is None and self.generation < THINKING:
            raise Untranslatable(f"{_a(part.kind)} by its address")
        if part.media_type is not None and not part.media_type.startswith(_MEDIA_TYPES[part.kind]):
            raise Untranslatable(f"{_a(part.kind)} of type {part.media_type}")

    def _guessed_type(self, part: Media) -> str | None:
        """Nobody asks the address: where its ending says nothing, neither do we."""
        if self.own or part.url is None:
            return None
        return _TYPE_OF_ENDING.get(part.url.partition("?")[0].rpartition(".")[2].lower())

    def _native(self, part: Native) -> dict[str, Any] | None:
        if part.owner is API.GEMINI:
            return dict(part.value)
        leave_out(part, self.losses)
        return None

    def _drop_marker(self, marker: CacheMarker | None) -> None:
        if marker is not None:
            self.losses.drop("cache_control")


class AnswerPartEncoder(PartEncoder):
    """For an answer, which is given already: what cannot be said is left out and told, and nothing refused."""

    def encode(self, part: Part) -> dict[str, Any] | None:
        """See `PartEncoder.encode`."""
        try:
            return super().encode(part)
        except Untranslatable:
            self.losses.drop(part.kind if isinstance(part, Native) else CALL)
            return None

    def _thinking(self, part: Thinking) -> dict[str, Any] | None:
        if part.owner is API.GEMINI:
            return super()._thinking(part)
        # The thoughts may be shown. Their signature is another provider's, which would be lost on the way back.
        if part.signature is not None or part.redacted is not None:
            self.losses.drop(THINKING_SIGNATURE)
        return {"text": part.text, "thought": True} if part.text else None

    def _check_media(self, part: Media) -> None:
        """What a model gave is shown as it is."""


def _told_id(call_id: str, extra: Document) -> str | None:
    made: Document | None = extra.get(MADE_ID)
    if made is None:
        return call_id or None
    told: str | None = made["told"]
    return told


def _as_it_came(data: str, extra: Document) -> str:
    if missing := extra.get(PADDING):
        data = data[:-missing]
    return data.replace("+", "-").replace("/", "_") if extra.get(URL_SAFE) else data


def _a(kind: MediaKind) -> str:
    return f"an {kind}" if kind in (MediaKind.IMAGE, MediaKind.AUDIO) else f"a {kind}"
