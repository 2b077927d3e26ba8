"""The content parts of messages and of tool results: text, refusals, images, files."""

from __future__ import annotations

import re
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.translation.conversation import Role
from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.parts import (
    CacheMarker,
    Document,
    Media,
    MediaKind,
    Native,
    Part,
    Refusal,
    Text,
)
from llm_sidecar.translation.reading import Fields

_DATA_URL: Final = re.compile(r"data:([^;,]*)[^,]*;base64,")
_TEXT_TYPES: Final = frozenset({"input_text", "output_text"})
_BREAKPOINT: Final = "prompt_cache_breakpoint"


def said(extra: Document) -> dict[str, Any]:
    """The fields in `extra` under their own names, without the marks that only tell a spelling."""
    return {name: value for name, value in extra.items() if not name.startswith("$")}


def kept(rest: Document, **spelling: Any) -> Document:
    """An `extra`: what no field of the middle holds, and the spellings that are not None, each marked by `$`."""
    marks = {f"${name}": value for name, value in spelling.items() if value is not None}
    return {**rest, **marks} if marks else rest


def text_type(role: Role) -> str:
    """How a message of this role spells text."""
    return "output_text" if role is Role.ASSISTANT else "input_text"


def decode_content(parts: list[Any], where: str, *, usual_text: str) -> tuple[Part, ...]:
    """A list of content parts; those of unknown types become `Native`."""
    return tuple(_decode_part(part, f"{where}[{index}]", usual_text=usual_text) for index, part in enumerate(parts))


def encode_content(part: Part, *, usual_text: str) -> dict[str, Any]:
    """What `decode_content` read."""
    if isinstance(part, Text):
        return _encode_text(part, usual_text)
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text, **said(part.extra)}
    if isinstance(part, Media):
        return _encode_image(part) if part.kind is MediaKind.IMAGE else _encode_file(part)
    if isinstance(part, Native):
        return dict(part.value)
    raise TypeError(f"{type(part).__name__} is no content of a message")


def _decode_part(part: Any, where: str, *, usual_text: str) -> Part:
    fields = Fields(part, where)
    kind = fields.text("type")
    if kind in _TEXT_TYPES:
        return _decode_text(fields, where, None if kind == usual_text else kind)
    if kind == "refusal":
        refusal = fields.text("refusal")
        return Refusal(text=_needed(refusal, f"{where}.refusal"), extra=fields.rest)
    if kind == "input_image":
        return _decode_image(fields)
    if kind == "input_file":
        return _decode_file(fields)
    return Native(owner=API.OPENAI_RESPONSES, kind=kind or "content", value=part)


def _needed(value: str | None, where: str) -> str:
    if value is None:
        raise Undecodable(f"{where} is missing")
    return value


def _decode_text(fields: Fields, where: str, unusual_type: str | None) -> Text:
    text = _needed(fields.text("text"), f"{where}.text")
    annotations, logprobs = fields.array("annotations"), fields.array("logprobs")
    if not all(isinstance(each, dict) for each in annotations or ()):
        raise Undecodable(f"{where}.annotations must be objects")
    breakpoint_ = fields.object(_BREAKPOINT)
    return Text(
        text=text,
        citations=tuple(annotations or ()),
        marker=None if breakpoint_ is None else CacheMarker(),
        extra=kept(
            fields.rest,
            type=unusual_type,
            annotations=annotations,
            logprobs=logprobs,
            prompt_cache_breakpoint=breakpoint_,
        ),
    )


def _encode_text(part: Text, usual: str) -> dict[str, Any]:
    extra = part.extra
    document = {"type": extra.get("$type", usual), "text": part.text, **said(extra)}
    for name in ("annotations", "logprobs", _BREAKPOINT):
        if f"${name}" in extra:
            document[name] = extra[f"${name}"]
    return document


def _decode_image(fields: Fields) -> Media:
    url, detail, breakpoint_ = fields.text("image_url"), fields.text("detail"), fields.object(_BREAKPOINT)
    media_type, data, prefix = _inline(url)
    return Media(
        kind=MediaKind.IMAGE,
        media_type=media_type,
        data=data,
        url=url if data is None else None,
        file_id=fields.text("file_id") if url is None else None,
        detail=detail,
        marker=None if breakpoint_ is None else CacheMarker(),
        extra=kept(fields.rest, prefix=prefix, prompt_cache_breakpoint=breakpoint_),
    )


def _decode_file(fields: Fields) -> Media:
    content, name, detail = fields.text("file_data"), fields.text("filename"), fields.text("detail")
    url = fields.text("file_url") if content is None else None
    breakpoint_ = fields.object(_BREAKPOINT)
    media_type, data, prefix = _inline(content)
    if content is not None and data is None:
        # Some write the bare base64; the name tells what it is, and nearly always it is a PDF.
        media_type = "text/plain" if (name or "").endswith((".txt", ".md")) else "application/pdf"
        data, prefix = content, ""
    return Media(
        kind=MediaKind.DOCUMENT,
        media_type=media_type,
        data=data,
        url=url,
        file_id=fields.text("file_id") if content is None and url is None else None,
        name=name,
        detail=detail,
        marker=None if breakpoint_ is None else CacheMarker(),
        extra=kept(fields.rest, prefix=prefix, prompt_cache_breakpoint=breakpoint_),
    )


def _inline(url: str | None) -> tuple[str | None, str | None, str | None]:
    """Type and base64 of a data URL, and its head where that has more in it than the type."""
    head = _DATA_URL.match(url) if url is not None else None
    if url is None or head is None or not head[1]:
        return None, None, None
    usual = head[0] == f"data:{head[1]};base64,"
    return head[1], url[head.end() :], None if usual else head[0]


def data_url(part: Media) -> str:
    """Inline content as a data URL, with the head that it came with."""
    head = part.extra.get("$prefix", f"data:{part.media_type};base64,")
    return f"{head}{part.data}"


def _encode_image(part: Media) -> dict[str, Any]:
    return _without_none(
        type="input_image",
        image_url=data_url(part) if part.data is not None else part.url,
        file_id=part.file_id,
        detail=part.detail,
        prompt_cache_breakpoint=part.extra.get(f"${_BREAKPOINT}"),
    ) | said(part.extra)


def _encode_file(part: Media) -> dict[str, Any]:
    return _without_none(
        type="input_file",
        file_data=data_url(part) if part.data is not None else None,
        file_url=part.url,
        file_id=part.file_id,
        filename=part.name,
        detail=part.detail,
        prompt_cache_breakpoint=part.extra.get(f"${_BREAKPOINT}"),
    ) | said(part.extra)


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
