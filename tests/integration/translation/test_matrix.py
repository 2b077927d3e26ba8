"""Every application at every provider with every feature: real SDKs, one sidecar, simulated providers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from llm_sidecar.contract.names import API
from llm_sidecar.translation.registry import GENERATING
from tests.integration.translation.applications import APPLICATIONS, Wish
from tests.integration.translation.cells import Cell, application, cells, play, stale
from tests.integration.translation.features import FEATURES, RESULT
from tests.integration.translation.world import MODELS, World, missing_languages, running_world

CALLS_AND_THINKS: Final = FEATURES["thinking"]
STATUSES: Final = {"rate-limited": 429, "bad-request": 400, "overloaded": 503}
KEEPS: Final = {
    API.OPENAI_CHAT: {API.GEMINI},
    API.OPENAI_RESPONSES: {API.OPENAI_RESPONSES, API.ANTHROPIC_MESSAGES, API.GEMINI},
    API.ANTHROPIC_MESSAGES: {API.OPENAI_RESPONSES, API.ANTHROPIC_MESSAGES, API.GEMINI},
    API.GEMINI: {API.GEMINI},
}
"""Whose signatures an application's language has a place for, and gives back. Chat has one for Gemini's calls, as
Google offers it; Gemini has none for others."""
SIGNS: Final = {API.ANTHROPIC_MESSAGES, API.GEMINI}
ASKS_FOR_REASONING: Final = {API.OPENAI_RESPONSES, API.ANTHROPIC_MESSAGES}
"""OpenAI's responses sign only where that is asked for: by the application, or for one that can give it back."""
SIGNED: Final = ("signature", "thoughtSignature", "encrypted_content")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


def test_every_language_of_the_registry_is_in_the_matrix() -> None:
    assert missing_languages() == set()
    assert set(APPLICATIONS) == set(GENERATING)


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: cell.name)
def test_an_application_gets_what_it_asked_for(world: World, cell: Cell) -> None:
    """And the provider was sent what the cell's file says; `python -m tests.golden --write` writes it anew."""
    said, turns = play(world, cell)
    FEATURES[cell.feature].check(said)
    assert cell.golden.exists(), f"{cell.golden.name} is missing: run `python -m tests.golden --write` and read it"
    assert turns == json.loads(cell.golden.read_text(encoding="utf-8"))


def test_no_file_stands_without_its_cell() -> None:
    assert list(stale()) == []


PAIRS: Final = list(itertools.product(GENERATING, GENERATING))


@pytest.mark.parametrize(("client", "provider"), PAIRS)
@pytest.mark.parametrize("fault", STATUSES)
def test_an_error_is_raised_as_the_applications_own(world: World, client: API, provider: API, fault: str) -> None:
    with application(world, client, f"{fault}-{MODELS[provider]}") as asking:
        with pytest.raises(asking.errors[fault]) as raised:
            asking.ask("Say something.", Wish())
        with pytest.raises(asking.errors[fault]):
            asking.ask("Say something.", Wish(stream=True))
    assert _status(raised.value) == STATUSES[fault]


@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_a_stream_that_its_provider_breaks_off_raises(world: World, client: API, provider: API) -> None:
    with (
        application(world, client, f"breaks-off-{MODELS[provider]}") as asking,
        pytest.raises(asking.errors["breaks-off"]),
    ):
        asking.ask("Say something in several words, so that there are pieces.", Wish(stream=True))


def _status(error: Any) -> int:
    """OpenAI's and Anthropic's SDKs call it `status_code`, Google's `code`."""
    return int(error.status_code if hasattr(error, "status_code") else error.code)


@pytest.mark.parametrize(("client", "provider"), PAIRS)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_what_a_provider_signed_comes_back_to_it(world: World, client: API, provider: API, stream: bool) -> None:
    """Without it the next turn is refused by Gemini, and is thought anew by Anthropic."""
    world.forget()
    wish = Wish(tools=CALLS_AND_THINKS.wish.tools, thinking=True, stream=stream)
    with application(world, client, MODELS[provider]) as asking:
        asking.ask(CALLS_AND_THINKS.text, wish)
        asking.give_results(RESULT)
    signatures = _signatures(world)
    comes_back = [signature in json.dumps(world.asked[1]["body"]) for signature in signatures]
    asked_for = provider is API.OPENAI_RESPONSES and client in ASKS_FOR_REASONING
    assert bool(signatures) is (provider in SIGNS or asked_for)
    assert comes_back == [provider in KEEPS[client]] * len(signatures)


@pytest.mark.parametrize(
    ("client", "first", "second"),
    [
        (client, first, second)
        for client, first, second in itertools.product(GENERATING, repeat=3)
        # Chat to chat passes as it came, since Google offers the very same fields in its own chat completions.
        if first is not second and not client is second is API.OPENAI_CHAT
    ],
)
def test_what_a_provider_signed_is_shown_to_no_other(world: World, client: API, first: API, second: API) -> None:
    """Nor is anything that the sidecar made up to carry it."""
    world.forget()
    with application(world, client, MODELS[first]) as asking:
        asking.ask(CALLS_AND_THINKS.text, CALLS_AND_THINKS.wish)
        asking.model = MODELS[second]
        said = asking.give_results(RESULT)
    assert RESULT in said.text
    shown = json.dumps(world.asked[1]["body"])
    assert [signature for signature in _signatures(world) if signature in shown] == []
    assert "llm-sidecar:" not in shown
    assert "llmsidecar." not in shown


def _signatures(world: World) -> list[str]:
    """All that the first answer signed."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            found.extend(value[name] for name in SIGNED if value.get(name))
            for member in value.values():
                walk(member)
        elif isinstance(value, list):
            for member in value:
                walk(member)

    for document in world.first_answer():
        walk(document)
    return found
