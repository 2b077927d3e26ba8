"""The trace depends on its seed alone, has the mix that it says, and its bodies are those that the SDKs send."""

import json
from collections import Counter
from itertools import islice

import pytest

from tests.trace.drawing import SHARES, Repeats, Trace
from tests.trace.requests import ITEM_CHARACTERS, Family, Kind, Request

COUNT = 3000


@pytest.fixture(scope="module")
def drawn() -> list[Request]:
    return [*islice(Trace(1, name="test"), COUNT)]


def test_a_seed_makes_the_same_trace_every_time(drawn: list[Request]) -> None:
    assert drawn[:500] == [*islice(Trace(1, name="test"), 500)]


@pytest.mark.parametrize(("seed", "name"), [(2, "test"), (1, "other")])
def test_another_seed_or_name_shares_no_prompt(drawn: list[Request], seed: int, name: str) -> None:
    others = {meaning for request in islice(Trace(seed, name=name), COUNT) for meaning in request.meanings}
    assert others.isdisjoint(meaning for request in drawn for meaning in request.meanings)


def test_every_kind_comes_as_often_as_the_mix_says(drawn: list[Request]) -> None:
    kinds = Counter(request.kind for request in drawn)
    for kind, share in SHARES.items():
        assert kinds[kind] / COUNT == pytest.approx(share, abs=0.03)


def test_requests_of_one_meaning_differ_in_their_delivery_alone(drawn: list[Request]) -> None:
    bodies: dict[str, set[str]] = {}
    for request in drawn:
        if request.kind is not Kind.EMBEDDINGS:
            document = json.loads(request.body)
            document.pop("stream", None)
            document.pop("stream_options", None)
            path = request.path.replace("streamGenerateContent?alt=sse", "generateContent")
            told = json.dumps([path, document], sort_keys=True)
            bodies.setdefault(request.meanings[0], set()).add(told)
    assert {len(different) for different in bodies.values()} == {1}
    assert len({body for different in bodies.values() for body in different}) == len(bodies)


def test_questions_are_asked_both_plain_and_as_streams(drawn: list[Request]) -> None:
    ways: dict[str, set[bool]] = {}
    for request in drawn:
        if request.kind in {Kind.CHAT, Kind.STREAM}:
            ways.setdefault(request.meanings[0], set()).add(request.stream)
    assert sum(len(asked) == 2 for asked in ways.values()) > 50


def test_few_generations_say_temperature_zero_and_those_that_count_say_it(drawn: list[Request]) -> None:
    generations = [request for request in drawn if request.kind in {Kind.CHAT, Kind.STREAM, Kind.AGENT}]
    for request in generations:
        document = json.loads(request.body)
        told = document.get("generationConfig", document).get("temperature")
        assert (told == 0) is request.deterministic
    share = sum(request.deterministic for request in generations) / len(generations)
    assert 0.1 < share < 0.4


def test_an_agent_repeats_its_whole_conversation_with_every_turn(drawn: list[Request]) -> None:
    runs: dict[str, dict[int, bytes]] = {}
    for request in drawn:
        if request.kind is Kind.AGENT:
            _, mark, turn = request.meanings[0].split()
            runs.setdefault(mark, {})[int(turn)] = request.body
    pairs = [(turns[n], turns[n + 1]) for turns in runs.values() for n in turns if n + 1 in turns]
    assert len(pairs) > 100
    for before, after in pairs:
        short, long = json.loads(before), json.loads(after)
        assert long["messages"][: len(short["messages"])] == short["messages"]
        assert {**long, "messages": None} == {**short, "messages": None}


def test_items_of_a_batch_differ_and_are_equally_long(drawn: list[Request]) -> None:
    batches = [request.items for request in drawn if request.kind is Kind.EMBEDDINGS]
    assert all(len(set(items)) == len(items) for items in batches)
    assert {len(item) for items in batches for item in items} == {ITEM_CHARACTERS}
    assert {len(items) for items in batches} == {1, 2, 4, 8, 16}


def test_all_three_apis_are_spoken_in_every_way(drawn: list[Request]) -> None:
    for kind in (Kind.CHAT, Kind.STREAM, Kind.COUNT):
        assert {request.family for request in drawn if request.kind is kind} == {*Family}


def test_what_comes_again_is_counted_by_meaning(drawn: list[Request]) -> None:
    repeats, seen = Repeats(), set[str]()
    for request in drawn:
        assert repeats.of(request) == len(seen.intersection(request.meanings))
        seen.update(request.meanings)
