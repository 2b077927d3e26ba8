"""Each SDK that embeds, with each provider that does: one vector for each text, in order, as long as was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from google import genai
from google.genai import types

from llm_sidecar.contract.names import API
from llm_sidecar.translation.registry import EMBEDDING
from tests.integration.translation.world import EMBEDDERS, World, running_world

TEXTS = ["a first text", "another one", "a first text"]
LENGTH = 64


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


def by_openai(world: World, model: str, **options: Any) -> list[list[float]]:
    with openai.OpenAI(base_url=f"{world.base_url}/v1", api_key=world.token, max_retries=0) as client:
        answer = client.embeddings.create(model=model, input=TEXTS, dimensions=LENGTH, **options)
    assert [one.index for one in answer.data] == [0, 1, 2]
    assert answer.usage.prompt_tokens > 0
    return [one.embedding for one in answer.data]


def by_google(world: World, model: str) -> list[list[float]]:
    client = genai.Client(api_key=world.token, http_options=types.HttpOptions(base_url=world.base_url))
    try:
        answer = client.models.embed_content(
            model=model, contents=list(TEXTS), config=types.EmbedContentConfig(output_dimensionality=LENGTH)
        )
    finally:
        client.close()
    return [one.values or [] for one in answer.embeddings or []]


def test_every_language_that_embeds_is_here() -> None:
    assert set(EMBEDDERS) == set(EMBEDDING)


@pytest.mark.parametrize("provider", EMBEDDERS)
@pytest.mark.parametrize("sdk", [by_openai, by_google])
def test_every_sdk_gets_vectors_from_every_provider(world: World, sdk: Any, provider: API) -> None:
    world.forget()
    vectors = sdk(world, EMBEDDERS[provider])

    assert [len(vector) for vector in vectors] == [LENGTH] * 3
    assert vectors[0] == vectors[2] != vectors[1]
    assert world.asked
    expected = "/embeddings" if provider is API.OPENAI_EMBEDDINGS else f"/models/{EMBEDDERS[provider]}:"
    assert all(expected in asked["path"] for asked in world.asked)


@pytest.mark.parametrize("provider", EMBEDDERS)
def test_base64_and_plain_numbers_are_the_same_vectors(world: World, provider: API) -> None:
    """The SDK asks for base64 unless it is told otherwise."""
    plain = by_openai(world, EMBEDDERS[provider], encoding_format="float")

    assert by_openai(world, EMBEDDERS[provider]) == [pytest.approx(vector, rel=1e-6) for vector in plain]
