"""From a model's name to those who serve it."""

from __future__ import annotations

import random
from collections import Counter
from hashlib import sha256
from typing import Any

import pytest

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.contract.provider_resource import Model, Pricing
from llm_sidecar.failover.routes import ConfiguredProvider, Routes, matches
from llm_sidecar.formats.base import Usage
from llm_sidecar.prices import Size, prices
from llm_sidecar.providers.anthropic import AnthropicProvider
from llm_sidecar.providers.base import Provider, ProviderSettings
from llm_sidecar.providers.openai import OpenAIProvider

CHAT = API.OPENAI_CHAT


def configured(
    name: str,
    *models: str | dict[str, Any],
    kind: type[Provider] = OpenAIProvider,
    priority: int = 0,
    weight: int = 1,
    paths: tuple[str, ...] = (),
) -> ConfiguredProvider:
    transport: Any = None
    return ConfiguredProvider(
        provider=kind(ProviderSettings(name), transport),
        priority=priority,
        weight=weight,
        models=[Model.model_validate({"name": one} if isinstance(one, str) else one) for one in models],
        passthrough_paths=paths,
        asks_for_stream_usage=True,
        cache_ttl_seconds={},
    )


def names(routes: Routes, model: str, api: API = CHAT) -> list[tuple[str, str]]:
    return [(one.name, one.answering_model(model)) for one in routes.candidates(api, model)]


def test_lower_priority_numbers_go_first() -> None:
    routes = Routes([configured("b", "m", priority=2), configured("a", "m", priority=1), configured("c", "n")])
    assert names(routes, "m") == [("a", "m"), ("b", "m")]


def test_an_exact_name_goes_before_an_alias_and_both_before_the_longest_pattern() -> None:
    one = configured("p", {"name": "big", "aliases": ["small"]}, "small", "sm*", "s*", "*")
    assert names(Routes([one]), "small") == [("p", "small")]
    assert Routes([one]).candidates(CHAT, "smart")[0].model.name == "sm*"
    assert Routes([one]).candidates(CHAT, "sun")[0].model.name == "s*"
    assert Routes([one]).candidates(CHAT, "x")[0].model.name == "*"
    assert names(Routes([configured("p", {"name": "big", "aliases": ["small"]}, "*")]), "small") == [("p", "big")]


def test_a_provider_of_another_language_is_asked_in_its_own() -> None:
    routes = Routes([configured("p", "m", priority=1), configured("a", "m", kind=AnthropicProvider)])
    assert [(one.name, one.api) for one in routes.candidates(CHAT, "m")] == [
        ("a", API.ANTHROPIC_MESSAGES),
        ("p", CHAT),
    ]
    assert [(one.name, one.api) for one in routes.candidates(API.ANTHROPIC_MESSAGES, "m")] == [
        ("a", API.ANTHROPIC_MESSAGES),
        ("p", CHAT),
    ]


def test_among_equals_those_who_know_the_language_come_first() -> None:
    """A `*`, or an alias, on providers of several kinds: each SDK is answered by its own, and by another at need."""
    routes = Routes([configured("p", "*"), configured("q", "*"), configured("a", "*", kind=AnthropicProvider)])
    for _ in range(50):
        assert names(routes, "m", API.ANTHROPIC_MESSAGES)[0] == ("a", "m")
        assert names(routes, "m")[2] == ("a", "m")


def test_embeddings_go_only_to_who_embeds_and_counts_only_to_who_speaks_the_language() -> None:
    routes = Routes([configured("p", "m"), configured("a", "m", kind=AnthropicProvider)])
    embedding = routes.candidates(API.GEMINI, "m", request_type=RequestType.EMBEDDINGS)
    assert [(one.name, one.api) for one in embedding] == [("p", API.OPENAI_EMBEDDINGS)]
    assert routes.candidates(API.GEMINI, "m", request_type=RequestType.TOKEN_COUNT) == ()
    counting = routes.candidates(API.ANTHROPIC_MESSAGES, "m", request_type=RequestType.TOKEN_COUNT)
    assert [one.name for one in counting] == ["a"]


def test_a_stand_in_comes_behind_all_who_serve_the_model_whatever_its_priority() -> None:
    routes = Routes(
        [
            configured("a", {"name": "haiku", "failoverFor": ["gpt"]}, kind=AnthropicProvider),
            configured("p", {"name": "gpt", "aliases": ["small"]}, priority=5),
        ]
    )
    assert names(routes, "gpt") == [("p", "gpt"), ("a", "haiku")]
    assert names(routes, "small") == [("p", "gpt"), ("a", "haiku")]
    assert names(routes, "haiku") == [("a", "haiku")]
    assert [one.stands_in for one in routes.candidates(CHAT, "small")] == [False, True]


def test_a_provider_may_stand_in_for_itself_with_another_model() -> None:
    routes = Routes([configured("p", "gpt", {"name": "gpt-mini", "failoverFor": ["gpt"]})])
    assert names(routes, "gpt") == [("p", "gpt"), ("p", "gpt-mini")]


def priced(name: str, *, cost_in: str, cost_out: str) -> ConfiguredProvider:
    pricing = {"inputUSDPerMillionTokens": cost_in, "outputUSDPerMillionTokens": cost_out}
    return configured(name, {"name": "m", "pricing": pricing})


def test_the_cheapest_for_this_very_request_goes_first_and_one_without_a_price_last() -> None:
    routes = Routes(
        [
            configured("unpriced", "m"),
            priced("cheap-input", cost_in="0.1", cost_out="9"),
            priced("cheap-output", cost_in="1", cost_out="2"),
            configured("behind", {"name": "m"}, priority=1),
        ],
        cheapest_first=True,
    )

    def order(size: Size) -> list[str]:
        return [one.name for one in routes.candidates(CHAT, "m", request=size)]

    assert order(Size(10_000, 10)) == ["cheap-input", "cheap-output", "unpriced", "behind"]
    assert order(Size(10, 10_000)) == ["cheap-output", "cheap-input", "unpriced", "behind"]


def test_a_price_of_a_fraction_of_a_nano_dollar_is_exact() -> None:
    pricing = Pricing.model_validate({"inputUSDPerMillionTokens": "0.000000001", "outputUSDPerMillionTokens": "2.5"})
    told = prices(pricing)
    assert told.cost_nano_usd(Usage(input_tokens=1_000_000)) == 1
    assert told.cost_nano_usd(Usage(input_tokens=1_000_001)) == 2
    assert told.cost_nano_usd(Usage(output_tokens=3, cache_read_tokens=0)) == 7500


def test_nobody_serves_an_unknown_model() -> None:
    routes = Routes([configured("p", "m"), configured("a", "c", kind=AnthropicProvider)])
    assert names(routes, "x") == []
    assert routes.serves_elsewhere("c") == [API.ANTHROPIC_MESSAGES]
    assert routes.serves_elsewhere("x") == []


def test_equals_share_by_weight_and_everyone_stays_a_stand_in() -> None:
    routes = Routes(
        [configured("a", "m", weight=3), configured("b", "m", weight=1), configured("z", "m", priority=1)],
        draw=random.Random(1).random,
    )
    firsts: Counter[str] = Counter()
    for _ in range(2000):
        order = [name for name, _ in names(routes, "m")]
        assert sorted(order[:2]) == ["a", "b"]
        assert order[2] == "z"
        firsts[order[0]] += 1
    assert 0.70 < firsts["a"] / 2000 < 0.80


def lots(count: int) -> list[bytes]:
    return [sha256(b"%d" % number).digest() for number in range(count)]


def firsts_by_lot(routes: Routes, drawn: list[bytes]) -> list[str]:
    return [routes.candidates(CHAT, "m", lot=lambda lot=lot: lot)[0].name for lot in drawn]  # type: ignore[misc]


def test_whoever_draws_the_same_lot_goes_to_the_same_and_weights_hold_over_all() -> None:
    equals = [configured("a", "m", weight=3), configured("b", "m", weight=1), configured("z", "m", priority=1)]
    drawn = lots(2000)
    firsts = firsts_by_lot(Routes(equals), drawn)
    assert firsts == firsts_by_lot(Routes(equals), drawn)
    assert 0.70 < firsts.count("a") / 2000 < 0.80
    assert firsts.count("z") == 0


def test_whoever_comes_to_the_equals_takes_from_all_and_moves_nobody_else() -> None:
    drawn = lots(500)
    before = firsts_by_lot(Routes([configured("a", "m"), configured("b", "m")]), drawn)
    after = firsts_by_lot(Routes([configured("a", "m"), configured("b", "m"), configured("c", "m")]), drawn)
    assert {now for was, now in zip(before, after, strict=True) if was != now} == {"c"}


def test_without_a_lot_chance_decides_and_where_there_is_one_way_nobody_draws() -> None:
    two = Routes([configured("a", "m"), configured("b", "m")], draw=random.Random(1).random)
    assert {two.candidates(CHAT, "m", lot=lambda: None)[0].name for _ in range(50)} == {"a", "b"}

    def never() -> bytes:
        raise AssertionError

    assert Routes([configured("a", "m")]).candidates(CHAT, "m", lot=never)[0].name == "a"


def test_lists_hold_names_and_aliases_and_no_pattern() -> None:
    routes = Routes([configured("p", {"name": "b", "aliases": ["a"]}, "x*"), configured("q", "b")])
    assert routes.model_names([CHAT]) == ["a", "b"]
    assert routes.model_names([API.GEMINI]) == ["a", "b"]


def test_names_that_clients_make_up_do_not_fill_the_memory() -> None:
    routes = Routes([configured("p", "*")])
    for number in range(5000):
        routes.candidates(CHAT, f"made-up-{number}")
    assert len(routes._plans) <= 1024
    assert names(routes, "still-served") == [("p", "still-served")]


def test_a_listed_path_goes_to_the_calling_family_first() -> None:
    ours = configured("o", "m", paths=("/v1/files", "/v1/files/*"), priority=5)
    theirs = configured("a", "c", kind=AnthropicProvider, paths=("/v1/files*",))
    routes = Routes([theirs, ours])
    for family, expected in (([CHAT], "o"), ([API.ANTHROPIC_MESSAGES], "a"), ([API.GEMINI], "a")):
        found = routes.passthrough("/v1/files", family)
        assert found is not None
        assert found.name == expected
    assert routes.passthrough("/v1/batches", [CHAT]) is None


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("a", "a", True),
        ("a", "a*", True),
        ("ab", "a*", True),
        ("b", "a*", False),
        ("ab", "a", False),
        ("", "*", True),
        ("A", "a", False),
    ],
)
def test_a_star_at_the_end_stands_for_any_ending(text: str, pattern: str, expected: bool) -> None:
    assert matches(text, pattern) is expected


def at_price(name: str, usd: str, *, steps_down_from: tuple[str, ...] = ()) -> dict[str, Any]:
    pricing = {"inputUSDPerMillionTokens": usd, "outputUSDPerMillionTokens": usd}
    return {"name": name, "pricing": pricing, "downgradeFor": steps_down_from}


def test_each_cheaper_model_of_a_provider_may_be_stepped_down_to() -> None:
    """Where a limit has no room for the middle one, the small one of the same provider is next."""
    middle, small = (
        at_price("middle", "3", steps_down_from=("m", "big")),
        at_price("small", "1", steps_down_from=("m",)),
    )
    tiny = at_price("tiny", "0.5", steps_down_from=("m",))
    routes = Routes([configured("p", at_price("m", "9"), middle, small), configured("q", tiny)])
    (first,) = routes.candidates(CHAT, "m")
    found = routes.cheaper(first, CHAT, RequestType.GENERATION, Size(100, 100), "big")
    assert [(one.name, one.model.name) for one in found] == [("q", "tiny"), ("p", "small"), ("p", "middle")]
