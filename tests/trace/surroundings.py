"""The processes of a run: Valkey, a simulator for each API, and one sidecar, as anybody would configure it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from llm_sidecar.contract.team_quota_resource import CachedGenerations
from tests.bench.children import Child, Children, accepts, answers_200, free_port, wait_until
from tests.bench.targets import program, redis_command
from tests.trace.requests import ANSWER_BYTES, EMBEDDING_MODEL, MAX_OUTPUT_TOKENS, MODELS, Family

NAMESPACE: Final = "trace"
_TYPES: Final = {Family.OPENAI: ("OpenAI", "/v1"), Family.ANTHROPIC: ("Anthropic", ""), Family.GEMINI: ("Google", "")}
_PRICES: Final[Mapping[str, Mapping[str, str]]] = {
    MODELS[Family.OPENAI]: {"inputUSDPerMillionTokens": "0.25", "outputUSDPerMillionTokens": "2.00"},
    MODELS[Family.ANTHROPIC]: {"inputUSDPerMillionTokens": "1.00", "outputUSDPerMillionTokens": "5.00"},
    MODELS[Family.GEMINI]: {"inputUSDPerMillionTokens": "0.30", "outputUSDPerMillionTokens": "2.50"},
    EMBEDDING_MODEL: {"inputUSDPerMillionTokens": "0.02", "outputUSDPerMillionTokens": "0"},
}
"""Examples. Each model has one, so that what is saved can be told in USD."""
_HUGE: Final = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What stands around each sidecar."""

    children: Children
    redis: Child
    redis_port: int
    simulators: tuple[Child, ...]
    simulator_ports: Mapping[Family, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderTest:
    """A started sidecar."""

    child: Child
    port: int
    admin_port: int


def start_surroundings(children: Children, *, provider_milliseconds: int) -> Surroundings:
    """Start Valkey and the simulators: one for each API, since one alone would set the pace."""
    redis_port = free_port()
    redis = children.start("redis", redis_command(redis_port, directory=children.directory))
    wait_until(redis, lambda: accepts(redis_port), what="listening")
    ports = {family: free_port() for family in Family}
    simulators = []
    for family, port in ports.items():
        command = [sys.executable, "-OO", str(program()), "simulate", "--port", str(port)]
        command += ["--latency-ms", str(provider_milliseconds), "--fault", f"answer_bytes={ANSWER_BYTES}"]
        simulators.append(children.start(f"simulator-{family}", command))
    for child, port in zip(simulators, ports.values(), strict=True):
        wait_until(child, lambda port=port: answers_200(port, "/_simulate/healthz"), what="ready")  # type: ignore[misc]
    return Surroundings(
        children=children,
        redis=redis,
        redis_port=redis_port,
        simulators=tuple(simulators),
        simulator_ports=ports,
    )


def start_sidecar(surroundings: Surroundings, *, generations: CachedGenerations) -> UnderTest:
    """Start a sidecar with an empty cache."""
    _flush(surroundings.redis_port)
    team = f"cache-{generations.lower()}"
    manifest = surroundings.children.directory / f"{team}.yaml"
    manifest.write_text(yaml.safe_dump_all(manifests(surroundings.simulator_ports, generations=generations, team=team)))
    port, admin_port = free_port(), free_port()
    # As the image starts it: without docstrings and assertions.
    command = [sys.executable, "-OO", str(program()), "run", "-f", str(manifest), "--no-token"]
    command += ["--port", str(port), "--admin-port", str(admin_port), "--team", f"{NAMESPACE}/{team}"]
    command += ["--redis", f"redis://127.0.0.1:{surroundings.redis_port}/0"]
    child = surroundings.children.start(team, command, measured=True)
    wait_until(child, lambda: answers_200(admin_port, "/readyz"), what="ready")
    return UnderTest(child=child, port=port, admin_port=admin_port)


def _flush(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        connection.recv(64)


def manifests(
    simulator_ports: Mapping[Family, int], *, generations: CachedGenerations, team: str
) -> list[dict[str, Any]]:
    """The resources, as a user would write them."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "namespace": NAMESPACE, "labels": {"llm-sidecar.io/credentials": "true"}},
        "stringData": {"api-key": "key-of-the-simulator"},
    }
    providers = [_provider(family, port) for family, port in simulator_ports.items()]
    # What repeats of embeddings and token counts is cached by default; off is off.
    off = {"maxTTLSeconds": 0} if generations is CachedGenerations.NONE else {}
    quota = {
        "limits": [
            {"name": "burst", "per": "Minute", "requests": _HUGE},
            {"name": "daily", "per": "Day", "tokens": _HUGE},
        ],
        "cache": {"generations": str(generations), **off},
    }
    return [secret, *providers, _resource("TeamQuota", name=team, spec=quota)]


def _provider(family: Family, port: int) -> dict[str, Any]:
    kind, path = _TYPES[family]
    names = [MODELS[family], *([EMBEDDING_MODEL] if family is Family.OPENAI else [])]
    spec = {
        "type": kind,
        "baseURL": f"http://127.0.0.1:{port}{path}",
        "credentials": {"secretKeyRef": {"name": "keys", "key": "api-key"}},
        "models": [
            {"name": name, "maxOutputTokens": 8 * MAX_OUTPUT_TOKENS, "pricing": _PRICES[name]} for name in names
        ],
    }
    return _resource("LLMProvider", name=str(family), spec=spec)


def _resource(kind: str, *, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "llm-sidecar.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
