"""Real parts for whole-path tests: a Valkey, a simulated provider with a wiretap before it, sidecars as processes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest
import redis

from llm_sidecar.embedded_store import embedded_store
from llm_sidecar.simulate import SimulatorSettings, running
from tests.integration.background import in_background
from tests.integration.processes import Sidecar, running_sidecar
from tests.integration.wiretap import Wiretap, tapped


@pytest.fixture(scope="session")
def shared_store_url() -> Iterator[str]:
    """URL of the session's Valkey, with whatever other tests left in it."""
    with in_background(embedded_store()) as url:
        yield url


@pytest.fixture
def store_url(shared_store_url: str) -> str:
    """URL of a real and, at the beginning of each test, empty Valkey."""
    with redis.Redis.from_url(shared_store_url) as client:
        client.flushall()
    return shared_store_url


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedProvider:
    """The simulated provider as the sidecar reaches it, and what reached it."""

    base_url: str
    key: str
    """The only key that it accepts."""
    tap: Wiretap


@pytest.fixture
def simulator() -> Iterator[SimulatedProvider]:
    """A simulated provider of all three APIs behind a wiretap."""
    key = f"provider-{secrets.token_hex(16)}"
    with ExitStack() as stack:
        handle = stack.enter_context(in_background(running(SimulatorSettings(port=0, required_keys=(key,)))))
        address = urlsplit(handle.base_url)
        tap = stack.enter_context(in_background(tapped(address.hostname or "", address.port or 0)))
        yield SimulatedProvider(base_url=tap.base_url, key=key, tap=tap)


class StartSidecar(Protocol):
    """Starts a sidecar that lives until the test ends."""

    def __call__(
        self, manifests: str, *, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
    ) -> Sidecar:
        """`manifests`: YAML documents. Ready when this returns; held to a clean end when the test is over."""
        ...


@pytest.fixture
def start_sidecar(tmp_path: Path, store_url: str) -> Iterator[StartSidecar]:
    """Start sidecars on the test's store; each must end with code 0 on SIGTERM, or the test fails."""
    with ExitStack() as stack:

        def start(
            manifests: str, *, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
        ) -> Sidecar:
            path = tmp_path / f"manifests-{secrets.token_hex(4)}.yaml"
            path.write_text(manifests)
            return stack.enter_context(
                running_sidecar(path, environment=environment, arguments=(*arguments, "--redis", store_url))
            )

        yield start


@pytest.fixture
def simulated_manifests(simulator: SimulatedProvider) -> Callable[..., str]:
    """Manifests for the simulated provider; see `provider_manifests`."""

    def manifests(**options: str) -> str:
        return provider_manifests(simulator.base_url, simulator.key, **options)

    return manifests


def provider_manifests(base_url: str, key: str, *, extra_spec: str = "") -> str:
    """One provider of each type at `base_url`, with every model that the programs use.

    `extra_spec`: further lines of each provider's spec, without indentation.
    """
    return "---\n".join(
        [
            _SECRET.format(key=key),
            *(
                _PROVIDER.format(
                    name=kind.lower(),
                    type=kind,
                    base_url=base_url + ("/v1" if kind == "OpenAI" else ""),
                    models="[" + ", ".join(f'{{name: "{model}"}}' for model in models) + "]",
                )
                + "".join(f"  {line}\n" for line in extra_spec.splitlines())
                for kind, models in MODELS.items()
            ),
            "apiVersion: llm-sidecar.io/v1alpha1\nkind: TeamQuota\nmetadata: {name: default}\nspec: {}\n",
        ]
    )


MODELS = {
    "OpenAI": ("gpt-5-mini", "text-embedding-3-small"),
    "Anthropic": ("claude-haiku-4-5",),
    "Google": ("gemini-2.5-flash", "gemini-embedding-001"),
}
_SECRET = """\
apiVersion: v1
kind: Secret
metadata:
  name: provider
  labels: {{llm-sidecar.io/credentials: "true"}}
stringData: {{api-key: "{key}"}}
"""
_PROVIDER = """\
apiVersion: llm-sidecar.io/v1alpha1
kind: LLMProvider
metadata: {{name: {name}}}
spec:
  type: {type}
  baseURL: {base_url}
  credentials: {{secretKeyRef: {{name: provider, key: api-key}}}}
  models: {models}
"""
