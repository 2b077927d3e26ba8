"""The arithmetic of the benchmark: percentiles, medians of rounds, ratios within a round, aims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


def percentile(values: Sequence[float], *, percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed (nearest rank: a value that occurred)."""
    if not values:
        raise ValueError("there is no percentile of no values")
    rank = max(1, math.ceil(len(values) * percent / 100))
    return sorted(values)[rank - 1]


def median_ratio(values: Sequence[float], *, floors: Sequence[float]) -> float | None:
    """The median of each round's ratio: the machine's mood of one round falls out, that of the run does not mix in."""
    ratios = [value / floor for value, floor in zip(values, floors, strict=True) if floor]
    return median(ratios) if ratios else None


def median_difference(values: Sequence[float], *, floors: Sequence[float]) -> float | None:
    """The median of what each round's value had more than its floor."""
    differences = [value - floor for value, floor in zip(values, floors, strict=True)]
    return median(differences) if differences else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """A figure that the project wants to reach. Missing one is said, and fails nothing."""

    name: str
    figure: float | None
    bound: float
    at_least: bool

    @property
    def verdict(self) -> str:
        """Met, not met, or not measured in this run."""
        if self.figure is None:
            return "not measured"
        reached = self.figure >= self.bound if self.at_least else self.figure <= self.bound
        return "met" if reached else "not met"
