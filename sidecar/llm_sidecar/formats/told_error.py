"""What a provider's error means, whatever the language in which it was told: the closed set of failures.

Errors, metrics and logs name failures by these words, and what is done about one hangs on its word alone (see
`failover/failures.py`). How each language tells its errors stands beside that language.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

MAX_MESSAGE_CHARACTERS: Final = 4096
"""How much of a message is kept and searched: what is wrong is said at its start."""


class FailureKind(StrEnum):
    """Why an attempt did not give an answer: a closed set, used in errors, metrics and logs."""

    RATE_LIMITED = "rate_limited"
    """Too much for a moment: it passes by itself, often after a time that the provider tells."""
    QUOTA_EXHAUSTED = "quota_exhausted"
    """Money or an allotment is spent: does not pass before somebody pays, or the next day or month begins."""
    OVERLOADED = "overloaded"
    """The provider has too little room for everybody, not for us alone."""
    AUTHENTICATION = "authentication"
    """Our key, account or region is refused; nothing that the application could mend."""
    INVALID_REQUEST = "invalid_request"
    TOO_LONG = "too_long"
    """More than the model's context window, or than the provider takes in one request."""
    CONTENT_POLICY = "content_policy"
    NOT_FOUND = "not_found"
    """The provider does not have this model, or not this endpoint."""
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    """The provider was never reached."""
    DISCONNECTED = "disconnected"
    """The connection ended before the answer did."""
    SERVER = "server"
    GARBLED_ANSWER = "garbled_answer"
    REDIRECTED = "redirected"
    INTERRUPTED = "interrupted"
    """A stream ended, or told an error, before it was complete."""


@dataclass(frozen=True, slots=True)
class ToldError:
    """One error as a provider told it. `message` may quote the request: it is for the application, never for logs."""

    status: int
    kind: FailureKind
    code: str = ""
    """The provider's own word for it; nothing but a word, so that it can be logged."""
    message: str = ""
    retry_after_seconds: float | None = None


_BY_STATUS: Final[Mapping[int, FailureKind]] = MappingProxyType(
    {
        401: FailureKind.AUTHENTICATION,
        402: FailureKind.QUOTA_EXHAUSTED,
        403: FailureKind.AUTHENTICATION,
        404: FailureKind.NOT_FOUND,
        408: FailureKind.TIMEOUT,
        410: FailureKind.NOT_FOUND,
        413: FailureKind.TOO_LONG,
        429: FailureKind.RATE_LIMITED,
        498: FailureKind.OVERLOADED,  # Groq: the flexible tier has no room
        499: FailureKind.SERVER,  # Google's CANCELLED, though nobody here cancelled
        501: FailureKind.NOT_FOUND,
        503: FailureKind.OVERLOADED,
        504: FailureKind.TIMEOUT,
        524: FailureKind.TIMEOUT,  # Cloudflare: the server behind it took too long
        529: FailureKind.OVERLOADED,
    }
)


def kind_of_status(status: int) -> FailureKind:
    """What a status says where nothing else is understood."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return FailureKind.SERVER
    return FailureKind.INVALID_REQUEST if status >= 400 else FailureKind.REDIRECTED


def kind_of_foreign(status: int) -> FailureKind:
    """What an answer means that is not JSON: it comes from something in between, so it judges no request."""
    kind = kind_of_status(status)
    of_requests = {FailureKind.INVALID_REQUEST, FailureKind.NOT_FOUND}
    return FailureKind.GARBLED_ANSWER if kind in of_requests else kind


_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")


def word(value: object) -> str:
    """`value` if it is a single word, fit for a log; else nothing."""
    return value if isinstance(value, str) and _WORD.match(value) else ""


def message_in(error: Mapping[str, Any]) -> str:
    """The beginning of an error's message; empty where it has none."""
    message = error.get("message")
    return message[:MAX_MESSAGE_CHARACTERS] if isinstance(message, str) else ""


def is_too_long(message: str) -> bool:
    """True where a message says that the input is too long for the model: most servers have no code for that."""
    return _TOO_LONG.search(message) is not None


_TOO_LONG: Final = re.compile(
    r"maximum (?:context|input) length"
    r"|context (?:length|window|size|limit)\b[^.]{0,60}\bexceed"
    r"|exceeds?\b[^.]{0,60}\bcontext (?:length|window|size|limit)"
    r"|exceeds the maximum number of tokens"
    r"|longer than the maximum model length"
    r"|\A(?:the )?(?:request|prompt|input)(?: is)? too (?:long|large)"
    r"|request (?:payload )?size exceeds"
    r"|request exceeds the maximum size",
    re.IGNORECASE,
)
