"""Popularity as it is found nearly everywhere: the k-th thing is asked for in proportion to 1 / k to some power."""

from __future__ import annotations

import random
from bisect import bisect
from itertools import accumulate


class Catalogue:
    """Things numbered by popularity, from 0; and others, new each time, that are asked for once and never again."""

    def __init__(self, size: int, *, exponent: float, new_share: float) -> None:
        """`new_share` of what is drawn comes from outside the catalogue."""
        self.size = size
        self._bounds: list[float] = list(accumulate(float(place) ** -exponent for place in range(1, size + 1)))
        self._new_share = new_share
        self._new_count = 0

    def share(self, place: int) -> float:
        """Which part of what is drawn from the catalogue is the thing at this place."""
        before = self._bounds[place - 1] if place else 0.0
        return (self._bounds[place] - before) / self._bounds[-1]

    def draw(self, source: random.Random) -> int:
        """A thing's number; from `size` on they are new ones."""
        if source.random() < self._new_share:
            self._new_count += 1
            return self.size + self._new_count - 1
        return self.at(source.random())

    def at(self, fraction: float) -> int:
        """The thing up to which this fraction of all draws goes."""
        return min(self.size - 1, bisect(self._bounds, fraction * self._bounds[-1]))
