"""Which requests mean the same."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm_sidecar.cache import key
from llm_sidecar.cache.key import IGNORED_MEMBERS, cache_digest, request_digest
from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.registry import FORMATS

BASE: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 0}


def digest(
    body: dict[str, Any] | bytes = b"",
    *,
    path: str = "/p",
    query: str = "",
    provider: str = "p",
    model: str = "m",
    api: API = API.OPENAI_CHAT,
    spoken: API | None = None,
    headers: list[tuple[str, str]] | None = None,
) -> str | None:
    call = Call(api=api, type=RequestType.GENERATION, path=path)
    raw = body if isinstance(body, bytes) and body else orjson.dumps(body or BASE)
    request = FORMATS[api].parse_request(call, raw)
    meaning = request_digest(request, headers or [], query)
    if meaning is None:
        return None
    return cache_digest(meaning, place=(provider, "https://one.example"), api=spoken or api, model=model)


def test_the_same_request_has_the_same_digest() -> None:
    assert digest() == digest()
    assert digest() == digest(dict(reversed(BASE.items())))
    assert digest() == digest(orjson.dumps(BASE, option=orjson.OPT_INDENT_2))


@pytest.mark.parametrize("member", sorted(IGNORED_MEMBERS - {"stream"}))
def test_what_cannot_change_an_answer_does_not_count(member: str) -> None:
    assert digest({**BASE, member: {"a": "b"}}) == digest()


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.1},
        {"seed": 1},
        {"unknown": None},
        {"messages": []},
        {"tools": []},
        {"max_tokens": 1},
        {"messages": [{"role": "user", "content": "x", "metadata": 1}]},
    ],
    ids=["temperature", "seed", "unknown", "messages", "tools", "cap", "nested-metadata"],
)
def test_everything_else_counts(change: dict[str, Any]) -> None:
    assert digest({**BASE, **change}) != digest()


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/q"},
        {"query": "a=b"},
        {"provider": "q"},
        {"model": "n"},
        {"headers": [("anthropic-beta", "x")]},
        {"headers": [("anthropic-version", "x")]},
        {"headers": [("x-nobody-thought-of-it", "x")]},
        {"api": API.ANTHROPIC_MESSAGES},
        {"spoken": API.ANTHROPIC_MESSAGES},
    ],
    ids=["path", "query", "provider", "model", "beta", "version", "unknown-header", "api", "spoken"],
)
def test_where_and_how_it_is_asked_counts(change: dict[str, Any]) -> None:
    assert digest(**change) != digest()


def test_every_line_of_a_header_counts() -> None:
    one = digest(headers=[("anthropic-beta", "a")])
    assert digest(headers=[("anthropic-beta", "a"), ("anthropic-beta", "b")]) != one
    assert digest(headers=[("Anthropic-Beta", "a")]) == one


@pytest.mark.parametrize(
    "name", ["User-Agent", "traceparent", "x-stainless-retry-count", "X-Request-Id", "Cache-Control", "sec-fetch-mode"]
)
def test_who_calls_and_for_which_trace_does_not_count(name: str) -> None:
    assert digest(headers=[(name, "1")]) == digest()


def test_what_the_answer_repeats_counts_where_it_does() -> None:
    """The Responses API answers with the request's metadata and user: one caller must not get another's."""
    request = {"model": "m", "input": "x", "temperature": 0}
    for member in ("metadata", "user", "safety_identifier", "prompt_cache_key"):
        one, other = ({**request, member: {"a": value}} for value in "xy")
        assert digest(one, api=API.OPENAI_RESPONSES) != digest(other, api=API.OPENAI_RESPONSES)


def test_numbers_that_the_parser_would_round_have_no_digest() -> None:
    assert digest({**BASE, "seed": 2**53}) is not None
    assert digest(b'{"model":"m","messages":[],"seed":36893488147419103233}') is None


def test_a_body_too_deep_to_write_again_has_no_digest() -> None:
    depth = 300
    assert digest(b'{"model":"m","messages":' + b"[" * depth + b"]" * depth + b"}") is None


def test_the_version_of_the_key_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest()
    monkeypatch.setattr(key, "KEY_VERSION", key.KEY_VERSION + 1)
    assert digest() != before


def test_long_digits_within_a_text_are_no_numbers() -> None:
    assert digest({**BASE, "messages": [{"role": "user", "content": "id 1234567890123456789012"}]}) is not None
    for number in (
        b"12345678901234567890",
        b"-12345678901234567890",
        b"[1, 12345678901234567890]",
        b"1234567890123456789e2",
    ):
        assert digest(b'{"model":"m","messages":[],"seed":' + number + b"}") is None, number


def asks_for(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties}
    return {**BASE, "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}, **more}


REASONED = {"reasoning": {"type": "string"}, "answer": {"type": "string"}}
ANSWERED = dict(reversed(REASONED.items()))


def test_the_order_of_a_schemas_properties_counts_and_that_of_all_else_does_not() -> None:
    """Who is to reason first and then to answer is given another answer than who is to reason afterwards."""
    first = asks_for(REASONED)
    assert digest(first) != digest(asks_for(ANSWERED))
    assert digest(first) == digest(dict(reversed(first.items())))
    same = {name: dict(reversed(kind.items())) for name, kind in asks_for(REASONED)["response_format"].items()
            if isinstance(kind, dict)}  # fmt: skip
    assert digest(first) == digest({**first, "response_format": {**same, "type": "json_schema"}})


def test_the_order_counts_at_every_depth() -> None:
    def tools(properties: dict[str, Any]) -> dict[str, Any]:
        items = {"type": "array", "items": {"anyOf": [{"type": "object", "properties": properties}]}}
        return {**BASE, "tools": [{"type": "function", "function": {"parameters": {"properties": {"a": items}}}}]}

    assert digest(tools(REASONED)) != digest(tools(ANSWERED))
    assert digest(tools({"properties": {"properties": REASONED}})) != digest(
        tools({"properties": {"properties": ANSWERED}})
    )


def test_orders_keep_their_places() -> None:
    """Two schemas with the same names: it matters which of them has which order."""
    one, other = ({"a": {"properties": first}, "b": {"properties": second}} for first, second in
                  ((REASONED, ANSWERED), (ANSWERED, REASONED)))  # fmt: skip
    assert digest({**BASE, **one}) != digest({**BASE, **other})
    assert digest({**BASE, **one}) == digest({**BASE, **dict(reversed(one.items()))})
    pairs = [list(pair) for pair in REASONED.items()]
    assert digest({**BASE, "properties": REASONED}) != digest({**BASE, "properties": pairs})


def test_the_order_counts_however_the_word_is_written() -> None:
    first, other = (orjson.dumps(asks_for(properties)) for properties in (REASONED, ANSWERED))
    for word in (b'"propertie\\u0073"', b'"pr\\u006Fperties"', b'"\\u0070ropertie\\u0073"', b'"properties" '):
        spelled, turned = (body.replace(b'"properties"', word) for body in (first, other))
        assert digest(spelled) == digest(first) != digest(turned), word


def test_the_order_within_what_does_not_count_does_not_count() -> None:
    one, other = ({**BASE, "metadata": {"properties": properties}} for properties in (REASONED, ANSWERED))
    assert digest(one) == digest(other) == digest()


def gemini(path: str, query: str = "") -> str:
    call = Call(
        api=API.GEMINI,
        type=RequestType.GENERATION,
        path=path,
        model="m",
        stream="stream" in path,
        stream_is_json_array="stream" in path and "alt=sse" not in query,
    )
    request = FORMATS[API.GEMINI].parse_request(call, b'{"contents":[]}')
    meaning = request_digest(request, [], query)
    assert meaning is not None
    return cache_digest(meaning, place=(), api=API.GEMINI, model="m")


def test_gemini_tells_in_path_and_query_how_it_is_delivered() -> None:
    """Events, an array or plain: one question. Another version, model or field mask is another one."""
    plain = gemini("/v1beta/models/m:generateContent")
    for query in ("", "alt=sse", "%24alt=sse", "alt=json"):
        assert gemini("/v1beta/models/m:streamGenerateContent", query) == plain
    assert gemini("/v1beta/models/m:generateContent", "alt=json") == plain
    different = [
        gemini("/v1/models/m:generateContent"),
        gemini("/v1beta/models/m:generateContent", "fields=candidates"),
        gemini("/v1beta/models/m:streamGenerateContent", "alt=sse&fields=candidates"),
    ]
    assert plain not in different
    assert different[1] == different[2]


def test_gemini_tells_in_the_query_what_it_answers_with_too() -> None:
    """Only what names the usual form is left out: protobuf, a file, and names as numbers are other answers."""
    plain, stream = "/v1beta/models/m:generateContent", "/v1beta/models/m:streamGenerateContent"
    others = ("proto", "media", "json;enum-encoding=int", "json%3Benum-encoding%3Dint", "", "JSON")
    told = [
        gemini(path, f"{name}={form}")
        for path in (plain, stream)
        for name in ("alt", "$alt", "%24alt")
        for form in others
    ]
    assert gemini(plain) not in told
    assert gemini(plain, "altx=json") != gemini(plain)
    assert gemini(plain, "alt=sse") != gemini(plain), "events of a plain answer are no plain answer"
    for form in ("alt=json", "$alt=json", "%24alt=json"):
        assert gemini(plain, f"{form}&fields=a") == gemini(plain, "fields=a")
