"""The manifests that newcomers copy must work as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_sidecar.contract.names import API
from llm_sidecar.manifests import assemble, load
from llm_sidecar.providers.factory import LLMProviderFactory
from llm_sidecar.runtime import Transports, compile_runtime

EXAMPLES = Path(__file__).parents[2] / "examples"


class _EveryVariable(dict[str, str]):
    """An environment in which every variable is set."""

    def get(self, key: str, default: str | None = None) -> str:  # type: ignore[override]
        return f"value-of-{key}"


@pytest.mark.parametrize(
    "path", sorted([*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("several-providers/*.yaml")]), ids=lambda path: path.stem
)
def test_an_example_has_no_problems(path: Path) -> None:
    manifests = load([path], known_types=LLMProviderFactory.types(), environment=_EveryVariable())

    assert [str(problem) for problem in manifests.problems] == []


@pytest.mark.parametrize("name", ["openai", "anthropic", "google", "openai-compatible", "several-providers/providers"])
def test_a_provider_example_can_be_run_with_the_example_quota(name: str) -> None:
    paths = [EXAMPLES / f"{name}.yaml", EXAMPLES / "team-quota.yaml"]
    environment = _EveryVariable()
    manifests = load(paths, known_types=LLMProviderFactory.types(), environment=environment)

    document = assemble(manifests, store_url="redis://127.0.0.1:6379", environment=environment)

    assert document.team is not None
    assert document.team.label == "payments/payments"
    assert document.providers


def test_the_providers_of_the_setup_guide_stand_in_for_one_another_in_the_order_that_it_tells() -> None:
    environment = _EveryVariable()
    several = EXAMPLES / "several-providers" / "providers.yaml"
    manifests = load([several], known_types=LLMProviderFactory.types(), environment=environment)
    runtime = compile_runtime(assemble(manifests, environment=environment), "digest", Transports())

    found = runtime.routes.candidates(API.OPENAI_CHAT, "small")

    assert [(one.name.rpartition("/")[2], one.answering_model("small")) for one in found] == [
        ("openai", "gpt-5-mini"),
        ("anthropic", "claude-haiku-4-5"),
        ("google", "gemini-2.5-flash"),
        ("own", "llama-3.3-70b"),
    ]
