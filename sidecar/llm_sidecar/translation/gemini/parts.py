"""Gemini's parts, read into those of the middle."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Protocol

from llm_sidecar.contract.names import API
from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.parts import Media, MediaKind, Native, Part, Text, Thinking, ToolCall, ToolResult
from llm_sidecar.translation.spelling import SpelledFields

MADE_ID: Final = "$made_id"
"""The id is ours: Gemini told none, or the empty one that is kept here."""
PADDING: Final = "$padding"
"""So many characters of padding were missing from inline data."""
URL_SAFE: Final = "$url_safe"
"""Inline data came in the URL's alphabet."""
UNTHOUGHT: Final = "$thought"
"""A text said that it is no thought."""

_VIDEO_SITES: Final = (
    "https://www.youtube.com/",
    "https://youtube.com/",
    "https://m.youtube.com/",
    "https://youtu.be/",
)
_IMAGES: Final = (".png", ".jpg", ".jpeg", ".webp", ".heic", ".heif", ".gif")
_NO_CONTENT: Final = frozenset({"thought", "thoughtSignature", "thought_signature"})


class CallIds(Protocol):
    """Makes up the ids that Gemini leaves out, so that calls and results find each other in other APIs."""

    def of_call(self, told: str | None, name: str) -> str:
        """The id of a call."""
        ...

    def of_result(self, told: str | None, name: str) -> str:
        """The id of the call that this is the result of."""
        ...


class PairedIds:
    """For a request: a result without an id belongs to the first call of that name that has none yet."""

    __slots__ = ("_calls", "_count")

    def __init__(self) -> None:
        self._calls: dict[str, deque[str]] = {}
        self._count = 0

    def of_call(self, told: str | None, name: str) -> str:
        """See `CallIds`."""
        made = told or self._made()
        self._calls.setdefault(name, deque()).append(made)
        return made

    def of_result(self, told: str | None, name: str) -> str:
        """See `CallIds`."""
        waiting = self._calls.get(name, deque())
        if told:
            if told in waiting:
                waiting.remove(told)
            return told
        return waiting.popleft() if waiting else self._made()

    def _made(self) -> str:
        self._count += 1
        return f"call_{self._count}"


class AnswerIds:
    """For an answer: unlike those of any other answer, because all of them will stand in one conversation."""

    __slots__ = ("_answer_id", "_count")

    def __init__(self, answer_id: str) -> None:
        self._answer_id = answer_id
        self._count = 0

    def of_call(self, told: str | None, name: str) -> str:  # noqa: ARG002 - see `CallIds`
        """See `CallIds`."""
        self._count += 1
        return told or f"call_{self._answer_id}_{self._count}"

    def of_result(self, told: str | None, name: str) -> str:
        """See `CallIds`."""
        return self.of_call(told, name)


def decode_part(document: Any, where: str, ids: CallIds) -> Part:
    """One part. What no other API knows (code that Google ran, say) is `Native`."""
    fields = SpelledFields(document, where)
    if fields.peek("text") is not None:
        return _text(fields)
    if fields.peek("inlineData") is not None:
        return _inline(fields, where)
    if fields.peek("fileData") is not None:
        return _file(fields, where)
    if fields.peek("functionCall") is not None and _is_whole(fields.peek("functionCall")):
        return _call(fields, where, ids)
    if fields.peek("functionResponse") is not None:
        return _result(fields, where, ids)
    return _native(document)


def _text(fields: SpelledFields) -> Text | Thinking:
    text = fields.text("text") or ""
    thought = fields.flag("thought")
    signature = fields.text("thoughtSignature")
    if thought:
        return Thinking(text=text, signature=signature, owner=API.GEMINI, extra=fields.extra)
    fields.keep(UNTHOUGHT, thought)
    return Text(text=text, signature=signature, extra=fields.extra)


def _inline(fields: SpelledFields, where: str) -> Media:
    blob = fields.container("inlineData")
    media_type, data, name = blob.text("mimeType"), blob.text("data"), blob.text("displayName")
    if media_type is None or data is None:
        raise Undecodable(f"{where}.inlineData must tell mimeType and data")
    standard = data
    if "-" in data or "_" in data:
        if "+" in data or "/" in data:
            raise Undecodable(f"{where}.inlineData.data must be base64")
        standard = data.replace("-", "+").replace("_", "/")
        fields.keep(URL_SAFE, value=True)
    if missing := -len(data) % 4:
        standard += "=" * missing
        fields.keep(PADDING, missing)
    return Media(kind=_kind(media_type), media_type=media_type, data=standard, name=name, extra=fields.extra)


def _file(fields: SpelledFields, where: str) -> Media:
    data = fields.container("fileData")
    media_type, uri, name = data.text("mimeType"), data.text("fileUri"), data.text("displayName")
    if uri is None:
        raise Undecodable(f"{where}.fileData must tell fileUri")
    # An uploaded file, or one in Google's store, is for whoever holds the key that put it there.
    is_public = uri.startswith(("https://", "http://")) and "/files/" not in uri
    return Media(
        kind=_kind(media_type) if media_type else _kind_of_address(uri),
        media_type=media_type,
        url=uri if is_public else None,
        file_id=None if is_public else uri,
        name=name,
        extra=fields.extra,
    )


def _is_whole(call: object) -> bool:
    """Arguments that stream in pieces were asked for by nobody but an application of this API."""
    return isinstance(call, Mapping) and not any(
        call.get(name) for name in ("partialArgs", "partial_args", "willContinue", "will_continue")
    )


def _call(fields: SpelledFields, where: str, ids: CallIds) -> ToolCall:
    call = fields.container("functionCall")
    name = call.text("name")
    if name is None:
        raise Undecodable(f"{where}.functionCall must tell a name")
    told = call.text("id")
    arguments = call.whole_object("args")
    signature = fields.text("thoughtSignature")
    fields.keep(MADE_ID, None if told else {"told": told})
    made = ids.of_call(told, name)
    return ToolCall(id=made, name=name, arguments=arguments, signature=signature, extra=fields.extra)


def _result(fields: SpelledFields, where: str, ids: CallIds) -> ToolResult:
    response = fields.container("functionResponse")
    name = response.text("name")
    if name is None:
        raise Undecodable(f"{where}.functionResponse must tell a name")
    told = response.text("id")
    result = response.object("response")
    fields.keep(MADE_ID, None if told else {"told": told})
    return ToolResult(call_id=ids.of_result(told, name), name=name, result=result, extra=fields.extra)


def _native(document: Mapping[str, Any]) -> Native:
    told = [name for name, value in document.items() if value is not None and name not in _NO_CONTENT]
    kind = next(iter(told), "thoughtSignature")
    return Native(owner=API.GEMINI, kind=kind, value=document, is_harmless=not told)


def _kind(media_type: str) -> MediaKind:
    family = media_type.partition("/")[0]
    return MediaKind(family) if family in ("image", "audio", "video") else MediaKind.DOCUMENT


def _kind_of_address(uri: str) -> MediaKind:
    if uri.startswith(_VIDEO_SITES):
        return MediaKind.VIDEO
    path = uri.partition("?")[0].lower()
    return MediaKind.IMAGE if path.endswith(_IMAGES) else MediaKind.DOCUMENT
