"""Signatures of other providers, kept for them in the `signature` of Anthropic's thinking blocks.

An application sends back the blocks that it got. So what another provider needs to see again (its proof of a thought,
Gemini's signature of a tool call) travels in the one place that Anthropic has for such a thing, marked as not its own:
read back here it goes to its owner alone, and Anthropic never sees it. A body without `MARK` has none of them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from llm_sidecar.contract.names import API

MARK: Final = "llm-sidecar:"
_CALL: Final = "call"
_THOUGHT: Final = "thought"
_UNKNOWN: Final = "unknown"


class Foreign(NamedTuple):
    """What a marked signature says."""

    owner: API | None
    """None if it was not known when the block was written: nobody can read it."""
    signature: str | None
    signs_call: bool
    """It belongs to the tool call that follows."""


def marked(owner: API | None, signature: str | None, *, signs_call: bool = False) -> str:
    """The signature to show; `signature` may be missing, and its block is marked all the same."""
    what = _CALL if signs_call else _THOUGHT
    return f"{MARK}{owner or _UNKNOWN}:{what}:{signature or ''}"


def read(signature: str | None) -> Foreign | None:
    """What a marked signature says; None for one of Anthropic's own."""
    if signature is None or not signature.startswith(MARK):
        return None
    owner, _, rest = signature.removeprefix(MARK).partition(":")
    what, _, original = rest.partition(":")
    known = owner if owner in API.__members__.values() else None
    return Foreign(API(known) if known else None, original or None, what == _CALL)
