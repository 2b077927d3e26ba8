"""A team's bound on output: lowered where the request says more, put in where it says nothing, and else untouched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, ParsedRequest
from llm_sidecar.formats.output_cap import EFFORT_TOKENS, choices
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.optimization.clamp import ANSWER_TOKENS, clamped, clamped_output_tokens

CHAT, RESPONSES, CLAUDE, GEMINI = API.OPENAI_CHAT, API.OPENAI_RESPONSES, API.ANTHROPIC_MESSAGES, API.GEMINI


def parsed(api: API, body: bytes | dict[str, Any], *, kind: RequestType = RequestType.GENERATION) -> ParsedRequest:
    if isinstance(body, dict):
        body = json.dumps(body if api is GEMINI else {"model": "m", **body}).encode()
    call = Call(api=api, type=kind, path="/p", model="m" if api is GEMINI else None)
    return FORMATS[api].parse_request(call, body)


@pytest.mark.parametrize(
    ("api", "before", "after"),
    [
        (CHAT, b'{ "model":"m", "max_tokens" : 9000, "n":1}', b'{ "model":"m", "max_tokens" : 4096, "n":1}'),
        (CHAT, b'{"model":"m","max_completion_tokens":9000}', b'{"model":"m","max_completion_tokens":4096}'),
        (CHAT, b'{"model":"m"}', b'{"max_completion_tokens":4096,"model":"m"}'),
        (CHAT, b'{"model":"m","max_tokens":null}', b'{"model":"m","max_tokens":4096}'),
        (CHAT, b'{"model":"m","max_tokens":-1}', b'{"model":"m","max_tokens":4096}'),
        (CHAT, b'{"model":"m","max_tokens":1e9}', b'{"model":"m","max_tokens":4096}'),
        (CHAT, b'{"model":"m","max_tokens":"many"}', b'{"model":"m","max_tokens":4096}'),
        (CHAT, b'{"model":"m","max\\u005ftokens":9000}', b'{"model":"m","max\\u005ftokens":4096}'),
        (
            CHAT,
            b'{"model":"m","max_completion_tokens":5000,"max_tokens":9000}',
            b'{"model":"m","max_completion_tokens":4096,"max_tokens":4096}',
        ),
        (CHAT, b'{"model":"m","n":4,"max_tokens":9000}', b'{"model":"m","n":4,"max_tokens":1024}'),
        (RESPONSES, b'{"model":"m","max_output_tokens":9000 }', b'{"model":"m","max_output_tokens":4096 }'),
        (RESPONSES, b'{"model":"m"}', b'{"max_output_tokens":4096,"model":"m"}'),
        (CLAUDE, b'{"model":"m","max_tokens":9000,"messages":[]}', b'{"model":"m","max_tokens":4096,"messages":[]}'),
        (GEMINI, b"{}", b'{"generationConfig":{"maxOutputTokens":4096}}'),
        (GEMINI, b'{"generationConfig": null}', b'{"generationConfig": {"maxOutputTokens":4096}}'),
        (GEMINI, b'{"generationConfig": {}}', b'{"generationConfig": {"maxOutputTokens":4096}}'),
        (
            GEMINI,
            b'{"generationConfig":{"topK":1,"maxOutputTokens":9000}}',
            b'{"generationConfig":{"topK":1,"maxOutputTokens":4096}}',
        ),
        (
            GEMINI,
            b'{"generation_config":{"max_output_tokens":9000}}',
            b'{"generation_config":{"max_output_tokens":4096}}',
        ),
        (
            GEMINI,
            b'{"generationConfig":{"maxOutputTokens":9000,"maxOutputTokens":8000}}',
            b'{"generationConfig":{"maxOutputTokens":4096,"maxOutputTokens":4096}}',
        ),
        (
            GEMINI,
            b'{"generationConfig":{"topK":1},"generation_config":{"maxOutputTokens":9000}}',
            b'{"generationConfig":{"maxOutputTokens":4096,"topK":1},"generation_config":{"maxOutputTokens":4096}}',
        ),
        (
            GEMINI,
            b'{"generationConfig":{"candidateCount":2}}',
            b'{"generationConfig":{"maxOutputTokens":2048,"candidateCount":2}}',
        ),
    ],
)
def test_only_the_bound_changes(api: API, before: bytes, after: bytes) -> None:
    request = clamped(parsed(api, before), 4096)

    assert request.body == after
    assert request.document == json.loads(after)
    assert request.max_output_tokens == FORMATS[api].parse_request(request.call, after).max_output_tokens
    assert clamped(request, 4096) is request


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (CHAT, {"max_tokens": 4096}),
        (CHAT, {"max_completion_tokens": 1}),
        (RESPONSES, {"max_output_tokens": 100}),
        (CLAUDE, {"max_tokens": 0}),
        (GEMINI, {"generationConfig": {"maxOutputTokens": 4095}}),
        (GEMINI, {"generationConfig": "what the provider will refuse"}),
    ],
)
def test_a_request_that_asks_for_no_more_is_not_touched(api: API, body: dict[str, Any]) -> None:
    request = parsed(api, body)

    assert clamped(request, 4096) is request


@pytest.mark.parametrize("kind", [RequestType.TOKEN_COUNT, RequestType.EMBEDDINGS])
def test_what_generates_nothing_is_not_touched(kind: RequestType) -> None:
    request = parsed(CLAUDE, {"max_tokens": 9000}, kind=kind)

    assert clamped(request, 1) is request
    assert clamped_output_tokens(request, 1) == request.max_output_tokens


def test_without_a_clamp_nothing_changes() -> None:
    request = parsed(CHAT, {"max_tokens": 9000})

    assert clamped(request, None) is request
    assert clamped_output_tokens(request, None) == 9000
    assert clamped_output_tokens(parsed(CHAT, {}), None) is None


ADAPTIVE = {"max_tokens": 64_000, "thinking": {"type": "adaptive"}}


@pytest.mark.parametrize(
    ("api", "body", "thinking"),
    [
        (CLAUDE, {"max_tokens": 64_000, "thinking": {"type": "enabled", "budget_tokens": 10_000}}, 10_000),
        (CLAUDE, ADAPTIVE | {"output_config": {"effort": "max"}}, EFFORT_TOKENS["max"]),
        (GEMINI, {"generationConfig": {"thinkingConfig": {"thinkingBudget": 10_000}}}, 10_000),
        (GEMINI, {"generation_config": {"thinking_config": {"thinking_budget": 10_000}}}, 10_000),
        (GEMINI, {"generationConfig": {"thinkingConfig": {"thinkingLevel": "HIGH"}}}, EFFORT_TOKENS["high"]),
        (CHAT, {"reasoning_effort": "high"}, EFFORT_TOKENS["high"]),
        (RESPONSES, {"reasoning": {"effort": "medium"}}, EFFORT_TOKENS["medium"]),
    ],
)
def test_it_stays_above_what_the_request_lets_a_model_think(api: API, body: dict[str, Any], thinking: int) -> None:
    request = parsed(api, body)

    assert clamped(request, 4096).max_output_tokens == thinking + ANSWER_TOKENS
    assert clamped(request, 500).max_output_tokens == thinking + 500
    assert clamped(request, 40_000).max_output_tokens == 40_000


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (CLAUDE, {"max_tokens": 9000, "thinking": {"type": "disabled", "budget_tokens": 9000}}),
        (CLAUDE, {"max_tokens": 9000, "thinking": {"type": "adaptive"}}),
        (CLAUDE, {"max_tokens": 9000, "output_config": {"effort": "max"}}),
        (CLAUDE, {"max_tokens": 9000, "thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}),
        (CHAT, {"reasoning_effort": "minimal"}),
        (CHAT, {"reasoning_effort": 3}),
        (GEMINI, {"generationConfig": {"thinkingConfig": {"thinkingBudget": -1}}}),
    ],
)
def test_thinking_without_a_known_measure_leaves_the_clamp_as_it_is(api: API, body: dict[str, Any]) -> None:
    assert clamped(parsed(api, body), 4096).max_output_tokens == 4096


def test_a_request_that_asks_for_less_than_its_thinking_would_allow_keeps_its_own_bound() -> None:
    body = {"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1500}}

    assert clamped(parsed(CLAUDE, body), 1024).max_output_tokens == 2000


_VALUES = st.none() | st.integers(-5, 10_000) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)


@given(
    st.sampled_from([CHAT, RESPONSES, CLAUDE, GEMINI]),
    st.dictionaries(
        st.sampled_from(
            ["max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "n", "candidateCount", "x"]
        ),
        _VALUES,
    ),
    st.integers(1, 5000),
    st.sampled_from([None, 1]),
)
def test_whatever_a_request_says_the_quota_sees_what_is_sent(
    api: API, members: dict[str, Any], clamp: int, indent: int | None
) -> None:
    """The bound in the body, the one that is reserved, and the one that the pure function tells are the same."""
    document = {"generationConfig": members} if api is GEMINI else {"model": "m", **members}
    request = parsed(api, json.dumps(document, indent=indent).encode())

    after = clamped(request, clamp)
    again = FORMATS[api].parse_request(request.call, after.body)

    assert (again.document, again.max_output_tokens) == (after.document, after.max_output_tokens)
    assert after.max_output_tokens is not None
    assert after.max_output_tokens == clamped_output_tokens(after, clamp)
    assert after.max_output_tokens <= max(clamp, choices(request))
    if all(value is None or (type(value) is int and value >= 0) for value in members.values()):
        assert after.max_output_tokens == clamped_output_tokens(request, clamp)
