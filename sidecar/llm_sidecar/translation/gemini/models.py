"""What depends on the model's generation: this API refuses what a model does not know, where others ignore it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from llm_sidecar.translation.conversation import Reasoning
from llm_sidecar.translation.losses import Losses

Generation = tuple[int, int]

_NUMBERED: Final = re.compile(r"gemini-(\d+)(?:\.(\d+))?")
_NEWEST: Final[Generation] = (99, 0)
_OTHERS: Final[Generation] = (0, 0)

THIRD: Final[Generation] = (3, 0)
"""Asks for thought signatures, thinks by level, takes tools together with a schema, and media in a tool's result."""
THINKING: Final[Generation] = (2, 5)
"""Thinks by budget, and fetches files from public addresses."""

_BUDGETS: Final[Mapping[str, int]] = {
    "none": 0,
    "minimal": 1_024,
    "low": 1_024,
    "medium": 8_192,
    "high": 24_576,
    "xhigh": 24_576,
    "max": 24_576,
}
"""Google's own table of what OpenAI's efforts mean in tokens; its highest stands for the two above it."""
_LEVELS: Final[Mapping[str, str]] = {
    "none": "MINIMAL",
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "HIGH",
    "max": "HIGH",
}
_LEAST_BUDGET_OF_PRO: Final = 128
"""The Pro models of 2.5 cannot be told not to think."""
_GREATEST_BUDGET: Final = 24_576


def generation(model: str) -> Generation:
    """As the name tells it. A name without a number (`gemini-flash-latest`) is the newest; Gemma is none."""
    numbered = _NUMBERED.search(model)
    if numbered is None:
        return _OTHERS if model.startswith("gemma") else _NEWEST
    return int(numbered[1]), int(numbered[2] or 0)


def thinking_config(reasoning: Reasoning, model: str, losses: Losses) -> dict[str, Any]:
    """`thinkingConfig` for what another API's request says, in what this model understands."""
    if generation(model) < THINKING:
        losses.drop("reasoning")
        return {}
    config = _by_level(reasoning, model) if generation(model) >= THIRD else _by_budget(reasoning, model)
    if reasoning.effort is not None and reasoning.effort not in _LEVELS:
        losses.drop("reasoning.effort")
    if reasoning.visible is not None:
        config["includeThoughts"] = reasoning.visible
    return config


def _by_level(reasoning: Reasoning, model: str) -> dict[str, Any]:
    level = _LEVELS.get(reasoning.effort or "")
    if level is None and reasoning.budget_tokens == 0:
        level = "MINIMAL"
    if level is None:
        # No level is the model's own choice; a budget is still read by these models, if there is no level.
        budget = reasoning.budget_tokens
        return {} if budget is None else {"thinkingBudget": min(budget, _GREATEST_BUDGET)}
    if "pro" in model:
        # The Pro models have no minimum, and the first of them no middle.
        least = {"MINIMAL": "LOW"} if generation(model) > THIRD else {"MINIMAL": "LOW", "MEDIUM": "HIGH"}
        level = least.get(level, level)
    return {"thinkingLevel": level}


def _by_budget(reasoning: Reasoning, model: str) -> dict[str, Any]:
    budget = reasoning.budget_tokens
    if budget is None:
        budget = _BUDGETS.get(reasoning.effort or "", -1 if reasoning.adaptive else None)
    if budget is None:
        return {}
    if "pro" in model and 0 <= budget < _LEAST_BUDGET_OF_PRO:
        budget = _LEAST_BUDGET_OF_PRO
    return {"thinkingBudget": min(budget, _GREATEST_BUDGET)}
