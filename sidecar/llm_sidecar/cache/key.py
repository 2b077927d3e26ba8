"""Which requests mean the same. The whole request counts, but for a short list of what cannot change an answer.

A list of what may differ fails safe: a field or a header that nobody thought of makes a miss, never a wrong answer.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import orjson

from llm_sidecar.contract.names import API

if TYPE_CHECKING:
    from collections.abc import Collection

    from llm_sidecar.formats.base import ParsedRequest

KEY_VERSION: Final = 2
"""Part of every key: raise it when the meaning of a key changes, and old entries are simply never found again."""

DELIVERY_MEMBERS: Final = frozenset({"stream", "stream_options"})
"""Top-level members that say how an answer is delivered, never what it is."""

IGNORED_MEMBERS: Final = DELIVERY_MEMBERS | {"user", "safety_identifier", "metadata", "prompt_cache_key"}
"""With those that say on whose behalf; but not where the answer repeats them."""

_ECHOING_APIS: Final = frozenset({API.OPENAI_RESPONSES})

IGNORED_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "b3",
        "baggage",
        "content-type",
        "date",
        "idempotency-key",
        "priority",
        "sentry-trace",
        "traceparent",
        "tracestate",
        "uber-trace-id",
        "user-agent",
        "x-amzn-trace-id",
        "x-client-request-id",
        "x-cloud-trace-context",
        "x-correlation-id",
        "x-goog-api-client",
        "x-request-id",
    }
)
"""Headers that tell who calls, from where, and for which trace; with those that begin with `IGNORED_PREFIXES`."""

IGNORED_PREFIXES: Final = ("x-stainless-", "x-b3-", "x-datadog-")

_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")
"""Beyond 64 bits the parser rounds, and two different numbers would look the same."""


def cache_digest(
    request: ParsedRequest,
    headers: Collection[tuple[str, str]],
    query: str,
    *,
    place: tuple[object, ...],
    model: str,
) -> str | None:
    """The digest under which an answer by `model` at `place` to this request is stored; None if it has none.

    `headers` are those that go on to the provider.
    """
    if _LONG_NUMBER.search(request.body):
        return None
    ignored = DELIVERY_MEMBERS if request.call.api in _ECHOING_APIS else IGNORED_MEMBERS
    document = request.document
    meaning = [
        KEY_VERSION,
        request.call.api,
        request.call.path,
        query,
        place,
        model,
        sorted((name.lower(), value) for name, value in headers if _counts(name.lower())),
        {name: document[name] for name in document if name not in ignored},
    ]
    try:
        return sha256(orjson.dumps(meaning, option=orjson.OPT_SORT_KEYS)).hexdigest()
    except orjson.JSONEncodeError:  # nested deeper than it writes, though not deeper than it reads
        return None


def _counts(name: str) -> bool:
    return name not in IGNORED_HEADERS and not name.startswith(IGNORED_PREFIXES)
