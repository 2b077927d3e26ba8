"""What a model can do that its name tells. The old ones are a closed set; any other name is taken for a new one."""

from __future__ import annotations

import re
from typing import Final

_THOUGHTLESS: Final = re.compile(r"claude-(?:instant|v?[12]\b|3-(?:haiku|sonnet|opus|5))")
# A date may follow the version, which has one or two digits.
_BUDGETED: Final = re.compile(
    r"claude-(?:3-7|4-(?:opus|sonnet)|(?:opus|sonnet|haiku)-4(?:[-.][0-5])?(?!\d|[-.]\d{1,2}(?!\d)))"
)
_BETWEEN: Final = re.compile(r"claude-(?:opus|sonnet|haiku)-4[-.]6(?!\d)")


def thinks(model: str) -> bool:
    """False for models before 3.7."""
    return _THOUGHTLESS.search(model) is None


def takes_budgets(model: str) -> bool:
    """True for 3.7 to 4.5: they think by a budget, and know no adaptive thinking."""
    return _BUDGETED.search(model) is not None


def takes_sampling(model: str) -> bool:
    """False for Anthropic's models after 4.6, which refuse temperature, `top_p` and `top_k`."""
    return "claude" not in model or not thinks(model) or takes_budgets(model) or _BETWEEN.search(model) is not None
