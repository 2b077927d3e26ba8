"""A whole answer, as all languages can say it. `extra`: see `conversation.py`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Usage
from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.parts import NOTHING, Document, Part


class Finish(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    SAFETY = "safety"
    """Filtered, blocked, recitation: the provider's decision."""
    REFUSAL = "refusal"
    """The model's own decision."""
    PAUSE = "pause"
    """A long turn was interrupted and may be continued (Anthropic's `pause_turn`)."""
    CONTEXT_WINDOW = "context_window"
    MALFORMED_CALL = "malformed_call"
    """The model wrote a tool call that cannot be read (Gemini)."""
    OTHER = "other"


MALFORMED_CALL: Final = "the model wrote a tool call that cannot be read"
"""Of an answer that is none: no other language has a word for it, and it would pass for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldUsage:
    """Token usage: the disjoint buckets that everything counts by, and what its API told beyond them."""

    buckets: Usage
    extra: Document = NOTHING
    """The usage object as it came, for its own API's encoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of the answers that were asked for; nearly always the only one."""

    index: int = 0
    parts: tuple[Part, ...] = ()
    finish: Finish | None = None
    stop_sequence: str | None = None
    """The one that was met, where its API tells it."""
    logprobs: Document | None = None
    """In its own API's form."""
    extra: Document = NOTHING
    """Holds the API's own word for `finish` where several words mean the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer."""

    api: API
    id: str
    model: str
    choices: tuple[Choice, ...]
    created_seconds: int | None = None
    """Unix time."""
    usage: ToldUsage | None = None
    extra: Document = NOTHING


def check_readable(answer: Answer) -> None:
    """Raise `Undecodable` for an answer that is none, before it is written in another language."""
    if answer.choices and all(choice.finish is Finish.MALFORMED_CALL for choice in answer.choices):
        raise Undecodable(MALFORMED_CALL)
