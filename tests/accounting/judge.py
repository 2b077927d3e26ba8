"""What must hold after a course, whatever went wrong in it. Pure: evidence in, one verdict for each promise out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from typing import Final

from llm_sidecar.contract.quota_counters import LimitUnit
from tests.accounting.clients import CAPS, Asked
from tests.accounting.course import Evidence
from tests.accounting.settings import LEASE_SECONDS, MINUTE_SECONDS
from tests.accounting.teams import PRICES, SHARED, TEAMS, limits
from tests.accounting.truth import Cost
from tests.accounting.watch import Booked

NANO_PER_USD: Final = 10**9
FEMTO_PER_NANO: Final = 10**6
LOCAL_SHARE: Final = Fraction(1, 10)
"""The part of a limit that all sidecars together may spend without the store."""
UNREPLICATED_SECONDS: Final = 1.0
"""What was booked for so long before a loss may be known to nobody any more: longer than any lag of the storm."""
KILL_SECONDS: Final = 6.0
"""A settlement may be on its way for so long: an outage of a second or two, the pause until the next probe of the store
(docs/redis.md), and a little."""
BREAKER_SECONDS: Final = 2.0
"""For so long after its return a store may still count as away."""
NOTICED_SECONDS: Final = 3.0
"""After so long every sidecar has noticed that the store has lost data, also one that was cut off meanwhile."""
GONE_SECONDS: Final = 0.5
THRESHOLDS: Final = (50, 80, 95, 100)
NOTHING_SPENT: Final = frozenset({"refused", "store away"})
Key = tuple[str, str]
"""Team and counter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One promise: its figures, and where it was broken."""

    promise: str
    figures: str
    broken: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """All that was booked for one request."""

    team: str
    request_id: str
    sources: Sequence[str]
    provider: str
    status: int
    charges: Mapping[str, Fraction]
    entries: Sequence[Booked]

    @property
    def settled(self) -> list[Booked]:
        """Without what the end of its lease has charged."""
        return [one for one in self.entries if one.source != "abandoned"]

    @property
    def source(self) -> str:
        """The last word on it."""
        return next((one for one in reversed(self.sources) if one != "abandoned"), "abandoned")

    def told_again(self, counter: str) -> Fraction:
        """What one counter was charged beyond the greatest of its charges: after a loss, nobody knew of the first."""
        amounts = [one.charges.get(counter, Fraction(0)) for one in self.entries]
        return sum(amounts, Fraction(0)) - max(amounts) if len(amounts) > 1 else Fraction(0)

    def of(self, unit: LimitUnit) -> dict[str, Fraction]:
        """Its charges in one unit, by counter."""
        return {counter: amount for counter, amount in self.charges.items() if _unit(counter) is unit}


class Case:
    """The evidence, put in order."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.maxima: dict[tuple[str, str], int] = {}
        for team in TEAMS:
            for limit in limits(team, seconds=evidence.plan.seconds):
                self.maxima[team, limit["name"]] = _maximum(limit)

    def verdicts(self) -> list[Verdict]:
        """All promises."""
        checks: tuple[Callable[[], Verdict], ...] = (
            self.one_outcome_each,
            self.no_window_beyond_its_promise,
            self.charges_are_the_truth,
            self.nothing_stays_held,
            self.ledger_adds_up,
            self.no_false_refusal,
            self.thresholds_told_once,
        )
        return [check() for check in checks]

    @cached_property
    def by_id(self) -> Mapping[str, Asked]:
        """What clients know of the requests that were told an id."""
        return {one.request_id: one for one in self.evidence.asked if one.request_id}

    @cached_property
    def accounts(self) -> Mapping[Key, Account]:
        """By team and request."""
        entries: dict[Key, list[Booked]] = defaultdict(list)
        for one in self.evidence.seen.ledger.values():
            entries[one.team, one.request_id].append(one)
        return {key: _account(booked) for key, booked in entries.items()}

    @cached_property
    def abandoned(self) -> frozenset[str]:
        """Requests whose lease ended while they were under way; what is settled later corrects that charge."""
        return frozenset(one.request_id for one in self.evidence.seen.ledger.values() if one.source == "abandoned")

    @cached_property
    def sums(self) -> Mapping[Key, Fraction]:
        """Of the ledger, by team and counter."""
        sums: dict[Key, Fraction] = defaultdict(Fraction)
        for one in self.evidence.seen.ledger.values():
            for counter, amount in one.charges.items():
                sums[one.team, counter] += amount
        return sums

    # --- the promises

    def one_outcome_each(self) -> Verdict:
        """Each request ends once: answered, told an error in its own API, or cut off with its sidecar or by itself."""
        asked = self.evidence.asked
        broken = [f"{one.nonce} {one.kind}: {one.result} {one.fault}" for one in asked if self._is_improper(one)]
        results = Counter(one.result or "no end" for one in asked)
        return Verdict(
            promise="every client got exactly one outcome",
            figures=f"{len(asked):,} requests: "
            + ", ".join(f"{count:,} {name}" for name, count in results.most_common()),
            broken=broken,
        )

    def _is_improper(self, one: Asked) -> bool:
        if one.result == "sidecar gone":
            away = self.evidence.sidecar_away[one.sidecar]
            return not any(
                began - GONE_SECONDS <= one.ended and one.sent <= ended + GONE_SECONDS for began, ended in away
            )
        return one.result in {None, "improper"}

    def no_window_beyond_its_promise(self) -> Verdict:
        """What was charged to a window, or held in it at one moment, is within its limit and its stated slack."""
        broken, excesses, windows = [], dict[str, Fraction](), 0
        for key, peak in sorted(self.evidence.seen.peaks.items()):
            team, counter = key
            maximum = self.maxima[team, _limit(counter)]
            windows += 1
            is_concurrent = _unit(counter) is LimitUnit.CONCURRENT
            taken = Fraction(peak.taken) if is_concurrent else max(self.sums[key], Fraction(peak.used))
            slack = Fraction(0) if is_concurrent else self._slack(key, maximum)
            excess = max(Fraction(0), taken - maximum)
            name = f"{team}/{_limit(counter)}"
            excesses[name] = max(excesses.get(name, Fraction(0)), excess / maximum)
            if excess > slack:
                broken.append(f"{team} {counter}: {float(taken)} of {maximum}, and {float(slack)} may be on top")
        told = ", ".join(f"{name} {100 * float(share):.2f} %" for name, share in excesses.items() if share)
        return Verdict(
            promise="no window admitted more than promised",
            figures=f"{windows} windows; greatest excess over a limit: {told or 'none'}",
            broken=broken,
        )

    def _slack(self, key: Key, maximum: int) -> Fraction:
        team, counter = key
        evidence, unit = self.evidence, _unit(counter)
        entries = [one for one in evidence.seen.ledger.values() if one.team == team and counter in one.charges]
        late = (
            one.charges[counter] for one in entries if one.request_id in self.abandoned and one.source != "abandoned"
        )
        slack = sum((amount for amount in late if amount > 0), Fraction(0))
        if team == SHARED:
            slack += maximum * LOCAL_SHARE if evidence.away else 0
            if unit is not LimitUnit.REQUESTS:  # Expected: as far as those under way may exceed their holds
                dearest = max(price.output for place in PRICES.values() for price in place.values())
                one_request = Fraction(max(CAPS) if unit is LimitUnit.TOKENS else max(CAPS) * dearest, 1)
                if unit is LimitUnit.COST:
                    one_request /= FEMTO_PER_NANO
                slack += one_request * -(-evidence.plan.clients // len(TEAMS))
        if evidence.seen.losses:
            slack += sum(
                (each.told_again(counter) for each in self.accounts.values() if each.team == team), Fraction(0)
            )
        for loss in evidence.seen.losses:
            slack += loss.held.get(key, 0)
            slack += sum(
                (one.charges[counter] for one in entries if loss.at - UNREPLICATED_SECONDS <= one.at <= loss.at),
                Fraction(0),
            )
        return slack

    def charges_are_the_truth(self) -> Verdict:
        """What was measured is charged to the token and to the femto-dollar, once; what was not, near the truth."""
        broken: list[str] = []
        counts: Counter[str] = Counter()
        charged: Counter[str] = Counter()
        true: Counter[str] = Counter()
        for account in self.accounts.values():
            counts[account.source] += 1
            asked = self.by_id.get(account.request_id)
            if asked is None:
                counts["whose client never heard of them"] += 1
                broken += self._wrong_unless_told_again(account, _wrong_unknown, counts)
                continue
            if asked.result in NOTHING_SPENT and any(account.charges.values()):
                if account.source == "abandoned" and self._met_a_loss(asked):
                    counts["given back, and the store has lost that"] += 1
                    continue
                broken.append(f"{asked.nonce} was refused and charged {dict(account.charges)}")
                continue
            cost = self._answering(asked, account)
            broken += self._wrong_unless_told_again(account, partial(_wrong, asked=asked, cost=cost), counts)
            if cost is not None:
                charged[account.source] += int(next(iter(account.of(LimitUnit.TOKENS).values()), Fraction(0)))
                true[account.source] += cost.true_tokens
        lost = [*self._uncharged()]
        broken += [one for one, is_excused in lost if not is_excused]
        shares = "; ".join(
            f"{source}: {charged[source]:,} tokens charged, {true[source]:,} true" for source in sorted(charged)
        )
        return Verdict(
            promise="every charge is the provider's truth",
            figures=f"{', '.join(f'{count:,} {name}' for name, count in counts.most_common())}; {shares}; "
            f"{len(lost)} requests lost with a killed sidecar or the store's data; {self._given_up():,} tokens of "
            "attempts that were given up for another are nobody's charge",
            broken=broken,
        )

    def _wrong_unless_told_again(
        self, account: Account, wrong: Callable[[Account], Iterator[str]], counts: Counter[str]
    ) -> list[str]:
        found = [*wrong(account)]
        if found and self._is_told_again(account, wrong):
            counts["told again, for the store had lost data"] += 1
            return []
        return found

    def _is_told_again(self, account: Account, wrong: Callable[[Account], Iterator[str]]) -> bool:
        """Nobody knew whether the store had forgotten it: rather twice than never, and each time the truth."""
        first, last = account.entries[0].at, account.entries[-1].at
        return (
            len(account.entries) > 1
            and any(first - NOTICED_SECONDS <= loss.at <= last for loss in self.evidence.seen.losses)
            and all(any(not [*wrong(told)] for told in _tellings(account, one)) for one in account.settled)
        )

    def _met_a_loss(self, asked: Asked) -> bool:
        return any(
            asked.sent <= loss.at + NOTICED_SECONDS and loss.at <= asked.ended + KILL_SECONDS
            for loss in self.evidence.seen.losses
        )

    def _answering(self, asked: Asked, account: Account) -> Cost | None:
        """The attempt that the charge is about: the last one at the provider that the ledger names."""
        costs = [one for one in self.evidence.costs.get(asked.nonce, ()) if one.place == account.provider]
        return costs[-1] if costs else None

    def _uncharged(self) -> Iterator[tuple[str, bool]]:
        """Requests that were answered and not charged, and whether that is within what is stated."""
        for one in self.evidence.asked:
            if one.result != "answered" or (one.team, one.request_id) in self.accounts:
                continue
            kills = [
                began
                for began, _ in self.evidence.sidecar_away[one.sidecar]
                if one.sent <= began <= one.ended + KILL_SECONDS
            ]
            # With the store there, a request that dies with its sidecar is charged when its lease ends.
            away = bool(kills) and any(
                began <= one.ended and one.sent <= ended + BREAKER_SECONDS for began, ended in self.evidence.away
            )
            # Nor then, where the store forgets the lease before. Whose sidecar lives, is settled after any loss.
            lost = any(
                one.sent - NOTICED_SECONDS <= loss.at <= killed + LEASE_SECONDS
                for killed in kills
                for loss in self.evidence.seen.losses
            )
            yield f"{one.nonce} of {one.team}, answered as {one.request_id}, is not in the ledger", away or lost

    def _given_up(self) -> int:
        total = 0
        for costs in self.evidence.costs.values():
            total += sum(one.true_tokens for one in costs[:-1])
        return total

    def nothing_stays_held(self) -> Verdict:
        """After the longest lease no hold is left, and no open reservation."""
        seen = self.evidence.seen
        held = {f"{team} {counter}": one.held for (team, counter), one in seen.now.items() if one.held}
        beyond = {f"{team} {counter}": one.beyond for (team, counter), one in seen.now.items() if one.beyond}
        broken = [f"{name} still holds {amount}" for name, amount in held.items()]
        broken += [f"{name} still has {amount} beyond" for name, amount in beyond.items()]
        broken += [f"reservation {name} is open" for name in sorted(seen.open_ids)]
        return Verdict(
            promise="nothing stays held",
            figures=f"all holds were gone {self.evidence.quiet_seconds:.1f} s after the last answer "
            f"(lease {LEASE_SECONDS} s, {self.evidence.killed} sidecars killed)",
            broken=broken,
        )

    def ledger_adds_up(self) -> Verdict:
        """The charges of the ledger make the counters: exactly, where the store lost nothing."""
        seen, broken = self.evidence.seen, []
        different = Fraction(0)
        for key, used in sorted(seen.used.items()):
            total = self.sums[key]
            is_swept = key not in seen.now or not seen.now[key].end_ms > self._ended_ms
            if is_swept or self.evidence.plan.loses_data:
                # Swept away a moment after its last charge, or restored by those who had not seen the newest.
                different = max(different, abs(total - used) / max(Fraction(1), total))
                if used > total + self._lowered(key):
                    broken.append(f"{key[0]} {key[1]}: {float(used)} used, and only {float(total)} in the ledger")
            elif used != total:
                broken.append(f"{key[0]} {key[1]}: {used} used, {total} in the ledger")
        exact = (
            "" if not self.evidence.plan.loses_data else f", at most {100 * float(different):.1f} % lost of one counter"
        )
        return Verdict(
            promise="the ledger adds up to the counters",
            figures=f"{len(seen.ledger):,} entries, {len(seen.used)} counters{exact}",
            broken=broken,
        )

    def _lowered(self, key: Key) -> Fraction:
        """By how much late settlements have lowered a counter that somebody may have seen, and restored, before."""
        amounts = (one.charges.get(key[1], Fraction(0)) for one in self.evidence.seen.ledger.values())
        return -sum((amount for amount in amounts if amount < 0), Fraction(0))

    @cached_property
    def _ended_ms(self) -> int:
        return int(1000 * max((one.ended for one in self.evidence.asked), default=0.0))

    def no_false_refusal(self) -> Verdict:
        """Whoever was refused had no room: by the refusal's own figures, and by a count of who could hold it."""
        refused = [one for one in self.evidence.asked if one.refusal is not None]
        broken, counted = [], 0
        for one in refused:
            told = one.refusal
            if told is None:
                continue
            if told.used + told.reserved + told.requested <= told.maximum:
                broken.append(f"{one.nonce} of {one.team} was refused with room: {told}")
            if told.limit == "burst" and (most := self._admissible(one)) is not None:
                counted += 1
                if told.used + told.reserved > most:
                    broken.append(
                        f"{one.nonce}: {told} although only {most} requests of {one.team} came into this window"
                    )
        by_limit = Counter(f"{one.team}/{one.refusal.limit}" for one in refused if one.refusal is not None)
        told_counts = ", ".join(f"{name} {count:,}" for name, count in by_limit.most_common())
        return Verdict(
            promise="nobody was refused while there was room",
            figures=f"{len(refused):,} refusals ({told_counts}), {counted:,} held against the clients' own count",
            broken=broken,
        )

    def _admissible(self, refused: Asked) -> int | None:
        """How many requests of the team can be in the window that refused; None where that is unclear."""
        window = refused.sent // MINUTE_SECONDS
        if refused.ended // MINUTE_SECONDS != window:
            return None
        start = window * MINUTE_SECONDS
        counter = f"burst|requests|Minute|{round(start * 1000)}|{round((start + MINUTE_SECONDS) * 1000)}"
        # After a loss of data some are charged again: these take room as well. So does, until its lease ends, the hold
        # of who was settled just before: a replica that takes over knows the hold, and the sidecars the charge.
        accounts = (each for each in self.accounts.values() if each.team == refused.team)
        twice = sum((each.told_again(counter) for each in accounts), Fraction(0))
        twice += sum(
            one.charges.get(counter, Fraction(0))
            for one in self.evidence.seen.ledger.values()
            if one.team == refused.team
            and any(
                loss.fault == "failover" and loss.at - UNREPLICATED_SECONDS <= one.at <= loss.at <= refused.ended
                for loss in self.evidence.seen.losses
            )
        )
        return int(twice) + sum(
            one.team == refused.team
            and one.result != "refused"  # who was told that the store is away may hold something until it is given back
            and one.sent <= refused.ended
            and one.ended >= start
            for one in self.evidence.asked
        )

    def thresholds_told_once(self) -> Verdict:
        """Each threshold that was crossed is in the stream of alerts, once for all sidecars."""
        told = Counter((one.team, one.counter, one.percent) for one in self.evidence.seen.alerts.values())
        broken = []
        if not self.evidence.plan.loses_data:
            broken += [f"{key} was reported {count} times" for key, count in told.items() if count > 1]
        expected = set(self._crossed())
        broken += [f"{key} was crossed and not reported" for key in sorted(expected) if key not in told]
        return Verdict(
            promise="each threshold was reported once",
            figures=f"{sum(told.values())} reports"
            + ("" if self.evidence.plan.loses_data else f" of {len(expected)} thresholds that were crossed"),
            broken=broken,
        )

    def _crossed(self) -> Iterator[tuple[str, str, int]]:
        """By what was settled; a charge for a killed sidecar is reported with the settlement that follows it."""
        totals: dict[Key, Fraction] = defaultdict(Fraction)
        settled: dict[Key, Fraction] = defaultdict(Fraction)
        for one in self.evidence.seen.ledger.values():
            for counter, amount in one.charges.items():
                totals[one.team, counter] += amount
                if one.source != "abandoned" and amount > 0:
                    settled[one.team, counter] = totals[one.team, counter]
        for (team, counter), amount in settled.items():
            if self.evidence.plan.loses_data or _unit(counter) is LimitUnit.CONCURRENT:
                continue
            maximum = self.maxima[team, _limit(counter)]
            yield from ((team, counter, percent) for percent in THRESHOLDS if int(amount) * 100 >= maximum * percent)


def _tellings(account: Account, settled: Booked) -> Iterator[Account]:
    """One settlement as it may have been meant: by itself, or as the difference to the end of a lease."""
    yield _account([settled])
    yield from (_account([one, settled]) for one in account.entries if one.source == "abandoned")


def _wrong_unknown(account: Account) -> Iterator[str]:
    """Where the charge of a request whose client heard no id is not the truth."""
    requests = set(account.of(LimitUnit.REQUESTS).values())
    if account.source in {"measured", "abandoned"} and requests != {Fraction(1)}:
        yield f"{account.request_id} ({account.source}): {requests} requests"


def _wrong(account: Account, asked: Asked, cost: Cost | None) -> Iterator[str]:
    """Where a charge is not the truth."""
    name = f"{asked.nonce} ({account.source}, {asked.result})"
    requests = set(account.of(LimitUnit.REQUESTS).values()) - {Fraction(1)}
    if requests:
        yield f"{name}: charged {sorted(requests)} requests"
    if account.source != "measured" or account.status != 200:
        return
    if cost is None or cost.told_tokens is None:
        yield f"{name}: measured, but {account.provider} told nothing"
        return
    expected = {
        LimitUnit.TOKENS: Fraction(cost.told_tokens),
        LimitUnit.COST: Fraction(cost.told_femto_usd, FEMTO_PER_NANO),
    }
    for unit, amount in expected.items():
        for counter, charged in account.of(unit).items():
            if charged != amount:
                yield f"{name}: {counter} charged {charged}, the provider says {amount}"


def _account(entries: Sequence[Booked]) -> Account:
    charges: dict[str, Fraction] = defaultdict(Fraction)
    for one in entries:
        for counter, amount in one.charges.items():
            charges[counter] += amount
    last = next((one for one in reversed(entries) if one.source != "abandoned"), entries[-1])
    return Account(
        team=last.team,
        request_id=last.request_id,
        sources=[one.source for one in entries],
        provider=last.provider,
        status=last.status,
        charges=charges,
        entries=entries,
    )


def _maximum(limit: Mapping[str, object]) -> int:
    if "costUSD" in limit:
        return int(Fraction(str(limit["costUSD"])) * NANO_PER_USD)
    return int(str(next(limit[name] for name in ("requests", "tokens", "concurrentRequests") if name in limit)))


def _limit(counter: str) -> str:
    return counter.split("|", 1)[0]


def _unit(counter: str) -> LimitUnit:
    return LimitUnit(counter.split("|")[1])
