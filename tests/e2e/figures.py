"""How what was measured is told: `tell_figure` takes the text, and pytest prints it at the end of the run.

Figures are for reading, not for passing: what one must not exceed is an assertion in its test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def section(heading: str, *lines: str) -> str:
    """Lines under a heading."""
    return "\n  ".join((f"{heading}:", *lines))


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest value that this part of all values does not exceed."""
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def spread(values: Sequence[float]) -> str:
    """Smallest, middle and largest of some seconds."""
    low, middle, high = (f"{value:.2f}" for value in (min(values), quantile(values, 0.5), max(values)))
    return f"min {low}, median {middle}, max {high} s ({len(values)} times)"
