"""A streamed answer, as all languages can say it: a sequence of these events.

    Started, (PartStarted, PartDelta…, PartEnded)…, ChoiceEnded, UsageTold, Ended       in the middle of it maybe Failed

Decoders keep to this grammar, whatever the provider sends: each part begins before its deltas and ends before its
choice does (parts of one choice may overlap only as tool calls do in OpenAI's chat, where they are numbered); nothing
comes after `Ended` or `Failed`. `Ended` is only ever told for the API's own terminal marker: without it the stream was
cut. Encoders may rely on all this.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from llm_sidecar.contract.names import API
from llm_sidecar.translation.answer import Finish, ToldUsage
from llm_sidecar.translation.parts import NOTHING, Document, Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The answer begins."""

    id: str
    model: str
    api: API | None = None
    """As `Answer.api`: whose signatures and citations the parts have. None: nobody can be given them back."""
    created_seconds: int | None = None
    usage: ToldUsage | None = None
    """What is told at the beginning already (Anthropic: the input)."""
    extra: Document = NOTHING


class PartKind(StrEnum):
    """What a part will be."""

    TEXT = "text"
    REFUSAL = "refusal"
    THINKING = "thinking"
    TOOL_CALL = "tool_call"
    WHOLE = "whole"
    """Something that comes in one piece: `PartStarted.whole`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartStarted:
    """A part begins. `part` numbers the parts of a choice from 0, in order of their beginning."""

    choice: int = 0
    part: int
    kind: PartKind
    tool_id: str = ""
    tool_name: str = ""
    custom: bool = False
    """The tool takes free text."""
    signature: str | None = None
    """Of a tool call (Gemini)."""
    whole: Part | None = None
    extra: Document = NOTHING


class DeltaKind(StrEnum):
    """What grows."""

    TEXT = "text"
    """Of a TEXT, REFUSAL or THINKING part."""
    ARGUMENTS = "arguments"
    """JSON text, or a custom tool's free text."""
    SIGNATURE = "signature"
    """Of a THINKING or TEXT part."""
    CITATION = "citation"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartDelta:
    """A part grows."""

    choice: int = 0
    part: int
    kind: DeltaKind
    text: str = ""
    citation: Document | None = None
    logprobs: Document | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEnded:
    """A part is whole."""

    choice: int = 0
    part: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceEnded:
    """A choice is whole."""

    choice: int = 0
    finish: Finish
    stop_sequence: str | None = None
    extra: Document = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTold:
    """Token usage so far. The last one counts, and holds everything that the earlier ones told."""

    usage: ToldUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The provider told an error in the stream."""

    status: int
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The terminal marker was there."""

    extra: Document = NOTHING


Event = Started | PartStarted | PartDelta | PartEnded | ChoiceEnded | UsageTold | Failed | Ended
