"""Why the model stopped."""

from __future__ import annotations

from typing import Any, Final

from llm_sidecar.translation.answer import Finish
from llm_sidecar.translation.losses import Losses

_FINISHES: Final = {
    "end_turn": Finish.STOP,
    "max_tokens": Finish.LENGTH,
    "stop_sequence": Finish.STOP_SEQUENCE,
    "tool_use": Finish.TOOL_CALLS,
    "pause_turn": Finish.PAUSE,
    "refusal": Finish.REFUSAL,
    "model_context_window_exceeded": Finish.CONTEXT_WINDOW,
}
_REASONS: Final = {finish: reason for reason, finish in _FINISHES.items()} | {Finish.SAFETY: "refusal"}

NOT_YET: Final = {"stop_reason": None, "stop_sequence": None, "stop_details": None}
"""At the beginning of a stream."""


def decode(reason: str) -> Finish:
    """A reason that is not known here is `OTHER`; whoever decodes keeps the word in `extra`."""
    return _FINISHES.get(reason, Finish.OTHER)


def encode(finish: Finish, *, has_calls: bool, stop_sequence: str | None, losses: Losses) -> dict[str, Any]:
    """`stop_reason`, `stop_sequence` and `stop_details`."""
    reason = _REASONS.get(finish)
    if reason is None:
        losses.drop("finish_reason")
        reason = "end_turn"
    if has_calls and reason == "end_turn":
        # An application of this API runs tools for this reason alone.
        reason = "tool_use"
    details = {"type": "refusal", "category": None, "explanation": None} if reason == "refusal" else None
    return {"stop_reason": reason, "stop_sequence": stop_sequence, "stop_details": details}


def encode_own(finish: Finish, *, stop_sequence: str | None) -> dict[str, Any]:
    """As it came; a reason that is not known here stands in `extra`."""
    reason = {"stop_reason": _REASONS[finish]} if finish in _REASONS else {}
    return reason if stop_sequence is None else {**reason, "stop_sequence": stop_sequence}
