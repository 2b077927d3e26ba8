"""What is to be done about a failed attempt: try here again, go elsewhere, or give up. Pure.

From an error answer, an error within a stream or a broken connection to one `Failure`, whose kind decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import StreamError
from llm_sidecar.formats.error_answers import read_error, read_stream_error
from llm_sidecar.formats.told_error import FailureKind, ToldError
from llm_sidecar.providers.base import Headers, Provider, TransportError, failure_reason


class Decision(StrEnum):
    """What to do after a failed attempt."""

    RETRY_HERE = "retry_here"
    """The same provider may well answer, after a pause (see `backoff`); once its attempts are spent, another."""
    GO_ELSEWHERE = "go_elsewhere"
    """This provider will not answer this request now; another one may."""
    GIVE_UP = "give_up"
    """The request itself is refused, and would be everywhere: the application gets the provider's own words."""


DECISIONS: Final[Mapping[FailureKind, Decision]] = MappingProxyType(
    {
        FailureKind.RATE_LIMITED: Decision.RETRY_HERE,
        FailureKind.QUOTA_EXHAUSTED: Decision.GO_ELSEWHERE,
        FailureKind.OVERLOADED: Decision.RETRY_HERE,
        FailureKind.AUTHENTICATION: Decision.GO_ELSEWHERE,
        FailureKind.INVALID_REQUEST: Decision.GIVE_UP,
        FailureKind.TOO_LONG: Decision.GIVE_UP,  # who has too small a window was not asked in the first place
        FailureKind.CONTENT_POLICY: Decision.GIVE_UP,  # nobody shops around for a provider that allows it
        FailureKind.NOT_FOUND: Decision.GIVE_UP,
        FailureKind.TIMEOUT: Decision.GO_ELSEWHERE,  # it may be at work still, and would charge twice
        FailureKind.CONNECTION: Decision.RETRY_HERE,
        FailureKind.DISCONNECTED: Decision.RETRY_HERE,
        FailureKind.SERVER: Decision.RETRY_HERE,
        FailureKind.GARBLED_ANSWER: Decision.GO_ELSEWHERE,
        FailureKind.REDIRECTED: Decision.GO_ELSEWHERE,
        FailureKind.INTERRUPTED: Decision.RETRY_HERE,
    }
)

_ELSEWHERE_FIRST: Final = frozenset({FailureKind.OVERLOADED})
"""What concerns the whole provider: while another is left, no time is spent on waiting for this one."""

SHORT_WAIT_SECONDS: Final = 1.0
"""A limit that passes so soon is waited for: to leave at once would only spread the load to the next provider."""
_UNSHOWN_KINDS: Final = frozenset({FailureKind.AUTHENTICATION, FailureKind.REDIRECTED})
_UNSHOWN_STATUSES: Final = frozenset({401, 402, 403})
"""About our key or account: the body may quote them, and the application cannot do anything about it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt."""

    kind: FailureKind
    detail: str
    """For the audit line and our own errors: no content, no key, no address."""
    status: int | None = None
    """None where there was no answer."""
    code: str = ""
    """The provider's own word for it."""
    message: str | None = None
    """The provider's own sentence, for the application alone; None where it may speak of our key or account."""
    retry_after_seconds: float | None = None

    @property
    def may_be_shown(self) -> bool:
        """True where the application may get the provider's own answer."""
        return _may_be_shown(self.kind, self.status)

    def decision(self, *, others_left: bool, retry_on_timeout: bool) -> Decision:
        """What to do. `others_left`: another candidate has not been tried yet."""
        if self.kind is FailureKind.TIMEOUT and retry_on_timeout:
            return Decision.RETRY_HERE
        if self._is_of_this_place:
            return Decision.GO_ELSEWHERE
        if others_left and (self.kind in _ELSEWHERE_FIRST or self._is_limited_for_long):
            return Decision.GO_ELSEWHERE
        return DECISIONS[self.kind]

    @property
    def _is_of_this_place(self) -> bool:
        """True where what looks like a fault of the request is one of this provider."""
        if self.kind is FailureKind.NOT_FOUND:
            return bool(self.code)  # it says that it lacks the model; a bare 404 may be about anything
        # More than our tier's tokens per minute there, told as a rate limit: no matter of the model's window.
        return self.kind is FailureKind.TOO_LONG and self.status == 429

    @property
    def _is_limited_for_long(self) -> bool:
        # Vertex and others tell no delay: a short wait is a guess that mostly meets the same limit.
        wait_seconds = self.retry_after_seconds
        return self.kind is FailureKind.RATE_LIMITED and (wait_seconds is None or wait_seconds > SHORT_WAIT_SECONDS)


def of_answer(
    provider: Provider, api: API, *, status: int, headers: Headers, body: bytes, now_seconds: float
) -> Failure:
    """The failure that an answer with a status of 300 or more is; `api` is the language in which it was asked."""
    told = read_error(api, status, headers, body, now_seconds=now_seconds)
    return _failure(provider, told, subject="it answered with status", is_foreign=not (told.code or told.message))


def of_stream_error(provider: Provider, api: API, error: StreamError) -> Failure:
    """The failure that an error event within a stream is."""
    return _failure(provider, read_stream_error(api, error), subject="its stream told an error with status")


def of_transport(error: TransportError) -> Failure:
    """The failure that a broken exchange is."""
    return Failure(failure_reason(error), error.detail)


def _failure(provider: Provider, told: ToldError, *, subject: str, is_foreign: bool = False) -> Failure:
    kind = provider.failure_kind(told)
    shown = bool(told.message) and _may_be_shown(kind, told.status)
    return Failure(
        kind,
        _detail(kind, told, subject=subject, is_foreign=is_foreign),
        status=told.status,
        code=told.code,
        message=told.message if shown else None,
        retry_after_seconds=told.retry_after_seconds,
    )


def _may_be_shown(kind: FailureKind, status: int | None) -> bool:
    return kind not in _UNSHOWN_KINDS and status not in _UNSHOWN_STATUSES


def _detail(kind: FailureKind, told: ToldError, *, subject: str, is_foreign: bool) -> str:
    detail = f"{subject} {told.status}" + (f" ({told.code})" if told.code else "")
    if kind is FailureKind.REDIRECTED:
        return f"{detail}, a redirect, which is never followed: check baseURL"
    if kind is FailureKind.AUTHENTICATION:
        return f"{detail}: it refused our key, account or region"
    if kind is FailureKind.QUOTA_EXHAUSTED:
        return f"{detail}: our account there has nothing left"
    return f"{detail} and no error that its API knows" if is_foreign else detail
