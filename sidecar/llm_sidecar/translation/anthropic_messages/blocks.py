"""Content blocks, in requests and in answers.

Kept as `Native` or in `extra`, which no other language takes: documents made of blocks, tool results with blocks other
than text and media, `caller` other than the model itself, toolsets, and every kind of block that is not known here.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.translation.anthropic_messages import signatures
from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.parts import (
    NOTHING,
    CacheMarker,
    Document,
    Media,
    MediaKind,
    Native,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from llm_sidecar.translation.reading import Fields

OWN: Final = API.ANTHROPIC_MESSAGES
CONTENT: Final = "$content"
"""How `content` was spelled where it was no array: `STRING`, or `ABSENT`."""
STRING: Final = "string"
ABSENT: Final = "absent"
CITATIONS: Final = "$citations"
CALLER: Final = "$caller"
SOURCE: Final = "$source"
SPELLINGS: Final = frozenset({CONTENT, CITATIONS, CALLER, SOURCE})
BY_THE_MODEL: Final = {"type": "direct"}


def decode(blocks: Sequence[Any], where: str) -> tuple[Part, ...]:
    """The parts of a message's or an answer's content."""
    parts: list[Part] = []
    call_signature: str | None = None
    for index, block in enumerate(blocks):
        part = decode_block(block, f"{where}[{index}]")
        if isinstance(part, Thinking) and (foreign := signatures.read(part.signature)) is not None:
            if foreign.signs_call:
                call_signature = foreign.signature
            elif foreign.owner is not None:
                parts.append(replace(part, owner=foreign.owner, signature=foreign.signature))
        elif call_signature is not None and isinstance(part, ToolCall):
            parts.append(replace(part, signature=call_signature))
            call_signature = None
        else:
            parts.append(part)
    return tuple(parts)


def decode_block(block: Any, where: str) -> Part:
    """One block, as it stands."""
    if not isinstance(block, Mapping):
        raise Undecodable(f"{where} must be an object")
    kind = block.get("type")
    if not isinstance(kind, str):
        raise Undecodable(f"{where}.type must be a string")
    reader = _READERS.get(kind)
    part = reader(block, where) if reader else None
    return part if part is not None else Native(owner=OWN, kind=kind, value=block)


def fields_of(block: Mapping[str, Any], where: str) -> tuple[Fields, CacheMarker | None]:
    """The fields of a block without its `type`, and its `cache_control`; one of an unknown form is left in the rest."""
    fields = Fields(block, where)
    fields.take("type")
    marker = block.get("cache_control")
    if not isinstance(marker, dict) or marker.get("type") != "ephemeral" or marker.keys() - {"type", "ttl"}:
        return fields, None
    if "ttl" in marker and not isinstance(marker["ttl"], str):
        return fields, None
    fields.take("cache_control")
    return fields, CacheMarker(ttl=marker.get("ttl"))


def needed(value: Any, name: str) -> Any:
    """The value; raises `Undecodable` if there is none."""
    if value is None:
        raise Undecodable(f"{name} is missing")
    return value


def _read_text(block: Mapping[str, Any], where: str) -> Text:
    fields, marker = fields_of(block, where)
    text = needed(fields.text("text"), f"{where}.text")
    citations = fields.array("citations")
    if not all(isinstance(each, dict) for each in citations or ()):
        raise Undecodable(f"{where}.citations must be objects")
    extra = fields.rest if citations != [] else {**fields.rest, CITATIONS: []}
    return Text(text=text, marker=marker, citations=tuple(citations or ()), extra=extra)


def _read_image(block: Mapping[str, Any], where: str) -> Media | None:
    return _read_media(block, where, MediaKind.IMAGE)


def _read_document(block: Mapping[str, Any], where: str) -> Media | None:
    return _read_media(block, where, MediaKind.DOCUMENT)


def _read_media(block: Mapping[str, Any], where: str, kind: MediaKind) -> Media | None:
    """None where the source is of no known form, or holds blocks."""
    source = block.get("source")
    if not isinstance(source, dict):
        raise Undecodable(f"{where}.source must be an object")
    content = _source(source, source.get("type"))
    if content is None:
        return None
    fields, marker = fields_of(block, where)
    fields.take("source")
    name = fields.text("title") if kind is MediaKind.DOCUMENT else None
    spelling = {SOURCE: source["type"]} if source["type"] in ("text", "content") else {}
    return replace(content, kind=kind, marker=marker, name=name, extra={**fields.rest, **spelling} or NOTHING)


def _source(source: Mapping[str, Any], form: Any) -> Media | None:
    members = {name: value for name, value in source.items() if isinstance(value, str)}
    if members.keys() != source.keys():
        return None
    names = members.keys() - {"type"}
    if form == "base64" and names == {"media_type", "data"}:
        return Media(kind=MediaKind.IMAGE, media_type=members["media_type"], data=members["data"])
    if form == "url" and names == {"url"}:
        return Media(kind=MediaKind.IMAGE, url=members["url"])
    if form == "file" and names == {"file_id"}:
        return Media(kind=MediaKind.IMAGE, file_id=members["file_id"])
    if form == "text" and names == {"media_type", "data"}:
        return Media(kind=MediaKind.DOCUMENT, media_type=members["media_type"], data=_encoded(members["data"]))
    if form == "content" and names == {"content"}:
        return Media(kind=MediaKind.DOCUMENT, media_type="text/plain", data=_encoded(members["content"]))
    return None


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


def _read_thinking(block: Mapping[str, Any], where: str) -> Thinking:
    fields, _ = fields_of(block, where)
    text = needed(fields.text("thinking"), f"{where}.thinking")
    return Thinking(text=text, signature=fields.text("signature"), owner=OWN, extra=fields.rest)


def _read_redacted(block: Mapping[str, Any], where: str) -> Thinking:
    fields, _ = fields_of(block, where)
    data = needed(fields.text("data"), f"{where}.data")
    return Thinking(redacted=data, owner=OWN, extra=fields.rest)


def _read_call(block: Mapping[str, Any], where: str) -> ToolCall:
    fields, marker = fields_of(block, where)
    return ToolCall(
        id=needed(fields.text("id"), f"{where}.id"),
        name=needed(fields.text("name"), f"{where}.name"),
        arguments=needed(fields.object("input"), f"{where}.input"),
        marker=marker,
        extra=call_extra(fields),
    )


def call_extra(fields: Fields) -> Document:
    """What is left of a tool call; that the model itself made it is told by all and says nothing."""
    rest = fields.rest
    if rest.get("caller") != BY_THE_MODEL:
        return rest
    return {CALLER if name == "caller" else name: value for name, value in rest.items()}


def _read_result(block: Mapping[str, Any], where: str) -> ToolResult:
    fields, marker = fields_of(block, where)
    call_id = needed(fields.text("tool_use_id"), f"{where}.tool_use_id")
    is_error = fields.flag("is_error")
    raw = fields.take("content")
    content: tuple[Text | Media, ...] = ()
    extra: dict[str, Any] = dict(fields.rest)
    if isinstance(raw, str):
        content, extra[CONTENT] = (Text(text=raw),), STRING
    elif raw is None:
        extra[CONTENT] = ABSENT
    elif isinstance(raw, list):
        content = _result_content(raw, f"{where}.content")
        if len(content) != len(raw):
            # A block of another kind among them: no part of the middle, so all of it is left as it came.
            content, extra[CONTENT], extra["content"] = (), ABSENT, raw
    else:
        raise Undecodable(f"{where}.content must be a string or an array")
    return ToolResult(call_id=call_id, content=content, is_error=is_error, marker=marker, extra=extra or NOTHING)


def _result_content(raw: Sequence[Any], where: str) -> tuple[Text | Media, ...]:
    """Text and media. Results within results are not followed, however deep they may be."""
    kinds = [block.get("type") if isinstance(block, Mapping) else None for block in raw]
    if not all(isinstance(kind, str) and kind in _IN_RESULTS for kind in kinds):
        return ()
    return tuple(part for part in decode(raw, where) if isinstance(part, Text | Media))


_IN_RESULTS: Final = frozenset({"text", "image", "document"})
_READERS: Final[Mapping[str, Callable[[Mapping[str, Any], str], Part | None]]] = {
    "text": _read_text,
    "image": _read_image,
    "document": _read_document,
    "thinking": _read_thinking,
    "redacted_thinking": _read_redacted,
    "tool_use": _read_call,
    "tool_result": _read_result,
}
