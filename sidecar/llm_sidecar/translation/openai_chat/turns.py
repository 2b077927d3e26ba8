"""The messages of another language in the order and the shape that chat completions demand.

Neighbouring turns of the model are one message; each tool result is a message of its own right behind the call's,
in front of whatever else the user says; thinking stays with its own provider.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import orjson

from llm_sidecar.contract.names import API
from llm_sidecar.translation.conversation import Conversation, Role, Turn
from llm_sidecar.translation.foreign import leave_out
from llm_sidecar.translation.losses import FILE_NAME, Losses, Untranslatable
from llm_sidecar.translation.openai_chat.content import is_audio_format
from llm_sidecar.translation.parts import (
    NOTHING,
    CacheMarker,
    Media,
    MediaKind,
    Native,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)

_FILE_NAME: Final = "document.pdf"
"""Of a file without a name, which chat demands."""
_FOLLOWS: Final = "What this tool call gave follows in the next message."
_OF_CALL: Final = "What tool call {} gave:"


def shaped_turns(conversation: Conversation, losses: Losses) -> tuple[Turn, ...]:
    """All messages, the system's first. Raises `Untranslatable`."""
    shaper = _Shaper(api=conversation.api, losses=losses)
    system = tuple(shaper.text(text) for text in conversation.system)
    turns = [Turn(role=Role.SYSTEM, parts=system)] if system else []
    for position, (role, parts, name) in enumerate(_joined(conversation.turns)):
        if role is Role.ASSISTANT:
            turns += shaper.assistant(parts, name, position)
        else:
            turns += shaper.others(role, parts, name)
    if turns and turns[-1].role is Role.ASSISTANT and conversation.api is not API.OPENAI_RESPONSES:
        raise Untranslatable("an answer's beginning given in the last turn")
    return tuple(turns)


def _joined(turns: Iterable[Turn]) -> Iterator[tuple[Role, list[Part], str | None]]:
    """Neighbours of the model are one, and so are results: between a call and its result there must be nothing."""
    last: tuple[Role, list[Part], str | None] | None = None
    for turn in turns:
        if last is not None and last[0] is turn.role and turn.role in (Role.ASSISTANT, Role.TOOL):
            last[1].extend(turn.parts)
            continue
        if last is not None:
            yield last
        last = (turn.role, list(turn.parts), turn.name)
    if last is not None:
        yield last


@dataclass(slots=True, kw_only=True)
class _Shaper:
    api: API
    losses: Losses
    open_calls: list[tuple[str, str]] = field(default_factory=list)
    """Id and name of the calls whose results are still to come."""

    def assistant(self, parts: list[Part], name: str | None, position: int) -> list[Turn]:
        kept: list[Part] = []
        self.open_calls = []
        for part in parts:
            shaped = self._of_model(part, f"call_{position}_{len(self.open_calls)}")
            if shaped is not None:
                kept.append(shaped)
        said = [part for part in kept if isinstance(part, Text)]
        extra = NOTHING if said else {"content": None}
        return [Turn(role=Role.ASSISTANT, parts=tuple(kept), name=name, extra=extra)] if kept else []

    def _of_model(self, part: Part, made_up_id: str) -> Part | None:
        if isinstance(part, ToolCall):
            call = self._call(part, made_up_id)
            self.open_calls.append((call.id, call.name))
            return call
        if isinstance(part, Thinking):
            self.losses.drop("thinking")
            return None
        if isinstance(part, Refusal):
            return Refusal(text=part.text)
        if isinstance(part, Text):
            return self.text(part) if part.text else None
        if isinstance(part, Native):
            self._drop(part)
            return None
        raise Untranslatable("an image or a file in a turn of the model")

    def _call(self, call: ToolCall, made_up_id: str) -> ToolCall:
        if call.signature is not None:
            self.losses.drop("thought_signature")
        self._drop_marker(call.marker)
        return replace(
            call, id=call.id or made_up_id, arguments=call.arguments_text(), signature=None, marker=None, extra=NOTHING
        )

    def others(self, role: Role, parts: list[Part], name: str | None) -> list[Turn]:
        """Results first, each in its own message, then what came with them, then what else there is."""
        results: list[Turn] = []
        content: list[Part] = []
        for part in parts:
            if isinstance(part, ToolResult):
                result, files = self._result(part)
                results.append(Turn(role=Role.TOOL, parts=(result,)))
                content += files
        for part in parts:
            shaped = None if isinstance(part, ToolResult) else self._of_user(part, role)
            if shaped is not None:
                content.append(shaped)
        if not content:
            return results
        speaker = Role.USER if role is Role.TOOL else role
        return [*results, Turn(role=speaker, parts=tuple(content), name=name)]

    def _of_user(self, part: Part, role: Role) -> Part | None:
        if isinstance(part, Text):
            return self.text(part)
        if isinstance(part, Media) and role is not Role.SYSTEM:
            return self._media(part)
        if isinstance(part, Native):
            self._drop(part)
            return None
        raise Untranslatable(f"{type(part).__name__.lower()} in a turn of the {role.value}")

    def _drop(self, part: Native) -> None:
        leave_out(part, self.losses)

    def text(self, text: Text) -> Text:
        if text.citations:
            self.losses.drop("citations")
        if text.signature is not None:
            self.losses.drop("thought_signature")
        return Text(text=text.text, marker=self._kept_marker(text.marker))

    def _kept_marker(self, marker: CacheMarker | None) -> CacheMarker | None:
        if marker is not None and self.api is API.OPENAI_RESPONSES:
            return marker
        self._drop_marker(marker)
        return None

    def _drop_marker(self, marker: CacheMarker | None) -> None:
        if marker is not None:
            self.losses.drop("cache_control")

    def _result(self, result: ToolResult) -> tuple[ToolResult, list[Part]]:
        """The result as text, and what of it is no text."""
        if result.is_error:
            self.losses.drop("is_error")
        self._drop_marker(result.marker)
        call_id = self._call_id(result)
        texts = tuple(self.text(part) for part in result.content if isinstance(part, Text))
        files: list[Part] = [self._media(part) for part in result.content if isinstance(part, Media)]
        if result.result is not None:
            texts = (*texts, Text(text=orjson.dumps(dict(result.result)).decode()))
        if files:
            texts = texts or (Text(text=_FOLLOWS),)
            files.insert(0, Text(text=_OF_CALL.format(call_id)))
        return ToolResult(call_id=call_id, content=texts or (Text(text=""),)), files

    def _call_id(self, result: ToolResult) -> str:
        """The id told, or else that of the first call still open, of this name if there is one."""
        ids = [call_id for call_id, name in self.open_calls if call_id == result.call_id]
        ids = ids or [call_id for call_id, name in self.open_calls if not result.call_id and name == result.name]
        ids = ids or [call_id for call_id, _ in self.open_calls if not result.call_id]
        if not ids:
            return result.call_id or "call_unknown"
        self.open_calls = [each for each in self.open_calls if each[0] != ids[0]]
        return ids[0]

    def _media(self, media: Media) -> Part:
        if media.file_id is not None:
            raise Untranslatable("a file that only its own provider knows by its id")
        shaped = replace(media, marker=self._kept_marker(media.marker), extra=NOTHING)
        if media.kind is MediaKind.IMAGE:
            return replace(shaped, name=None)
        if media.data is None:
            raise Untranslatable(f"a {media.kind.value} by URL")
        if media.kind is MediaKind.DOCUMENT:
            return self._document(shaped)
        if media.kind is MediaKind.AUDIO and is_audio_format(media.media_type):
            return shaped
        raise Untranslatable(f"{media.media_type or media.kind.value}")

    def _document(self, media: Media) -> Part:
        if not (media.media_type or "").startswith("text/"):
            return replace(media, name=media.name or _FILE_NAME)
        # Chat takes a text for what it is, and has no files of text.
        try:
            text = base64.b64decode(media.data or "", validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise Untranslatable("a document of text that is no UTF-8 in base64") from None
        if media.name is not None:
            self.losses.drop(FILE_NAME)
        return Text(text=text, marker=media.marker)
