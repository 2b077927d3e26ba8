"""Parts written as content blocks: as they came if they are Anthropic's, else what Anthropic can say of them.

Left out and named: image detail, file names of images, citations, signatures and thinking of others. Refused: sound and
video, files that another provider keeps, images other than JPEG, PNG, GIF and WebP, documents other than PDF and text,
tools that take free text, what only another provider knows.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from llm_sidecar.translation.anthropic_messages.blocks import (
    ABSENT,
    BY_THE_MODEL,
    CALLER,
    CITATIONS,
    CONTENT,
    OWN,
    SOURCE,
    SPELLINGS,
    STRING,
)
from llm_sidecar.translation.foreign import leave_out
from llm_sidecar.translation.losses import DETAIL, FILE_NAME, Losses, Untranslatable
from llm_sidecar.translation.parts import (
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

_IMAGE_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_PDF: Final = "application/pdf"
_LIFETIMES: Final = frozenset({"5m", "1h"})
_WEB: Final = ("https://", "http://")


def rest(extra: Document) -> dict[str, Any]:
    """The fields of an `extra` of Anthropic's, without what only says how something was spelled."""
    return {name: value for name, value in extra.items() if name not in SPELLINGS}


def marker(part_marker: CacheMarker | None, *, is_own: bool) -> dict[str, Any]:
    """`cache_control`, if there is one. A lifetime that only another API has is left to Anthropic."""
    if part_marker is None:
        return {}
    ttl = part_marker.ttl
    lifetime = {"ttl": ttl} if ttl in _LIFETIMES or (is_own and ttl is not None) else {}
    return {"cache_control": {"type": "ephemeral", **lifetime}}


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockWriter:
    """Writes parts. `is_own`: they came in this language, so their `extra` belongs to it."""

    is_own: bool
    losses: Losses

    def blocks(self, parts: Iterable[Part]) -> list[dict[str, Any]]:
        """The blocks of these parts; fewer where something is left out."""
        return [block for part in parts if (block := self.block(part)) is not None]

    def block(self, part: Part) -> dict[str, Any] | None:
        """One block; None if it is left out."""
        match part:
            case Text():
                return self.text(part)
            case Refusal():
                return {"type": "text", "text": part.text} if part.text.strip() else None
            case Media():
                return self._media(part)
            case Thinking():
                return self._thinking(part)
            case ToolCall():
                return self._call(part)
            case ToolResult():
                return self._result(part)
            case Native():
                return self._native(part)

    def text(self, part: Text) -> dict[str, Any] | None:
        """Anthropic refuses blocks without text, which others allow: they say nothing, and are left out."""
        block = {"type": "text", "text": part.text, **marker(part.marker, is_own=self.is_own)}
        if self.is_own:
            citations = {"citations": list(part.citations)} if part.citations or CITATIONS in part.extra else {}
            return {**block, **citations, **rest(part.extra)}
        if part.citations:
            self.losses.drop("citations")
        if part.signature is not None:
            self.losses.drop("thought_signature")
        return block if part.text.strip() else None

    def _media(self, media: Media) -> dict[str, Any]:
        kind = "image" if media.kind is MediaKind.IMAGE else "document"
        if not self.is_own:
            self._check_media(media)
        title = {"title": media.name} if media.name is not None and kind == "document" else {}
        extra = rest(media.extra) if self.is_own else {}
        return {
            "type": kind,
            "source": self._source(media),
            **title,
            **marker(media.marker, is_own=self.is_own),
            **extra,
        }

    def _check_media(self, media: Media) -> None:
        if media.kind not in (MediaKind.IMAGE, MediaKind.DOCUMENT):
            raise Untranslatable(f"{media.kind} input")
        if media.file_id is not None:
            raise Untranslatable("a file that another provider keeps")
        if media.url is not None and not media.url.lower().startswith(_WEB):
            raise Untranslatable(f"a URL of {media.kind} input that is neither http nor https")
        if media.detail is not None:
            self.losses.drop(DETAIL)
        if media.kind is MediaKind.IMAGE:
            self._check_image(media)
        elif media.url is not None:
            if media.media_type not in (None, _PDF):
                raise Untranslatable("a document by URL that is no PDF")
        elif media.media_type != _PDF and not (media.media_type or "").startswith("text/"):
            raise Untranslatable("a document that is neither PDF nor text")

    def _check_image(self, media: Media) -> None:
        if media.data is not None and media.media_type not in _IMAGE_TYPES:
            raise Untranslatable("an image that is not JPEG, PNG, GIF or WebP")
        if media.name is not None:
            self.losses.drop(FILE_NAME)

    def _source(self, media: Media) -> dict[str, Any]:
        if media.url is not None:
            return {"type": "url", "url": media.url}
        if media.file_id is not None:
            return {"type": "file", "file_id": media.file_id}
        if self.is_own and SOURCE not in media.extra:
            return {"type": "base64", "media_type": media.media_type, "data": media.data}
        if self.is_own and media.extra[SOURCE] == "content":
            return {"type": "content", "content": _plain_text(media)}
        if self.is_own:
            return {"type": "text", "media_type": media.media_type, "data": _plain_text(media)}
        if media.kind is MediaKind.IMAGE or media.media_type == _PDF:
            return {"type": "base64", "media_type": media.media_type, "data": media.data}
        return {"type": "text", "media_type": "text/plain", "data": _plain_text(media)}

    def _thinking(self, thinking: Thinking) -> dict[str, Any] | None:
        if thinking.owner is not OWN or not (self.is_own or thinking.signature or thinking.redacted):
            self.losses.drop("thinking")
            return None
        extra = rest(thinking.extra) if self.is_own else {}
        if thinking.redacted is not None:
            return {"type": "redacted_thinking", "data": thinking.redacted, **extra}
        signature = {} if thinking.signature is None else {"signature": thinking.signature}
        return {"type": "thinking", "thinking": thinking.text, **signature, **extra}

    def _call(self, call: ToolCall) -> dict[str, Any]:
        if call.kind is ToolKind.CUSTOM:
            raise Untranslatable("a call of a tool that takes free text")
        if call.signature is not None:
            self.losses.drop("thought_signature")
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments_object()}
        caller = {"caller": BY_THE_MODEL} if CALLER in call.extra else {}
        return {
            **block,
            **marker(call.marker, is_own=self.is_own),
            **(rest(call.extra) | caller if self.is_own else {}),
        }

    def _result(self, result: ToolResult) -> dict[str, Any]:
        if result.kind is ToolKind.CUSTOM:
            raise Untranslatable("a result of a tool that takes free text")
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": result.call_id}
        if result.is_error is not None:
            block["is_error"] = result.is_error
        block |= marker(result.marker, is_own=self.is_own)
        spelling = result.extra.get(CONTENT) if self.is_own else None
        if result.result is not None:
            block["content"] = _as_text(result.result)
        elif spelling == STRING:
            block["content"] = "".join(part.text for part in result.content if isinstance(part, Text))
        elif spelling != ABSENT:
            block["content"] = self.blocks(result.content)
        return block | (rest(result.extra) if self.is_own else {})

    def _native(self, native: Native) -> dict[str, Any] | None:
        if native.owner is OWN:
            return dict(native.value)
        leave_out(native, self.losses)
        return None


def _plain_text(media: Media) -> str:
    try:
        return base64.b64decode(media.data or "").decode("utf-8", "surrogatepass")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Untranslatable("a text document that is not UTF-8") from error


def _as_text(result: Mapping[str, Any]) -> str:
    return ToolCall(id="", name="", arguments=result).arguments_text()
