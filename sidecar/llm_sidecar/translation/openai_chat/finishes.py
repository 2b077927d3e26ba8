"""Why an answer ended, in the words of chat completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from llm_sidecar.translation.answer import Finish
from llm_sidecar.translation.losses import Losses

_FINISHES: Final[Mapping[str, Finish]] = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "tool_calls": Finish.TOOL_CALLS,
    "function_call": Finish.TOOL_CALLS,
    "content_filter": Finish.SAFETY,
}
_WORDS: Final[Mapping[Finish, str]] = {
    Finish.STOP: "stop",
    Finish.STOP_SEQUENCE: "stop",
    Finish.LENGTH: "length",
    Finish.CONTEXT_WINDOW: "length",
    Finish.TOOL_CALLS: "tool_calls",
    Finish.SAFETY: "content_filter",
    # What follows has no word of its own: none of it may look like an answer that is complete.
    Finish.PAUSE: "length",
    Finish.MALFORMED_CALL: "content_filter",
    Finish.OTHER: "content_filter",
}
_UNSAID: Final = frozenset({Finish.PAUSE, Finish.MALFORMED_CALL, Finish.OTHER})


def decode_finish(word: str, *, refused: bool) -> Finish:
    """The meaning of a `finish_reason`; this API ends a refusal as any answer."""
    finish = _FINISHES.get(word, Finish.OTHER)
    return Finish.REFUSAL if refused and finish is Finish.STOP else finish


def encode_finish(finish: Finish, *, refused: bool, called: bool, losses: Losses) -> str:
    """The `finish_reason`. `refused`: the answer has a `refusal`; `called`: it has tool calls."""
    if finish is Finish.REFUSAL:
        return "stop" if refused else "content_filter"
    if finish is Finish.STOP and called:
        return "tool_calls"
    if finish in _UNSAID:
        losses.drop("finish_reason")
    return _WORDS[finish]
