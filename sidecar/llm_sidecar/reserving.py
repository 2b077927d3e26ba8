"""What a request may take of a candidate, and whom to ask where the first choice has no room in the team's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm_sidecar.contract.names import RequestType
from llm_sidecar.failover.gate import unfit
from llm_sidecar.formats.input_bound import input_tokens_at_most, text_tokens_at_most
from llm_sidecar.formats.output_cap import choices
from llm_sidecar.prices import prices
from llm_sidecar.quota.demand import Demand
from llm_sidecar.quota.learning import InputExcess
from llm_sidecar.quota.refusal import QuotaExceeded
from llm_sidecar.record import Skipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llm_sidecar.failover.routes import Candidate
    from llm_sidecar.formats.base import ParsedRequest
    from llm_sidecar.quota import Quota, Reservation
    from llm_sidecar.quota.learning import LearnedModel
    from llm_sidecar.quota.refusal import QuotaRefusal
    from llm_sidecar.record import RequestRecord

DEFAULT_OUTPUT_TOKENS: Final = 4096
"""Expected of each answer to a request without a cap, until its model is known: more than most answers have."""


def demand_of(quota: Quota, parsed: ParsedRequest, candidate: Candidate) -> Demand:
    """What a request may take, if this candidate answers it."""
    model = candidate.model
    name = candidate.answering_model(parsed.model)
    learned = quota.learning.of(name)
    input_tokens = maximum_tokens = expected_tokens = 0
    is_bounded = True
    answers = 1
    if parsed.call.type is not RequestType.TOKEN_COUNT:
        input_tokens = expected_input_tokens(learned, parsed)
    if parsed.call.type is RequestType.GENERATION:
        named, expected = quota.output_cap(parsed), learned.output.expected
        answers = choices(parsed)
        if named is not None:
            maximum_tokens = named
            expected_tokens = named if expected is None else min(expected, named)
        else:
            # A model's own maximum may be a hundred times what it answers: to hold that much would refuse every call
            # of a small limit, and nothing would ever be learned.
            guess = DEFAULT_OUTPUT_TOKENS * answers
            usual = guess if expected is None else expected
            is_bounded = model.max_output_tokens is not None
            maximum_tokens = max(guess, usual) if model.max_output_tokens is None else model.max_output_tokens * answers
            expected_tokens = min(usual, maximum_tokens)
    return Demand(
        model=name,
        input_tokens=input_tokens,
        input_tokens_at_most=input_tokens_at_most(parsed) if quota.needs_bound(name) else None,
        expected_output_tokens=expected_tokens,
        maximum_output_tokens=maximum_tokens,
        output_is_bounded=is_bounded,
        answers=answers,
        prices=prices(model.pricing) if model.pricing is not None else None,
    )


def expected_input_tokens(learned: LearnedModel, parsed: ParsedRequest) -> int:
    """Enough for the input, as far as the model's last calls tell. The body as text cannot be more than its bytes."""
    estimated = parsed.input_tokens_estimate
    tokens = min(learned.input.enough_for(estimated), max(estimated, text_tokens_at_most(parsed)))
    if learned.excess:
        excess = learned.excess.get(input_tokens_at_most(parsed) is not None)
        beyond = 0 if excess is None else excess.ask()
        if beyond:
            return max(tokens, estimated) + beyond
    return tokens


def learn_input(learned: LearnedModel, parsed: ParsedRequest, told_tokens: int) -> None:
    """A provider told how long an input was."""
    estimated = parsed.input_tokens_estimate
    goes_beyond = told_tokens > max(estimated, text_tokens_at_most(parsed))
    if not goes_beyond:
        learned.input.learn(estimated_tokens=estimated, told_tokens=told_tokens)
    if goes_beyond or learned.excess:
        has_bound = input_tokens_at_most(parsed) is not None
        if goes_beyond and has_bound not in learned.excess:
            learned.excess[has_bound] = InputExcess()
        if has_bound in learned.excess:
            learned.excess[has_bound].learn(told_tokens - estimated if goes_beyond else 0)


def no_room(refusal: QuotaRefusal) -> str:
    """Why a candidate was not asked."""
    return f"limit {refusal.limit_name!r} has no room for what it may cost"


async def reserve_another(
    quota: Quota,
    record: RequestRecord,
    parsed: ParsedRequest,
    plan: Sequence[Candidate],
    *,
    asked: Candidate,
    refused: Candidate,
    exceeded: QuotaExceeded,
) -> tuple[Reservation, Sequence[Candidate]]:
    """One of the plan has no room: reserve for the first other that has, and tell whom to ask from there on.

    `asked` is the first choice for the model asked for: where nobody has room, its refusal is raised. Those that need
    no less than what was refused already are not tried. Nor are those that stand in for a failure: a limit is none,
    and what goes to another model instead is for `Downgrade` to say.
    """
    tried = [(refused, exceeded)]
    reasons = unfit(plan, parsed)
    skipped: list[str] = []
    for position, candidate in enumerate(plan):
        if candidate.stands_in and not candidate.steps_down and not asked.stands_in:
            break
        if candidate is refused or position in reasons:
            skipped.append(no_room(exceeded.refusal) if candidate is refused else reasons[position])
            continue
        demand = demand_of(quota, parsed, candidate)
        hopeless = None if candidate is asked else _hopeless(quota, demand, tried)
        if hopeless is not None:
            skipped.append(no_room(hopeless))
            continue
        try:
            reservation = await quota.reserve(record.request_id, demand)
        except QuotaExceeded as another:
            tried.append((candidate, another))
            skipped.append(no_room(another.refusal))
            continue
        record.skipped += [
            Skipped(one.name, one.model.name, reason) for one, reason in zip(plan[:position], skipped, strict=True)
        ]
        return reservation, plan[position:]
    raise next((another for candidate, another in tried if candidate is asked), exceeded)


def _hopeless(quota: Quota, demand: Demand, tried: Iterable[tuple[Candidate, QuotaExceeded]]) -> QuotaRefusal | None:
    """A refusal that would meet this demand as well: by a limit of which it needs no less."""
    needed = {limit.name: demand.hold(limit, charges_abandoned=False).amount for limit in quota.limits_of(demand.model)}
    refusals = (exceeded.refusal for _candidate, exceeded in tried)
    return next((one for one in refusals if needed.get(one.limit_name, -1) >= one.requested), None)
