"""The items of a message's content: text, images, sound and files, as chat completions have them."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.translation.losses import Undecodable, Untranslatable
from llm_sidecar.translation.openai_chat.leftovers import nested, nested_rest, restore
from llm_sidecar.translation.parts import CacheMarker, Document, Media, MediaKind, Native, Part, Refusal, Text
from llm_sidecar.translation.reading import Fields

_DATA_URL: Final = re.compile(r"data:([^;,]*)([^,]*);base64,")
_PDF: Final = "application/pdf"
_FORMATS: Final = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
_MARKERS: Final[Mapping[str, Document]] = {
    "prompt_cache_breakpoint": {"mode": "explicit"},
    "cache_control": {"type": "ephemeral"},
}


def decode_item(item: Any, where: str) -> Part:
    """One item of a list of content. Raises `Undecodable`."""
    fields = Fields(item, where)
    kind = fields.text("type") or ""
    marker, form = take_marker(fields)
    if kind == "text":
        return Text(text=_needed(fields.text("text"), where, "text"), marker=marker, extra={**fields.rest, **form})
    if kind == "refusal":
        text = _needed(fields.text("refusal"), where, "refusal")
        return Refusal(text=text, extra={**fields.rest, "$item": True})
    decode = {"image_url": _decode_image, "input_audio": _decode_audio, "file": _decode_file}.get(kind)
    media = decode(fields, where, marker, form) if decode else None
    return media or Native(owner=API.OPENAI_CHAT, kind=kind, value=item)


def encode_item(part: Part) -> dict[str, Any]:
    """One item of a list of content, from a part in this language's shape. Raises `Untranslatable`."""
    if isinstance(part, Text):
        return restore({"type": "text", "text": part.text, **encode_marker(part.marker, part.extra)}, part.extra)
    if isinstance(part, Refusal):
        return restore({"type": "refusal", "refusal": part.text}, part.extra)
    if isinstance(part, Media):
        return _encode_media(part)
    if isinstance(part, Native):
        return dict(part.value)
    raise Untranslatable(f"{type(part).__name__} in a message's content")


def take_marker(fields: Fields) -> tuple[CacheMarker | None, dict[str, Any]]:
    """A cache marker in either spelling, and which one it was."""
    for name, told in _MARKERS.items():
        value = fields.take(name)
        if value is None:
            continue
        ttl = value.get("ttl") if isinstance(value, dict) else None
        if value == told or (isinstance(ttl, str) and value == {**told, "ttl": ttl}):
            return CacheMarker(ttl=ttl), {"$marker": name}
        return None, {name: value}
    return None, {}


def encode_marker(marker: CacheMarker | None, extra: Document) -> dict[str, Any]:
    """The field for a marker, in the spelling that it came in."""
    if marker is None:
        return {}
    name = extra.get("$marker", "prompt_cache_breakpoint")
    return {name: {**_MARKERS[name]} if marker.ttl is None else {**_MARKERS[name], "ttl": marker.ttl}}


def _needed(value: str | None, where: str, name: str) -> str:
    if value is None:
        raise Undecodable(f"{where}.{name} must be a string")
    return value


def _decode_image(fields: Fields, where: str, marker: CacheMarker | None, form: dict[str, Any]) -> Media | None:
    inner = Fields(fields.take("image_url"), f"{where}.image_url")
    url = _needed(inner.text("url"), f"{where}.image_url", "url")
    found = _split_data_url(url)
    if found is None and url.startswith("data:"):
        return None
    media_type, data, spelling = found or (None, None, {})
    return Media(
        kind=MediaKind.IMAGE,
        media_type=media_type,
        data=data,
        url=url if data is None else None,
        detail=inner.text("detail"),
        marker=marker,
        extra={**fields.rest, **form, **spelling, **nested("image_url", inner.rest)},
    )


def _decode_audio(fields: Fields, where: str, marker: CacheMarker | None, form: dict[str, Any]) -> Media | None:
    inner = Fields(fields.take("input_audio"), f"{where}.input_audio")
    data = _needed(inner.text("data"), f"{where}.input_audio", "data")
    told = _needed(inner.text("format"), f"{where}.input_audio", "format")
    extra = {**fields.rest, **form, "$format": told, **nested("input_audio", inner.rest)}
    media_type = "audio/mpeg" if told == "mp3" else f"audio/{told}"
    return Media(kind=MediaKind.AUDIO, media_type=media_type, data=data, marker=marker, extra=extra)


def _decode_file(fields: Fields, where: str, marker: CacheMarker | None, form: dict[str, Any]) -> Media | None:
    inner = Fields(fields.take("file"), f"{where}.file")
    name, file_id, given = inner.text("filename"), inner.text("file_id"), inner.text("file_data")
    media_type, data, spelling = None, None, {"$as_file": True}
    if given is not None:
        found = _split_data_url(given)
        # Without a prefix only the file's name tells what it is.
        guessed = (mimetypes.guess_type(name)[0] if name else None) or _PDF
        media_type, data, prefix = found or (guessed, given, {"$prefix": ""})
        spelling |= prefix
    if (data is None) == (file_id is None):
        return None
    extra = {**fields.rest, **form, **spelling, **nested("file", inner.rest)}
    kind = _file_kind(media_type)
    return Media(kind=kind, media_type=media_type, data=data, file_id=file_id, name=name, marker=marker, extra=extra)


def _file_kind(media_type: str | None) -> MediaKind:
    family = (media_type or "").partition("/")[0]
    return MediaKind(family) if family in ("image", "audio", "video") else MediaKind.DOCUMENT


def _split_data_url(url: str) -> tuple[str, str, dict[str, Any]] | None:
    """Media type, content, and the way it was spelled where that is not the plain one."""
    found = _DATA_URL.match(url)
    if found is None:
        return None
    plain = found[1] and not found[2]
    return found[1] or "text/plain", url[found.end() :], {} if plain else {"$prefix": found[0]}


def _data_url(media: Media) -> str:
    prefix = media.extra.get("$prefix", f"data:{media.media_type};base64,")
    return f"{prefix}{media.data}"


def _encode_media(media: Media) -> dict[str, Any]:
    extra = media.extra
    marker = encode_marker(media.marker, extra)
    if "$as_file" in extra or media.kind is MediaKind.DOCUMENT:
        file: dict[str, Any] = {"filename": media.name} if media.name is not None else {}
        file |= {"file_id": media.file_id} if media.data is None else {"file_data": _data_url(media)}
        restore(file, nested_rest(extra, "file"))
        return restore({"type": "file", "file": file, **marker}, extra, "file")
    if media.kind is MediaKind.AUDIO:
        told = extra.get("$format") or _FORMATS[media.media_type or ""]
        audio = restore({"data": media.data, "format": told}, nested_rest(extra, "input_audio"))
        return restore({"type": "input_audio", "input_audio": audio, **marker}, extra, "input_audio")
    image: dict[str, Any] = {"url": media.url if media.data is None else _data_url(media)}
    if media.detail is not None:
        image["detail"] = media.detail
    restore(image, nested_rest(extra, "image_url"))
    return restore({"type": "image_url", "image_url": image, **marker}, extra, "image_url")


def is_audio_format(media_type: str | None) -> bool:
    """Whether chat takes such sound."""
    return media_type in _FORMATS
