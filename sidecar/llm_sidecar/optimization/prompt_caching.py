"""`optimization.promptCaching: Auto`: what makes a provider's own cache find a prompt again. Pure.

Anthropic keeps only what is marked, for five minutes from its last use; so long prefixes are marked. OpenAI and Gemini
keep long prefixes by themselves: there the best to do is nothing, for bodies are passed on byte by byte, and any member
more is one that some other server of the same language refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import MalformedRequest
from llm_sidecar.formats.cache_markers import cache_markers

if TYPE_CHECKING:
    from llm_sidecar.formats.base import ParsedRequest, Splice

_LEAST_TOKENS: Final = (
    ("haiku-4-5", 4096),
    ("opus-4-5", 4096),
    ("opus-4-6", 4096),
    ("opus-4-7", 4096),
    ("3-haiku", 2048),
    ("3-5-haiku", 2048),
    ("haiku-3", 2048),
    ("opus-5", 512),
    ("fable-5", 512),
    ("mythos-5", 512),
)
"""The shortest prefix that each model keeps, by a part of its name."""
USUAL_LEAST_TOKENS: Final = 1024
"""For all others. Too low a figure costs nothing: a mark behind a shorter prefix is passed over."""


def least_tokens(model: str) -> int:
    """How long a prefix must be for this model's provider to keep it."""
    return next((tokens for part, tokens in _LEAST_TOKENS if part in model), USUAL_LEAST_TOKENS)


def cache_marks(request: ParsedRequest, *, model: str) -> list[Splice]:
    """What to put into a request, in the language of the provider that gets it, for `model` there. Mostly nothing."""
    if request.call.api is not API.ANTHROPIC_MESSAGES or request.call.type is not RequestType.GENERATION:
        return []
    try:
        return cache_markers(request, least_tokens=least_tokens(model))
    except MalformedRequest:  # nested too deep to find a place; that is no reason to refuse what is only an extra
        return []


def number_of_marks(splices: list[Splice]) -> int:
    """How many marks these splices put in."""
    return sum(b"cache_control" in splice.replacement for splice in splices)
