"""The bound on output that a team's `optimization.maxOutputTokens` puts on its requests. Pure.

It holds over all the answers that one request asks for together, as the quota counts them. It stays above a budget for
thinking that the request names itself, and leaves an answer room beside it: a model spends its thoughts out of the same
bound, Anthropic refuses a budget that reaches it, and an answer that is all thought is paid for and of no use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm_sidecar.contract.names import RequestType
from llm_sidecar.formats.output_cap import choices, thinking_tokens, with_output_cap

if TYPE_CHECKING:
    from llm_sidecar.formats.base import ParsedRequest

ANSWER_TOKENS: Final = 1024
"""What an answer has beside its thoughts, at least, unless the clamp itself is lower."""


def cap_of_each(request: ParsedRequest, clamp: int) -> int:
    """What one answer of the request may have at most under the clamp."""
    each = max(1, clamp // choices(request))
    thinking = thinking_tokens(request)
    return max(each, thinking + min(ANSWER_TOKENS, each)) if thinking else each


def clamped_output_tokens(request: ParsedRequest, clamp: int | None) -> int | None:
    """What all answers of the request may have together under the clamp; None where nobody says a bound.

    The same for a request that `clamped` has changed already.
    """
    asked = request.max_output_tokens
    if clamp is None or request.call.type is not RequestType.GENERATION:
        return asked
    most = cap_of_each(request, clamp) * choices(request)
    return most if asked is None else min(asked, most)


def clamped(request: ParsedRequest, clamp: int | None) -> ParsedRequest:
    """The request as the clamp lets it go; the same object where nothing has to change. Raises `MalformedRequest`."""
    if clamp is None or request.call.type is not RequestType.GENERATION:
        return request
    return with_output_cap(request, cap_of_each(request, clamp))
