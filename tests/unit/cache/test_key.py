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
