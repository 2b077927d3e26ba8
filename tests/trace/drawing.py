"""The trace: an endless sequence of requests that depends on a seed and on nothing else.

How often something is asked again decides what a cache can gain, so it is stated here in one place, and the report
tells how much of the trace did repeat. Two traces of the same seed with different names share no prompt.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeVar

from tests.trace.agents import Agent, Run
from tests.trace.requests import ITEM_CHARACTERS, Family, Kind, Prompt, Request, chat, embeddings, token_count
from tests.trace.zipf import Catalogue

_Choice = TypeVar("_Choice")

SHARES: Final[Mapping[Kind, float]] = {
    Kind.CHAT: 0.30,
    Kind.STREAM: 0.20,
    Kind.AGENT: 0.20,
    Kind.EMBEDDINGS: 0.18,
    Kind.COUNT: 0.12,
}
"""Of all requests."""
QUESTION_FAMILIES: Final = {Family.OPENAI: 0.5, Family.ANTHROPIC: 0.3, Family.GEMINI: 0.2}
AGENT_FAMILIES: Final = {Family.OPENAI: 0.5, Family.ANTHROPIC: 0.5}
DETERMINISTIC_SHARE: Final = 0.25
"""Of questions and of agents, that say temperature 0."""
BATCH_SIZES: Final = (1, 1, 1, 2, 4, 8, 16)
"""Queries come alone, documents in batches; each size is as likely."""
AGENTS: Final = 8
RUNS_AT_ONCE: Final = 24
RUN_TURNS: Final = (3, 8)
SYSTEM_PROMPTS: Final = 12
_WORDS: Final = tuple(
    re.findall(
        r"\w+",
        """
        invoice order customer delivery refund contract meeting report summary budget deadline release server region
        account payment address product service ticket answer question policy holiday insurance supplier warehouse
        of the and to for with which is that was were has have before after between about under within
        """,
    )
)
"""None of them is a part of a tool's name: the simulator would call it."""


def pick(source: random.Random, weights: Mapping[_Choice, float]) -> _Choice:
    """One of these, by weight."""
    return source.choices([*weights], weights=[*weights.values()])[0]


def prose(source: random.Random, characters: int) -> str:
    """So many characters of words."""
    text = " ".join(source.choices(_WORDS, k=characters // 4))
    return text.ljust(characters, ".")[:characters]


class Trace:
    """The requests of one seed and name; iterating twice goes on where the first one stopped."""

    def __init__(self, seed: int, *, name: str) -> None:
        self._salt = f"{seed}-{name}"
        self._source = self._random("order")
        self._questions = Catalogue(3000, exponent=1.0, new_share=0.15)
        self._tasks = Catalogue(300, exponent=0.8, new_share=0.4)
        self._chunks = Catalogue(5000, exponent=1.0, new_share=0.2)
        self._counted = Catalogue(1000, exponent=1.0, new_share=0.15)
        self._agents = [self._agent(number) for number in range(AGENTS)]
        self._under_way: list[tuple[Run, int]] = []
        self._draws: Mapping[Kind, Callable[[], Request]] = {
            Kind.CHAT: lambda: chat(self._question("q", self._questions), stream=False),
            Kind.STREAM: lambda: chat(self._question("q", self._questions), stream=True),
            Kind.AGENT: self._agent_turn,
            Kind.EMBEDDINGS: self._batch,
            Kind.COUNT: lambda: token_count(self._question("c", self._counted)),
        }

    def __iter__(self) -> Iterator[Request]:
        return self

    def __next__(self) -> Request:
        return self._draws[pick(self._source, SHARES)]()

    def _random(self, of: str) -> random.Random:
        return random.Random(f"{self._salt}-{of}")

    def _question(self, letter: str, catalogue: Catalogue) -> Prompt:
        """Everything about a question follows from its number: who asks it again asks it in the same words."""
        mark = f"{letter}{catalogue.draw(self._source)}-{self._salt}"
        own = self._random(mark)
        family = pick(own, QUESTION_FAMILIES)
        return Prompt(
            family=family,
            mark=mark,
            system=_system_prompt(own.randrange(SYSTEM_PROMPTS)),
            text=f"{mark} {prose(own, own.randint(60, 900))}",
            deterministic=own.random() < DETERMINISTIC_SHARE,
        )

    def _agent(self, number: int) -> Agent:
        own = self._random(f"agent {number}")
        return Agent(
            family=pick(own, AGENT_FAMILIES),
            system=f"You are agent {number} of {self._salt}. " + prose(own, 4000),
            stream=number % 2 == 1,
            deterministic=number % 4 < 4 * DETERMINISTIC_SHARE,
        )

    def _agent_turn(self) -> Request:
        """The next turn of one of the runs that are under way."""
        while len(self._under_way) < RUNS_AT_ONCE:
            self._under_way.append((self._run(), 0))
        place = self._source.randrange(RUNS_AT_ONCE)
        run, number = self._under_way[place]
        self._under_way[place] = (run, number + 1) if number + 1 < run.turns else (self._run(), 0)
        return run.turn(number)

    def _run(self) -> Run:
        mark = f"a{self._tasks.draw(self._source)}-{self._salt}"
        own = self._random(mark)
        return Run(agent=own.choice(self._agents), mark=mark, task=prose(own, 1200), turns=own.randint(*RUN_TURNS))

    def _batch(self) -> Request:
        """Of different items: what is paid for is then what no earlier batch had."""
        size = self._source.choice(BATCH_SIZES)
        marks: dict[str, None] = {}
        while len(marks) < size:
            marks[f"e{self._chunks.draw(self._source)}-{self._salt}"] = None
        items = tuple(f"{mark} {prose(self._random(mark), ITEM_CHARACTERS)}"[:ITEM_CHARACTERS] for mark in marks)
        return embeddings(items, meanings=tuple(f"item {mark}" for mark in marks))


@lru_cache(maxsize=SYSTEM_PROMPTS)
def _system_prompt(number: int) -> str:
    return f"You help the people of department {number}. " + prose(random.Random(number), 600)


@dataclass(slots=True)
class Repeats:
    """What a cache that forgets nothing could have answered, of the requests so far."""

    _seen: set[int] = field(default_factory=set)

    def of(self, request: Request) -> int:
        """How many meanings of this request had come before; from now on all of them have."""
        meanings = [hash(meaning) for meaning in request.meanings]
        known = sum(meaning in self._seen for meaning in meanings)
        self._seen.update(meanings)
        return known
