"""Every recorded exchange with the real providers passes through one sidecar: unaltered, counted, with other keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from yarl import URL

from tests.integration.processes import Sidecar, running_sidecar
from tests.integration.recorded_exchanges import APIS, EXPECTED_EXCHANGES, Exchange, Usage, load
from tests.integration.replay import RECORDING_HEADER, Received, replaying

pytestmark = [pytest.mark.needs("recordings"), pytest.mark.xdist_group("recorded_traffic")]

CONCURRENT_REQUESTS: Final = 8
EXCHANGE_SECONDS: Final = 30
SHOWN: Final = 20
"""Exchanges that a failure tells about."""
UPSTREAM_KEYS: Final = {api: f"upstream-key-of-{api}" for api in APIS}
ANTHROPIC_VERSION: Final = "2023-06-01"
KEPT_HEADER: Final = ("X-Of-The-Application", "kept")
DROPPED_HEADERS: Final = (
    ("Cookie", "session=mine"),
    ("OpenAI-Organization", "org-mine"),
    ("OpenAI-Project", "proj-mine"),
    ("X-Goog-User-Project", "mine"),
    ("X-Forwarded-For", "203.0.113.9"),
    ("Proxy-Authorization", "Basic bWluZQ=="),
    ("X-Named-By-Connection", "hop"),
    ("X-Llm-Sidecar-Model", "forged"),
)
CREDENTIAL_HEADERS: Final = ("authorization", "x-api-key", "x-goog-api-key", "api-key")
MANIFESTS: Final = """\
apiVersion: llm-sidecar.io/v1alpha1
kind: TeamQuota
metadata: {{name: default}}
spec: {{cache: {{generations: None}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: keys, labels: {{llm-sidecar.io/credentials: "true"}}}}
stringData: {{openai: {keys[openai]}, anthropic: {keys[anthropic]}, google: {keys[google]}}}
---
apiVersion: llm-sidecar.io/v1alpha1
kind: LLMProvider
metadata: {{name: openai}}
spec: {{type: OpenAI, baseURL: "{base_url}/v1", credentials: {{secretKeyRef: {{name: keys, key: openai}}}}, {rest}}}
---
apiVersion: llm-sidecar.io/v1alpha1
kind: LLMProvider
metadata: {{name: anthropic}}
spec: {{type: Anthropic, baseURL: "{base_url}", credentials: {{secretKeyRef: {{name: keys, key: anthropic}}}}, {rest}}}
---
apiVersion: llm-sidecar.io/v1alpha1
kind: LLMProvider
metadata: {{name: google}}
spec: {{type: Google, baseURL: "{base_url}", credentials: {{secretKeyRef: {{name: keys, key: google}}}}, {rest}}}
"""
NO_CACHE: Final = "cache: {ttlSeconds: {generation: 0, embeddings: 0, tokenCount: 0}}"
EVERYTHING_AND_NO_CACHE: Final = f'models: [{{name: "*"}}], passthroughPaths: ["/*"], {NO_CACHE}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One exchange after it went through the sidecar."""

    exchange: Exchange
    token: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    received: list[Received]
    audit: dict[str, Any]

    def header_values(self, name: str) -> list[str]:
        """All values of an answer header."""
        return [value for each, value in self.headers if each.lower() == name.lower()]


@pytest.fixture(scope="module")
def played(
    recordings_directory: Path, shared_store_url: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Played]]:
    """All exchanges, played through one sidecar, by API."""
    exchanges = load(recordings_directory)
    done = asyncio.run(_play(exchanges, shared_store_url, tmp_path_factory.mktemp("recorded")))
    return {api: [each for each in done if each.exchange.api == api] for api in APIS}


@pytest.fixture(scope="module")
def played_without_asking(
    recordings_directory: Path, shared_store_url: str, tmp_path_factory: pytest.TempPathFactory
) -> list[Played]:
    """The recorded chat streams, asked for by applications that do not ask for usage."""
    streams = [
        replace(each, request={name: value for name, value in each.request.items() if name != "stream_options"})
        for each in load(recordings_directory)
        if each.path == "/v1/chat/completions" and each.is_stream
    ]
    return asyncio.run(_play(streams, shared_store_url, tmp_path_factory.mktemp("unasked")))


async def _play(exchanges: list[Exchange], store_url: str, folder: Path) -> list[Played]:
    """Each API through a sidecar that has its provider alone: others would answer what it refuses, by translation."""
    async with replaying(exchanges) as replay:
        manifests = MANIFESTS.format(base_url=replay.base_url, keys=UPSTREAM_KEYS, rest=EVERYTHING_AND_NO_CACHE)
        done: list[Played] = []
        for api in sorted({exchange.api for exchange in exchanges}):
            own = folder / f"{api}.yaml"
            own.write_text("---\n".join(each for each in manifests.split("---\n") if _concerns(each, api)))
            of_this_api = [exchange for exchange in exchanges if exchange.api == api]
            done += await _play_through(own, of_this_api, store_url, replay.received)
        return done


def _concerns(manifest: str, api: str) -> bool:
    return "kind: LLMProvider" not in manifest or f"metadata: {{name: {api}}}" in manifest


async def _play_through(
    manifests: Path, exchanges: list[Exchange], store_url: str, received: dict[str, list[Received]]
) -> list[Played]:
    with running_sidecar(manifests, arguments=("--redis", store_url)) as sidecar:
        turns = asyncio.Semaphore(CONCURRENT_REQUESTS)
        async with aiohttp.ClientSession(auto_decompress=False) as session:

            async def play(exchange: Exchange) -> Played:
                async with turns:
                    return await _play_one(session, sidecar, exchange, received)

            answered = await asyncio.gather(*map(play, exchanges))
    # The sidecar has ended, and an ended sidecar has written every line.
    lines = [json.loads(line) for line in sidecar.stdout.all() if line.startswith("{")]
    audit = {line["request_id"]: line for line in lines if "request_id" in line}
    return [replace(one, audit=audit.get(_request_id(one), {})) for one in answered]


async def _play_one(
    session: aiohttp.ClientSession, sidecar: Sidecar, exchange: Exchange, received: dict[str, list[Received]]
) -> Played:
    async with session.request(
        exchange.method,
        URL(sidecar.base_url + exchange.path, encoded=True),
        data=exchange.request_body,
        headers=[*_application_headers(exchange, sidecar.token)],
        skip_auto_headers=("Content-Type", "Accept", "User-Agent"),
        timeout=aiohttp.ClientTimeout(total=EXCHANGE_SECONDS),
    ) as response:
        body = await response.read()
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers]
    return Played(
        exchange=exchange,
        token=sidecar.token,
        status=response.status,
        headers=headers,
        body=body,
        received=received.get(exchange.id, []),
        audit={},
    )


def _application_headers(exchange: Exchange, token: str) -> Iterator[tuple[str, str]]:
    yield RECORDING_HEADER, exchange.id
    yield KEPT_HEADER
    yield from exchange.request_headers.items()
    yield from DROPPED_HEADERS
    yield "Connection", "keep-alive, X-Named-By-Connection"
    yield "Accept-Encoding", "gzip, br"
    if exchange.api == "google":
        yield "x-goog-api-key", token
    elif exchange.api == "anthropic":
        yield "x-api-key", token
        yield "anthropic-version", ANTHROPIC_VERSION
    else:
        yield "Authorization", f"Bearer {token}"


def _request_id(one: Played) -> str:
    return next(iter(one.header_values("x-llm-sidecar-request-id")), "")


def _assert_equal(played: Iterable[Played], expected_and_actual: Callable[[Played], tuple[Any, Any]]) -> None:
    """Fail with every exchange that is wrong, and where each begins to differ."""
    compared = [(one.exchange, *expected_and_actual(one)) for one in played]
    differing = [
        f"{exchange.id} {exchange.method} {exchange.path}\n  expected {_from_difference(expected, actual)}"
        f"\n  was      {_from_difference(actual, expected)}"
        for exchange, expected, actual in compared
        if expected != actual
    ]
    assert not differing, f"{len(differing)} of {len(compared)} exchanges differ:\n" + "\n".join(differing[:SHOWN])


def _from_difference(value: Any, other: Any) -> str:
    """The value, from a little before the place where it begins to differ."""
    mine, others = repr(value), repr(other)
    place = next((at for at, pair in enumerate(zip(mine, others, strict=False)) if pair[0] != pair[1]), 0)
    return f"{'…' * (place > 60)}{mine[max(0, place - 60) : place + 340]}"


def test_every_recording_is_played(played: dict[str, list[Played]]) -> None:
    assert {api: len(exchanges) for api, exchanges in played.items()} == EXPECTED_EXCHANGES


@pytest.mark.parametrize("api", APIS)
def test_every_answer_arrives_as_it_was_recorded(played: dict[str, list[Played]], api: str) -> None:
    """Status and body, to the byte, however the network split and framed them."""
    _assert_equal(played[api], lambda one: ((one.exchange.status, one.exchange.response), (one.status, one.body)))


@pytest.mark.parametrize("api", APIS)
def test_every_request_reaches_the_provider_once_and_as_it_was_sent(played: dict[str, list[Played]], api: str) -> None:
    """Method, path, query and every byte of the body, odd spacing included."""
    _assert_equal(
        played[api],
        lambda one: (
            [(one.exchange.method, one.exchange.path, one.exchange.request_body or b"")],
            [(each.method, each.target, each.body) for each in one.received],
        ),
    )


@pytest.mark.parametrize("api", APIS)
def test_the_pods_token_never_reaches_a_provider_whose_own_key_does(played: dict[str, list[Played]], api: str) -> None:
    """In the header that this API wants, and in no other."""
    name, value = {
        "openai": ("authorization", f"Bearer {UPSTREAM_KEYS['openai']}"),
        "anthropic": ("x-api-key", UPSTREAM_KEYS["anthropic"]),
        "google": ("x-goog-api-key", UPSTREAM_KEYS["google"]),
    }[api]

    _assert_equal(
        played[api],
        lambda one: (
            [{name: [value]}] * len(one.received),
            [
                {header: each.values(header) for header in CREDENTIAL_HEADERS if each.values(header)}
                for each in one.received
            ],
        ),
    )
    leaks = [one.exchange.id for one in played[api] if one.token in repr(one.received)]
    assert leaks == []


@pytest.mark.parametrize("api", APIS)
def test_a_provider_sees_the_applications_headers_but_not_who_it_claims_to_be(
    played: dict[str, list[Played]], api: str
) -> None:
    """Identity, cookies and hop-by-hop headers stop at the sidecar; content encoding is asked to be none."""

    def seen(one: Played) -> tuple[Any, Any]:
        wanted = [*exchange_headers(one.exchange), KEPT_HEADER, ("Accept-Encoding", "identity")]
        if api == "anthropic":
            wanted.append(("anthropic-version", ANTHROPIC_VERSION))
        expected = {name: [value] for name, value in wanted} | {name: [] for name, _ in DROPPED_HEADERS}
        return expected, {name: one.received[0].values(name) if one.received else None for name in expected}

    def exchange_headers(exchange: Exchange) -> list[tuple[str, str]]:
        return list(exchange.request_headers.items())

    _assert_equal(played[api], seen)


@pytest.mark.parametrize("api", APIS)
def test_an_application_sees_the_providers_headers_but_no_cookie_of_its(
    played: dict[str, list[Played]], api: str
) -> None:
    """A cookie would follow one pod's requests with everybody's key."""

    def seen(one: Played) -> tuple[Any, Any]:
        expected = {name: [value] for name, value in one.exchange.response_headers.items()}
        expected |= {"x-request-id": ["req_of_the_provider"], "Set-Cookie": [], "Alt-Svc": [], "Keep-Alive": []}
        expected |= {"x-llm-sidecar-provider": [api], "x-llm-sidecar-attempts": ["1"]}
        return expected, {name: one.header_values(name) for name in expected}

    _assert_equal(played[api], seen)


@pytest.mark.parametrize("api", APIS)
def test_token_usage_is_read_to_the_number_that_the_provider_told(played: dict[str, list[Played]], api: str) -> None:
    """Plain answers and streams alike; none for errors and for paths that are merely passed through."""

    def told(one: Played) -> tuple[Any, Any]:
        usage = one.exchange.usage
        source = one.audit.get("usage_source") if usage else None
        return (
            (usage, "measured" if usage else None, _total(usage)),
            (one.audit.get("usage", "no audit line"), source, one.audit.get("charged_tokens")),
        )

    _assert_equal(played[api], told)


def test_the_expected_usage_adds_up_to_the_providers_own_totals(played: dict[str, list[Played]]) -> None:
    """Guards the tests' own reading: disjoint buckets sum to the total wherever an API tells one."""
    exchanges = [one.exchange for each in played.values() for one in each]
    told = [exchange for exchange in exchanges if exchange.usage and exchange.provider_total is not None]
    wrong = [exchange.id for exchange in told if exchange.provider_total != _total(exchange.usage)]

    assert len(told) > 250
    assert wrong == []


def test_a_chat_stream_that_does_not_ask_for_usage_is_counted_all_the_same(
    played_without_asking: list[Played],
) -> None:
    """The sidecar asks in its place, by one insertion into an otherwise unaltered body."""
    assert played_without_asking
    for one in played_without_asking:
        sent, (received,) = one.exchange.request_body or b"", one.received
        asked = one.exchange.request | {"stream_options": {"include_usage": True}}

        assert asked == json.loads(received.body)
        assert _is_one_insertion(sent, received.body)
        assert one.exchange.usage == one.audit["usage"]


def test_usage_that_only_the_sidecar_asked_for_is_hidden_from_the_application(
    played_without_asking: list[Played],
) -> None:
    """Every other frame arrives to the byte."""
    assert played_without_asking
    for one in played_without_asking:
        frames = one.exchange.response.split(b"\n\n")
        expected = b"\n\n".join(frame for frame in frames if b'"choices":[],' not in frame.replace(b" ", b""))

        assert len(expected) < len(one.exchange.response)
        assert expected == one.body


def _total(usage: Usage | None) -> int:
    """All buckets; reasoning is a part of the output, told apart."""
    return sum(count or 0 for bucket, count in (usage or {}).items() if bucket != "reasoning_tokens")


def _is_one_insertion(sent: bytes, received: bytes) -> bool:
    added = len(received) - len(sent)
    return any(sent == received[:place] + received[place + added :] for place in range(len(sent) + 1))
