"""What a team lets the cache answer, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llm_sidecar.cache.policy import CachePolicy
from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.contract.team_quota_resource import CachedGenerations
from llm_sidecar.formats.base import Call, ParsedRequest

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


@pytest.mark.parametrize("change", [{"stream": True}, {"stateful": True}], ids=["stream", "stateful"])
def test_streams_and_stateful_requests_never(change: dict[str, bool]) -> None:
    request = replace(REQUEST, stream=change.get("stream", False), stateful=change.get("stateful", False))
    assert not CachePolicy(ALL).allows(request)


@pytest.mark.parametrize(("provider", "team", "expected"), [(60, 30, 30), (30, 60, 30), (0, 60, 0), (60, 0, 0)])
def test_the_shorter_time_holds(provider: int, team: int, expected: int) -> None:
    policy = CachePolicy(max_ttl_seconds=team)
    assert policy.ttl_seconds(RequestType.GENERATION, {RequestType.GENERATION: provider}) == expected


def test_a_type_without_a_time_is_never_kept() -> None:
    assert CachePolicy().ttl_seconds(RequestType.PASSTHROUGH, {}) == 0
