"""Which requests mean the same. The whole request counts, but for a short list of what cannot change an answer.

A list of what may differ fails safe: a field or a header that nobody thought of makes a miss, never a wrong answer.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm_sidecar.cache.streams.forms import has_long_number
from llm_sidecar.contract.names import API

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from llm_sidecar.formats.base import Call, ParsedRequest

KEY_VERSION: Final = 4
"""Part of every key: raise it when the meaning of a key changes, and old entries are simply never found again."""

DELIVERY_MEMBERS: Final = frozenset({"stream", "stream_options"})
"""Top-level members that say how an answer is delivered, never what it is."""

IGNORED_MEMBERS: Final = DELIVERY_MEMBERS | {
    "user",
    "safety_identifier",
    "metadata",
    "prompt_cache_key",
    "prompt_cache_retention",
}
"""With those that say on whose behalf; but not where the answer repeats them."""

_ECHOING_APIS: Final = frozenset({API.OPENAI_RESPONSES})

IGNORED_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "anthropic-dangerous-direct-browser-access",
        "b3",
        "baggage",
        "cache-control",
        "content-type",
        "date",
        "idempotency-key",
        "newrelic",
        "pragma",
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
        "x-ms-client-request-id",
        "x-request-id",
        "x-server-timeout",
    }
)
"""Headers that tell who calls, from where, and for which trace; with those that begin with `IGNORED_PREFIXES`."""

IGNORED_PREFIXES: Final = ("x-stainless-", "x-b3-", "x-datadog-", "sec-fetch-", "sec-ch-")

_GEMINI_PLAIN: Final = frozenset({"alt=json", "$alt=json", "%24alt=json"})
_GEMINI_STREAM: Final = _GEMINI_PLAIN | {"alt=sse", "$alt=sse", "%24alt=sse"}
"""Fields of a query that say what a stream, or a plain answer, is without them, or how a stream is framed. Any other
value asks for something else: protobuf, or names as numbers."""

_HOLDERS: Final = (dict, list)


def request_digest(request: ParsedRequest, headers: Collection[tuple[str, str]], query: str) -> bytes | None:
    """What a request means, wherever it goes; None where that cannot be told for certain.

    `headers` are those that go on to the provider.
    """
    if has_long_number(request.body):
        return None
    ignored = DELIVERY_MEMBERS if request.call.api in _ECHOING_APIS else IGNORED_MEMBERS
    document = request.document
    asked = {name: document[name] for name in document if name not in ignored}
    meaning = [
        request.call.api,
        request.call.type,
        *_place(request.call, query),
        sorted([(lower, value) for name, value in headers if _counts(lower := name.lower())]),
        asked,
    ]
    try:
        written = orjson.dumps(meaning, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # nested deeper than it writes, though not deeper than it reads
        return None
    if b'"properties":{' in written:
        written += orjson.dumps(_orders(asked))
    return sha256(written).digest()


def _orders(asked: Mapping[str, Any]) -> list[list[str]]:
    """The order of names in each `properties`: models write structured answers and arguments in their schema's order.

    Wherever a member is called so, schema or not: that makes a miss at worst. The walk goes by sorted names, so that
    each order has its place whatever the order of all else. It keeps its own stack: nesting costs no recursion.
    """
    orders: list[list[str]] = []
    stack: list[Any] = [asked]
    while stack:
        holder = stack.pop()
        if isinstance(holder, list):
            stack += [each for each in holder if isinstance(each, _HOLDERS)]
            continue
        if isinstance(properties := holder.get("properties"), dict):
            orders.append(list(properties))
        stack += [each for name in sorted(holder) if isinstance(each := holder[name], _HOLDERS)]
    return orders


def cache_digest(request: bytes, *, place: tuple[object, ...], api: API, model: str) -> str:
    """The digest under which an answer to a request is stored, of `model` at `place`, spoken to in `api`."""
    return sha256(request + orjson.dumps([KEY_VERSION, place, api, model])).hexdigest()


def _place(call: Call, query: str) -> tuple[str, str]:
    """Path and query, without what only Gemini says there: how its answer is to be delivered."""
    if call.api is not API.GEMINI or not (query or call.stream):
        return call.path, query
    delivery = _GEMINI_STREAM if call.stream else _GEMINI_PLAIN
    told = [field for field in query.split("&") if field not in delivery]
    return call.path.replace(":streamGenerateContent", ":generateContent"), "&".join(told)


@lru_cache(maxsize=512)
def _counts(name: str) -> bool:
    return name not in IGNORED_HEADERS and not name.startswith(IGNORED_PREFIXES)
