"""Which of the candidates can take a request at all, before anybody is asked. Pure.

What a language cannot say is found out by translating (see `translated_call.py`); this is about the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_sidecar.failover.routes import Candidate
    from llm_sidecar.formats.base import ParsedRequest

ELSEWHERE_STATE = "the request refers to, or leaves behind, something that lives at one provider"


def unfit(candidates: Sequence[Candidate], parsed: ParsedRequest) -> dict[int, str]:
    """Why some candidates cannot take the request, by their position."""
    reasons: dict[int, str] = {}
    if parsed.stateful:
        home = next((at for at, one in enumerate(candidates) if _is_home(one, parsed)), None)
        reasons.update({at: ELSEWHERE_STATE for at in range(len(candidates)) if at != home})
    too_small = {at: _too_small(one, parsed) for at, one in enumerate(candidates) if at not in reasons}
    too_small = {at: reason for at, reason in too_small.items() if reason}
    # The size is an estimate, meant to be too high: where it would leave nobody, a provider may judge.
    if len(reasons) + len(too_small) < len(candidates):
        reasons.update(too_small)
    return reasons


def _is_home(candidate: Candidate, parsed: ParsedRequest) -> bool:
    return candidate.api is parsed.call.api and not candidate.stands_in


def _too_small(candidate: Candidate, parsed: ParsedRequest) -> str:
    window = candidate.model.context_window_tokens
    needed = parsed.input_tokens_estimate
    if window is None or needed <= window:
        return ""
    return f"its context window of {window} tokens is too small: the request has about {needed}"
