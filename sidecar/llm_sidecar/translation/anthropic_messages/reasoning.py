"""Thinking and effort.

How much a model is to think is told by a budget to Anthropic's models up to 4.5, and by effort with adaptive thinking
to all later ones, which refuse a budget; models before 3.7 do not think at all. So the model's name decides:

| asked for | later models | budgeted models |
| --- | --- | --- |
| effort `none`, budget 0 | `disabled` | `disabled` |
| effort | `adaptive`, `output_config.effort` (`minimal` is said as `low`) | `enabled` with a budget by `BUDGETS` |
| a budget | `adaptive`, the least effort whose budget suffices | `enabled` with that budget, at least 1,024 |
| budget -1, adaptive | `adaptive` | `enabled` with the budget of `DEFAULT_EFFORT` |

A budget leaves a quarter of `max_tokens` to the answer. The wish is dropped and named `reasoning` where nothing is left
for thinking; where a tool must be called (Anthropic refuses both at once; effort stays); and, with a budget, in the
middle of a tool's turn, whose thinking was another provider's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from llm_sidecar.translation.anthropic_messages import models
from llm_sidecar.translation.conversation import Reasoning
from llm_sidecar.translation.losses import Losses
from llm_sidecar.translation.reading import Fields

BUDGETS: Final[Mapping[str, int]] = MappingProxyType(
    {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 24_576, "max": 27_904}
)
"""Tokens by effort. The largest leaves room for an answer below 32,000, which all budgeted models allow."""
DEFAULT_EFFORT: Final = "high"
"""What Anthropic takes where no effort is told."""
LEAST_BUDGET: Final = 1024
ANSWER_TOKENS: Final = 4096
"""`max_tokens` of a request that told no limit, which Anthropic requires; a budget for thinking comes on top."""

_KIND: Final = "$thinking"


@dataclass(frozen=True, slots=True)
class Thought:
    """What to write for a wish to think."""

    thinking: Mapping[str, Any] | None = None
    effort: str | None = None
    tokens: int = 0
    """What `max_tokens` should allow for it where the request told no limit."""

    @property
    def is_on(self) -> bool:
        """True if the model will think, which restricts sampling and tool choice."""
        return self.thinking is not None and self.thinking["type"] != "disabled"


def decode(told: dict[str, Any] | None, effort: str | None) -> Reasoning | None:
    """`thinking` and `output_config.effort`. A kind of thinking that is not known here is left in `extra`."""
    if told is None:
        return None if effort is None else Reasoning(effort=effort)
    fields = Fields(told, "thinking")
    kind = told.get("type")
    extra: dict[str, Any] = {_KIND: None}
    if kind in ("enabled", "disabled", "adaptive", "between_tools"):
        fields.take("type")
        extra[_KIND] = kind
    display = told.get("display")
    if display in ("summarized", "omitted"):
        fields.take("display")
    budget = fields.whole("budget_tokens") if kind == "enabled" else None
    return Reasoning(
        effort=effort,
        budget_tokens=0 if kind in ("disabled", "between_tools") else budget,
        adaptive=True if kind == "adaptive" else None,
        visible={"summarized": True, "omitted": False}.get(str(display)),
        extra={**fields.rest, **extra},
    )


def own_thinking(reasoning: Reasoning | None) -> dict[str, Any]:
    """`thinking` as it came."""
    if reasoning is None or _KIND not in reasoning.extra:
        return {}
    kind = reasoning.extra[_KIND]
    written: dict[str, Any] = {} if kind is None else {"type": kind}
    if kind == "enabled" and reasoning.budget_tokens is not None:
        written["budget_tokens"] = reasoning.budget_tokens
    if reasoning.visible is not None:
        written["display"] = "summarized" if reasoning.visible else "omitted"
    return {"thinking": {**written, **{name: value for name, value in reasoning.extra.items() if name != _KIND}}}


def wished(
    reasoning: Reasoning | None,
    *,
    model: str,
    max_tokens: int | None,
    must_call: bool,
    answers_tools: bool,
    losses: Losses,
) -> Thought:
    """What to write for another language's wish. `answers_tools`: the last turn gives tools' results."""
    if reasoning is None:
        return Thought()
    if reasoning.effort == "none" or reasoning.budget_tokens == 0:
        return Thought({"type": "disabled"}) if models.thinks(model) else Thought()
    if reasoning.effort is None and reasoning.budget_tokens is None and not reasoning.adaptive:
        if reasoning.visible:
            losses.drop("reasoning.visible")
        return Thought()
    is_budgeted = models.takes_budgets(model)
    if not models.thinks(model) or (is_budgeted and (must_call or answers_tools)):
        losses.drop("reasoning")
        return Thought()
    if is_budgeted:
        return _budgeted(reasoning, max_tokens, losses)
    thought = _adaptive(reasoning, losses)
    if not must_call:
        return thought
    losses.drop("reasoning")
    return Thought(effort=thought.effort)


def _budgeted(reasoning: Reasoning, max_tokens: int | None, losses: Losses) -> Thought:
    budget = reasoning.budget_tokens
    if budget is None or budget < 0:
        if reasoning.effort is not None and reasoning.effort not in BUDGETS:
            losses.drop("reasoning.effort")
        budget = BUDGETS.get(reasoning.effort or DEFAULT_EFFORT, BUDGETS[DEFAULT_EFFORT])
    budget = max(budget, LEAST_BUDGET)
    if max_tokens is not None:
        budget = min(budget, max_tokens * 3 // 4)
    if budget < LEAST_BUDGET:
        losses.drop("reasoning")
        return Thought()
    display = {"display": "omitted"} if reasoning.visible is False else {}
    return Thought({"type": "enabled", "budget_tokens": budget, **display}, tokens=budget)


def _adaptive(reasoning: Reasoning, losses: Losses) -> Thought:
    effort = reasoning.effort
    budget = reasoning.budget_tokens
    if effort is None and budget is not None and budget > 0:
        effort = next((name for name, tokens in BUDGETS.items() if tokens >= budget), "max")
    if effort is not None and effort not in BUDGETS:
        losses.drop("reasoning.effort")
        effort = None
    if effort == "minimal":
        effort = "low"
    shown = {} if reasoning.visible is None else {"display": "summarized" if reasoning.visible else "omitted"}
    return Thought({"type": "adaptive", **shown}, effort=effort, tokens=BUDGETS[effort or DEFAULT_EFFORT])
