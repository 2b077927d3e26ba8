"""What a model's settled calls teach about the next one: how many tokens its input has, and how long its answers are.

One for each process, in memory: a new one begins with estimates that are mostly too high (see `reserving.py` for the
first expectation of an answer's length), and has seen enough after some dozen calls.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

COVERED_CALLS: Final = 1000
"""The estimate of input would have been enough for each of the last so many."""
TRUSTED_CALLS: Final = 50
"""Before so many, an estimate of input is only ever raised, and of the length of answers nothing is told."""
PERCENTILE: Final = 0.99
KNOWN_MODELS: Final = 256
_STEPS_PER_DOUBLING: Final = 4
_BUCKETS: Final = 27 * _STEPS_PER_DOUBLING
"""Up to 2^27 tokens, which is more than the contract lets a model have."""
_HALVED_AFTER: Final = 2 * COVERED_CALLS
"""Older answers count half as much, and so on: lengths change with what people ask."""


class _Greatest:
    """The greatest of the fractions that were added in the last so many steps (a sliding-window maximum)."""

    __slots__ = ("_descending", "_window", "steps")

    def __init__(self, window: int) -> None:
        self.steps = 0
        self._window = window
        self._descending: deque[tuple[int, int, int]] = deque()

    def add(self, numerator: int, denominator: int = 1) -> None:
        """One more, as a step."""
        descending = self._descending
        while descending and descending[-1][1] * denominator <= numerator * descending[-1][2]:
            descending.pop()
        self.step()
        descending.append((self.steps, numerator, denominator))

    def step(self) -> None:
        """All that was added grows older."""
        self.steps += 1
        while self._descending and self._descending[0][0] <= self.steps - self._window:
            self._descending.popleft()

    @property
    def fraction(self) -> tuple[int, int] | None:
        """Numerator and denominator; None where there is none."""
        return self._descending[0][1:] if self._descending else None


class InputRatio:
    """The greatest ratio of told to estimated input over the last calls."""

    __slots__ = ("_greatest",)

    def __init__(self) -> None:
        self._greatest = _Greatest(COVERED_CALLS)

    def learn(self, *, estimated_tokens: int, told_tokens: int) -> None:
        """One settled call."""
        if estimated_tokens > 0:
            self._greatest.add(told_tokens, estimated_tokens)

    def enough_for(self, estimated_tokens: int) -> int:
        """The estimate, corrected by what was learned."""
        ratio = self._greatest.fraction
        if ratio is None:
            return estimated_tokens
        told, estimated = ratio
        enough = -(-estimated_tokens * told // estimated)
        return enough if self._greatest.steps >= TRUSTED_CALLS else max(enough, estimated_tokens)


class InputExcess:
    """The most tokens by which an input went beyond what its body can hold, over the last calls.

    Such tokens come from elsewhere (a stored conversation, a file, a server's own prompt): they are no multiple of what
    the body says, and a ratio learned of a short body would refuse every long one.

    Asking makes it older as well as learning: a limit that is too small for it lets nobody in who would teach less.
    """

    __slots__ = ("_greatest",)

    def __init__(self) -> None:
        self._greatest = _Greatest(2 * COVERED_CALLS)

    def learn(self, tokens: int) -> None:
        """One settled call; 0: it went not beyond it."""
        self._greatest.add(tokens)

    def ask(self) -> int:
        """Tokens that would have been enough for each of the last calls."""
        self._greatest.step()
        fraction = self._greatest.fraction
        return 0 if fraction is None else fraction[0]


class OutputLength:
    """A decaying histogram of output lengths, in steps of 19 %."""

    __slots__ = ("_counts", "_expected", "_total")

    def __init__(self) -> None:
        self._counts = [0] * (_BUCKETS + 1)
        self._total = 0
        self._expected: int | None = None

    def learn(self, tokens: int) -> None:
        """One settled call."""
        self._counts[min(_bucket(tokens), _BUCKETS)] += 1
        self._total += 1
        self._expected = None
        if self._total >= _HALVED_AFTER:
            self._counts = [count // 2 for count in self._counts]
            self._total = sum(self._counts)

    @property
    def expected(self) -> int | None:
        """A length that 99 of 100 answers do not exceed; None before enough of them were seen."""
        if self._total < TRUSTED_CALLS:
            return None
        if self._expected is None:
            self._expected = self._percentile()
        return self._expected

    def _percentile(self) -> int:
        seen, wanted = 0, math.ceil(self._total * PERCENTILE)
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                return math.floor(2 ** (bucket / _STEPS_PER_DOUBLING))
        return 2**27


def _bucket(tokens: int) -> int:
    """The first bucket whose upper bound is not exceeded."""
    return 0 if tokens <= 1 else math.ceil(math.log2(tokens) * _STEPS_PER_DOUBLING - 1e-9)


@dataclass(slots=True)
class LearnedModel:
    """What is known of one model."""

    input: InputRatio = field(default_factory=InputRatio)
    """By what bodies say."""
    excess: dict[bool, InputExcess] = field(default_factory=dict)
    """Of requests whose body tells how long their input can be at most (True), and of others; empty until a call of
    that kind went beyond it."""
    output: OutputLength = field(default_factory=OutputLength)


class Learning:
    """What is known of all models."""

    def __init__(self) -> None:
        self._models: dict[str, LearnedModel] = {}

    def of(self, model: str) -> LearnedModel:
        """One model, by its name at the provider. Names that clients type must not fill the memory."""
        known = self._models.get(model)
        if known is None:
            known = LearnedModel()
            if len(self._models) < KNOWN_MODELS:
                self._models[model] = known
        return known
