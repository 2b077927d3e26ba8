"""The parts of which messages and answers are made. See `conversation.py` for what `extra` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from llm_sidecar.contract.names import API
from llm_sidecar.translation.losses import Untranslatable

Document = Mapping[str, Any]


class _Nothing(dict[str, Any]):
    """Stays empty: what is typed as `Mapping` is not written to. Hashable, which a field's default has to be."""

    __slots__ = ()

    __hash__ = object.__hash__  # type: ignore[assignment]


NOTHING: Final[Document] = _Nothing()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMarker:
    """Everything up to and with this part is worth keeping at the provider (Anthropic's `cache_control`)."""

    ttl: str | None = None
    """`5m` or `1h`; None where the request leaves it to the provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Text of whoever's turn it is."""

    text: str
    marker: CacheMarker | None = None
    citations: tuple[Document, ...] = ()
    """In their own API's form: no two APIs tell them alike."""
    signature: str | None = None
    """Gemini may sign a text part; see `ToolCall.signature`."""
    extra: Document = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The model's refusal, where its API tells it apart from text."""

    text: str
    extra: Document = NOTHING


class MediaKind(StrEnum):
    """What a medium is for a model."""

    IMAGE = "image"
    DOCUMENT = "document"
    """PDF, or plain text given as a file."""
    AUDIO = "audio"
    VIDEO = "video"


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """An image or a file, in exactly one of three ways: inline, by URL, or by an id that one provider knows."""

    kind: MediaKind
    media_type: str | None = None
    """MIME type, such as `image/png`; always there for inline data."""
    data: str | None = None
    """Inline content in standard base64 (Gemini's URL-safe spelling is brought to it, and told in `extra`)."""
    url: str | None = None
    file_id: str | None = None
    name: str | None = None
    """File name or title."""
    detail: str | None = None
    """OpenAI's `low`, `high`, `auto`."""
    marker: CacheMarker | None = None
    extra: Document = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinking:
    """Reasoning that a model showed, or keeps to itself. `owner` alone can read its signature."""

    text: str = ""
    signature: str | None = None
    """Proof for its own provider (Anthropic `signature`, Gemini `thoughtSignature`, Responses `encrypted_content`)."""
    redacted: str | None = None
    """Anthropic's encrypted `redacted_thinking`, which has no text."""
    owner: API
    extra: Document = NOTHING


class ToolKind(StrEnum):
    """Who runs a tool, and what it takes."""

    FUNCTION = "function"
    """The application; arguments are a JSON object."""
    CUSTOM = "custom"
    """The application; the argument is free text (OpenAI)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that the model asks the application to make."""

    id: str
    """Empty where the API (Gemini) told none: an encoder for another one then makes one up from the position."""
    name: str
    arguments: Document | str
    """An object, or the text that the model wrote, which may be no JSON."""
    kind: ToolKind = ToolKind.FUNCTION
    signature: str | None = None
    """Gemini's thought signature of this very call; without it the next turn is refused there."""
    marker: CacheMarker | None = None
    extra: Document = NOTHING

    def arguments_text(self) -> str:
        """The arguments as JSON text, or as the free text of a custom tool."""
        return self.arguments if isinstance(self.arguments, str) else orjson.dumps(dict(self.arguments)).decode()

    def arguments_object(self) -> Document:
        """The arguments as an object. Raises `Untranslatable` where the text is none."""
        if not isinstance(self.arguments, str):
            return self.arguments
        try:
            parsed = orjson.loads(self.arguments) if self.arguments.strip() else {}
        except orjson.JSONDecodeError:
            parsed = None
        if not isinstance(parsed, dict):
            raise Untranslatable("a tool call whose arguments are no JSON object")
        return parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What the application's tool gave back."""

    call_id: str
    name: str | None = None
    """Of the tool; APIs that tell the id alone leave it out, and `Conversation.tool_name` finds it."""
    content: tuple[Text | Media, ...] = ()
    result: Document | None = None
    """Gemini's `response` object, instead of content."""
    is_error: bool | None = None
    kind: ToolKind = ToolKind.FUNCTION
    marker: CacheMarker | None = None
    extra: Document = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """Something that one API alone knows: its own tools' calls and results, stored items, generated files.

    Only that API's encoder can say it again. For others it is dropped if `is_harmless`, and refused otherwise.
    """

    owner: API
    kind: str
    """As its API calls it, such as `web_search_call`."""
    value: Document
    is_harmless: bool = False


Part = Text | Refusal | Media | Thinking | ToolCall | ToolResult | Native
