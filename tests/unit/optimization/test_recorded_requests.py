"""Every recorded request, clamped and marked: what is not the bound, or a mark, is byte for byte what it was."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, ParsedRequest
from llm_sidecar.formats.json_body import apply_splices
from llm_sidecar.formats.recognise import recognise
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.optimization.clamp import clamped
from llm_sidecar.optimization.prompt_caching import cache_marks, number_of_marks
from tests.integration.recorded_exchanges import Exchange
from tests.unit.translation.recordings import each_recorded

CLAMP = 7
BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens")
CONFIGS = ("generationConfig", "generation_config")


def parsed(exchange: Exchange) -> ParsedRequest:
    path, _, query = exchange.path.partition("?")
    call = recognise("POST", path, query, exchange.request_headers)
    assert isinstance(call, Call)
    try:
        return FORMATS[call.api].parse_request(call, exchange.request_body or b"")
    except Exception:  # noqa: BLE001 - recorded because the provider refused it, as the proxy does
        pytest.skip("no request that can be read")


def without_bounds(document: Any) -> Any:
    kept = {name: value for name, value in document.items() if name not in BOUNDS}
    for name in CONFIGS:
        if isinstance(kept.get(name), dict):
            kept[name] = {key: value for key, value in kept[name].items() if key not in BOUNDS}
            if not kept[name]:
                del kept[name]
    return kept


def check_clamp(exchange: Exchange) -> None:
    request = parsed(exchange)
    after = clamped(request, CLAMP)

    assert orjson.loads(after.body) == after.document
    assert without_bounds(after.document) == without_bounds(request.document)
    if request.call.type is RequestType.GENERATION:
        again = FORMATS[request.call.api].parse_request(request.call, after.body)
        assert again.max_output_tokens == after.max_output_tokens
    changed = len(request.body) - len(after.body)
    prefix = next((i for i, pair in enumerate(zip(request.body, after.body, strict=False)) if len(set(pair)) > 1), 0)
    suffix = next(
        (
            i
            for i, pair in enumerate(zip(reversed(request.body), reversed(after.body), strict=False))
            if len(set(pair)) > 1
        ),
        0,
    )
    if request.body != after.body:
        assert len(after.body) - prefix - suffix <= 64, "more than one place has changed"
        assert abs(changed) <= 64


@each_recorded(API.OPENAI_CHAT)
def test_a_clamped_chat_is_the_same_otherwise(exchange: Exchange) -> None:
    check_clamp(exchange)


@each_recorded(API.OPENAI_RESPONSES)
def test_a_clamped_response_is_the_same_otherwise(exchange: Exchange) -> None:
    check_clamp(exchange)


@each_recorded(API.GEMINI)
def test_a_clamped_request_of_gemini_is_the_same_otherwise(exchange: Exchange) -> None:
    check_clamp(exchange)


@each_recorded(API.ANTHROPIC_MESSAGES)
def test_a_clamped_message_is_the_same_otherwise(exchange: Exchange) -> None:
    check_clamp(exchange)


@each_recorded(API.ANTHROPIC_MESSAGES)
def test_a_marked_message_says_the_same(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every prefix were long: there is no place at which a mark breaks a request, or a fifth one."""
    monkeypatch.setattr("llm_sidecar.optimization.prompt_caching.USUAL_LEAST_TOKENS", 0)
    request = parsed(exchange)
    splices = cache_marks(request, model="any")
    body = apply_splices(request.body, splices)

    assert number_of_marks(splices) <= 4
    if not splices:
        assert body == request.body
    assert _plain(orjson.loads(body)) == _plain(orjson.loads(request.body))


def _plain(value: Any) -> Any:
    """Without marks, and with texts that are blocks of their own written as such."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    plain = {name: _plain(inner) for name, inner in value.items() if name != "cache_control"}
    for name in ("system", "content"):
        if isinstance(plain.get(name), str):
            plain[name] = [{"type": "text", "text": plain[name]}]
    return plain
