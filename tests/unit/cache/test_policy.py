"""What a team lets the cache answer, and for how long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from llm_sidecar.cache.policy import CachePolicy
from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.contract.team_quota_resource import CachedGenerations
from llm_sidecar.formats.base import Call, ParsedRequest
from llm_sidecar.formats.registry import FORMATS

REQUEST = ParsedRequest(
    call=Call(api=API.OPENAI_CHAT, type=RequestType.GENERATION, path="/"),
    body=b"",
    document={},
    model="m",
    stream=False,
    max_output_tokens=None,
    input_tokens_estimate=1,
    stateful=False,
    deterministic=True,
)
NONE, DETERMINISTIC, ALL = CachedGenerations.NONE, CachedGenerations.DETERMINISTIC, CachedGenerations.ALL


@pytest.mark.parametrize(
    ("generations", "deterministic", "allowed"),
    [
        (NONE, True, False),
        (NONE, False, False),
        (DETERMINISTIC, True, True),
        (DETERMINISTIC, False, False),
        (ALL, True, True),
        (ALL, False, True),
    ],
)
def test_generations_by_the_teams_choice(generations: CachedGenerations, deterministic: bool, allowed: bool) -> None:
    assert CachePolicy(generations).allows(replace(REQUEST, deterministic=deterministic)) is allowed


@pytest.mark.parametrize("kind", [RequestType.EMBEDDINGS, RequestType.TOKEN_COUNT])
def test_other_types_are_always_allowed(kind: RequestType) -> None:
    assert CachePolicy(NONE).allows(replace(REQUEST, call=replace(REQUEST.call, type=kind), deterministic=False))


def test_what_lives_at_a_provider_never_and_what_cannot_be_repeated_never() -> None:
    """Several choices are asked for because they differ, and a provider's own tools look at the world."""
    assert not CachePolicy(ALL).allows(replace(REQUEST, stateful=True))
    assert not CachePolicy(ALL).allows(replace(REQUEST, repeatable=False))
    assert CachePolicy(ALL).allows(replace(REQUEST, stream=True))


@pytest.mark.parametrize(
    ("api", "document", "repeatable"),
    [
        (API.OPENAI_CHAT, {"messages": []}, True),
        (API.OPENAI_CHAT, {"messages": [], "n": 1}, True),
        (API.OPENAI_CHAT, {"messages": [], "n": 2}, False),
        (API.OPENAI_CHAT, {"messages": [], "web_search_options": {}}, False),
        (API.OPENAI_CHAT, {"messages": [], "tools": [{"type": "function"}]}, True),
        (API.OPENAI_RESPONSES, {"input": "x", "tools": [{"type": "function"}]}, True),
        (API.OPENAI_RESPONSES, {"input": "x", "tools": [{"type": "web_search"}]}, False),
        (API.ANTHROPIC_MESSAGES, {"messages": [], "tools": [{"name": "f"}]}, True),
        (API.ANTHROPIC_MESSAGES, {"messages": [], "tools": [{"type": "web_search_20250305"}]}, False),
        (API.ANTHROPIC_MESSAGES, {"messages": [], "mcp_servers": [{}]}, False),
        (API.GEMINI, {"contents": [], "tools": [{"functionDeclarations": []}]}, True),
        (API.GEMINI, {"contents": [], "tools": [{"googleSearch": {}}]}, False),
        (API.GEMINI, {"contents": [], "generationConfig": {"candidateCount": 2}}, False),
    ],
)
def test_what_can_be_repeated(api: API, document: dict[str, Any], repeatable: bool) -> None:
    call = Call(api=api, type=RequestType.GENERATION, path="/", model="m" if api is API.GEMINI else None)
    named = document if api is API.GEMINI else {"model": "m", **document}
    assert FORMATS[api].parse_request(call, orjson.dumps(named)).repeatable is repeatable


@pytest.mark.parametrize(
    ("fresh", "team", "expected"), [(60, 86_400, 3660), (3600, 4000, 4000), (30, 30, 30), (86_400, 86_400, 86_400)]
)
def test_the_store_keeps_it_an_hour_longer_within_the_teams_bound(fresh: int, team: int, expected: int) -> None:
    assert CachePolicy(max_ttl_seconds=team).kept_seconds(fresh) == expected


@pytest.mark.parametrize(("provider", "team", "expected"), [(60, 30, 30), (30, 60, 30), (0, 60, 0), (60, 0, 0)])
def test_the_shorter_time_holds(provider: int, team: int, expected: int) -> None:
    policy = CachePolicy(max_ttl_seconds=team)
    assert policy.ttl_seconds(RequestType.GENERATION, {RequestType.GENERATION: provider}) == expected


def test_a_type_without_a_time_is_never_kept() -> None:
    assert CachePolicy().ttl_seconds(RequestType.PASSTHROUGH, {}) == 0
