"""Teams' usage through the whole controller, against an API server in memory, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from llm_operator.kube import EVENT, TEAM_QUOTA, ApiError, Document, Kind
from llm_operator.reconcile.objects import Key
from llm_operator.reconcile.usage_reader import MAX_ALERTS, Alert, TeamReading
from llm_sidecar.contract.limit_usage import usage_at
from llm_sidecar.contract.quota_counters import CounterFigures, LimitUnit
from llm_sidecar.contract.resources import TeamQuota
from tests.controller.cluster import Cluster

pytestmark = pytest.mark.looptime

NOON = 1_764_072_000_000
TEAM = Key("app", "default")
DAILY = {"name": "daily", "per": "Day", "tokens": 1000}
BUDGET = {"name": "budget", "per": "Month", "costUSD": "500.00"}


class Store:
    """Counters and alerts that a test sets, and a clock that goes with virtual time."""

    def __init__(self) -> None:
        self.counters: dict[Key, tuple[CounterFigures, ...]] = {}
        self.alerts: list[Alert] = []
        self.is_away = False
        self.missing: set[Key] = set()
        self.reads = 0
        self.asked: list[Mapping[Key, str]] = []

    def now_ms(self) -> int:
        return NOON + int(asyncio.get_running_loop().time() * 1000)

    async def read(self, teams: Mapping[Key, str]) -> Mapping[Key, TeamReading] | None:
        self.reads += 1
        self.asked.append(teams)
        if self.is_away:
            return None
        return {key: self._reading(key, after) for key, after in teams.items() if key not in self.missing}

    def _reading(self, key: Key, after: str) -> TeamReading:
        found = [one for one in self.alerts if _number(one.id) > _number(after)][:MAX_ALERTS] if key == TEAM else []
        last = found[-1].id if found else None
        return TeamReading(
            now_ms=self.now_ms(), counters=self.counters.get(key, ()), alerts=tuple(found), last_alert=last
        )

    async def close(self) -> None:
        """Nothing to close."""

    def use(self, limit: Mapping[str, Any], *, team: Key = TEAM, **figures: Any) -> CounterFigures:
        """Set the figures of a limit in its current window."""
        counter = replace(_empty(limit, self.now_ms()), **figures)
        others = tuple(one for one in self.counters.get(team, ()) if one.counter != counter.counter)
        self.counters[team] = (*others, counter)
        return counter

    def cross(self, limit: Mapping[str, Any], percent: int, *, at_ms: int | None = None, **other: Any) -> Alert:
        """What the script does when a threshold is crossed."""
        counter = _empty(limit, self.now_ms() if at_ms is None else at_ms)
        alert = Alert(
            id=f"{len(self.alerts) + 1}-0",
            limit=counter.limit,
            unit=counter.unit,
            per=counter.per,
            start_ms=counter.start_ms,
            end_ms=counter.end_ms,
            percent=percent,
            used=percent * 10,
            maximum=1000,
        )
        self.alerts.append(replace(alert, **other))
        return self.alerts[-1]


def _number(alert_id: str) -> int:
    return int(alert_id.partition("-")[0])


def _empty(limit: Mapping[str, Any], at_ms: int) -> CounterFigures:
    document = {"apiVersion": "llm-sidecar.io/v1alpha1", "kind": "TeamQuota", "metadata": {"name": "t"}}
    spec = TeamQuota.model_validate(document | {"spec": {"limits": [limit]}}).spec
    [usage] = usage_at(spec, [], at_ms)
    return usage.figures


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def cluster(store: Store) -> Cluster:
    cluster = Cluster()
    cluster.usages = store
    cluster.basics()
    cluster.team(limits=[DAILY, BUDGET])
    return cluster


def _status(cluster: Cluster, name: str = "default") -> Document:
    document = cluster.kube.get_now(TEAM_QUOTA, "app", name)
    assert document is not None
    status: Document = document["status"]
    return status


def _writes(cluster: Cluster, name: str = "default") -> int:
    return cluster.kube.writes.count((TEAM_QUOTA.plural, name))


def _events(cluster: Cluster) -> list[Document]:
    found = [one for one in cluster.kube.objects[EVENT.plural].values() if one["reason"].startswith("Quota")]
    return sorted(found, key=lambda one: str(one["message"]))


def _condition(cluster: Cluster, kind: str) -> tuple[str, str]:
    return cluster.condition(TEAM_QUOTA, "app", "default", kind)[:2]


async def test_a_team_that_used_nothing_yet_shows_zeros(cluster: Cluster) -> None:
    async with cluster.controller():
        await cluster.settle(seconds=10)

        usage = _status(cluster)["usage"]
        assert [(one["name"], one["used"], one["limit"], one["percent"]) for one in usage] == [
            ("daily", "0", "1000", 0),
            ("budget", "0.00", "500.00", 0),
        ]
        assert _condition(cluster, "NearLimit") == ("False", "BelowThreshold")
        assert _condition(cluster, "Exhausted") == ("False", "RoomLeft")
        assert _condition(cluster, "Ready") == ("True", "Ready")


async def test_what_is_used_reaches_the_status_and_the_columns(cluster: Cluster, store: Store) -> None:
    async with cluster.controller():
        await cluster.settle(seconds=10)
        store.use(DAILY, used=400, held=100, beyond=30)
        await cluster.settle(seconds=60)

        tightest = _status(cluster)["tightest"]
        assert {name: tightest[name] for name in ("name", "used", "reserved", "limit", "percent", "remaining")} == {
            "name": "daily",
            "used": "400",
            "reserved": "100",
            "limit": "1000",
            "percent": 40,
            "remaining": "500",
        }
        assert _status(cluster)["usage"][0]["beyondExpectation"] == "30"
        assert _status(cluster)["usage"][0]["beyondWithoutStore"] == "100"

        cluster.team(limits=[DAILY, BUDGET], onStoreUnavailable="Allow")
        await cluster.settle(seconds=60)
        assert "beyondWithoutStore" not in _status(cluster)["usage"][0]


async def test_busy_traffic_writes_a_status_no_more_than_every_30_seconds(cluster: Cluster, store: Store) -> None:
    async with cluster.controller():
        await cluster.settle(seconds=10)
        before = _writes(cluster)
        for step in range(60):
            store.use(DAILY, used=step * 5, held=step % 7)
            await cluster.settle()

        assert 8 <= _writes(cluster) - before <= 10 + 1  # 300 s, and one threshold


async def test_a_quiet_team_costs_no_write(cluster: Cluster, store: Store) -> None:
    store.counters[TEAM] = ()
    async with cluster.controller():
        await cluster.settle(seconds=200)
        before = _writes(cluster)
        await cluster.settle(seconds=4000)

        assert _writes(cluster) == before


async def test_reaching_a_limit_is_told_at_once_and_so_is_the_next_window(cluster: Cluster, store: Store) -> None:
    async with cluster.controller():
        await cluster.settle(seconds=10)
        store.use(DAILY, used=10)
        await cluster.settle(seconds=60)
        store.use(DAILY, used=1000)
        await cluster.settle(seconds=6)

        assert _condition(cluster, "NearLimit") == ("True", "ThresholdReached")
        assert _condition(cluster, "Exhausted") == ("True", "LimitReached")
        assert _condition(cluster, "Ready") == ("True", "Ready")

        await cluster.settle(seconds=12 * 3600)

        assert _condition(cluster, "Exhausted") == ("False", "RoomLeft")
        assert _status(cluster)["tightest"]["percent"] == 0


async def test_burn_rate_and_exhaustion_come_after_a_minute(cluster: Cluster, store: Store) -> None:
    async with cluster.controller():
        for step in range(60):
            store.use(DAILY, used=step * 2)
            await cluster.settle()

        tightest = _status(cluster)["tightest"]
        assert 1300 <= int(tightest["burnRatePerHour"]) <= 1500  # 2 in 5 s
        assert "2025-11-25T12:3" <= tightest["exhaustedAt"] <= "2025-11-25T12:5"


async def test_a_crossing_becomes_one_event_that_says_everything(cluster: Cluster, store: Store) -> None:
    async with cluster.controller():
        await cluster.settle(seconds=10)
        store.cross(DAILY, 80)
        await cluster.settle(seconds=60)

        [event] = _events(cluster)
        assert event["involvedObject"]["name"] == "default"
        assert (event["type"], event["reason"]) == ("Normal", "QuotaThresholdCrossed")
        for word in ("app/default", "daily", "80 %", "800 of 1000", "tokens per Day", "2025-11-26T00:00:00Z"):
            assert word in event["message"]
        assert _status(cluster)["lastAlert"] == "1-0"


@pytest.mark.parametrize(
    ("percent", "kind", "reason"),
    [
        (50, "Normal", "QuotaThresholdCrossed"),
        (95, "Warning", "QuotaThresholdCrossed"),
        (100, "Warning", "QuotaExhausted"),
    ],
)
async def test_the_last_thresholds_warn(cluster: Cluster, store: Store, percent: int, kind: str, reason: str) -> None:
    store.cross(DAILY, percent, at_ms=NOON)
    async with cluster.controller():
        await cluster.settle(seconds=10)

    assert [(one["type"], one["reason"]) for one in _events(cluster)] == [(kind, reason)]


async def test_a_cost_is_told_in_dollars(cluster: Cluster, store: Store) -> None:
    store.cross(BUDGET, 50, at_ms=NOON, used=250_100_000_000, maximum=500_000_000_000)
    async with cluster.controller():
        await cluster.settle(seconds=10)

    assert "250.10 of 500.00" in _events(cluster)[0]["message"]


async def test_crossings_are_counted_by_team_limit_and_threshold(cluster: Cluster, store: Store) -> None:
    async with cluster.controller():
        await cluster.settle(seconds=10)
        store.cross(DAILY, 50)
        store.cross(DAILY, 80)
        await cluster.settle(seconds=10)
        store.use(DAILY, used=250)
        await cluster.settle(seconds=10)

        sample = cluster.metrics.registry.get_sample_value
        labels = {"team": "app/default", "limit": "daily"}
        assert sample("llm_quota_threshold_crossings_total", labels | {"percent": "80"}) == 1
        assert sample("llm_quota_used_ratio", labels) == 0.25
        assert sample("llm_quota_used_ratio", labels | {"limit": "budget"}) == 0


async def test_series_of_limits_and_teams_that_are_gone_go(cluster: Cluster, store: Store) -> None:
    async with cluster.controller():
        await cluster.settle(seconds=10)
        cluster.team(limits=[DAILY])
        await cluster.settle(seconds=10)
        sample = cluster.metrics.registry.get_sample_value
        assert sample("llm_quota_used_ratio", {"team": "app/default", "limit": "budget"}) is None
        assert sample("llm_quota_used_ratio", {"team": "app/default", "limit": "daily"}) == 0

        cluster.kube.drop(TEAM_QUOTA, "app", "default")
        await cluster.settle(seconds=10)
        assert sample("llm_quota_used_ratio", {"team": "app/default", "limit": "daily"}) is None


async def test_a_controller_that_starts_again_tells_nothing_twice(cluster: Cluster, store: Store) -> None:
    store.cross(DAILY, 50, at_ms=NOON)
    async with cluster.controller():
        await cluster.settle(seconds=10)
        store.cross(DAILY, 80)
        await cluster.settle(seconds=10)
    cluster.kube.objects[EVENT.plural].clear()  # Kubernetes forgets Events after an hour

    async with cluster.controller():
        await cluster.settle(seconds=10)
        assert _events(cluster) == []
        assert store.asked[-1] == {TEAM: "2-0"}
        store.cross(DAILY, 95)
        await cluster.settle(seconds=10)

    assert len(_events(cluster)) == 1


@pytest.mark.parametrize("after_the_effect", [False, True])
@pytest.mark.parametrize("step", range(1, 5))
async def test_wherever_a_controller_dies_each_crossing_is_told_once(
    cluster: Cluster, store: Store, step: int, after_the_effect: bool
) -> None:
    async with cluster.controller():
        await cluster.settle(seconds=30)
    for percent in (50, 80, 95):
        store.cross(DAILY, percent, at_ms=NOON)
    cluster.kube.die_after_the_effect = after_the_effect
    # Eight calls that list and publish come first; then three Events and the status.
    cluster.kube.die_at = 8 + step
    assert await cluster.run_until_killed(seconds=40)
    cluster.kube.die_at = None

    async with cluster.controller():
        await cluster.settle(seconds=30)

    assert len(_events(cluster)) == 3
    assert _status(cluster)["lastAlert"] == "3-0"


async def test_an_api_server_that_takes_no_event_for_a_while_loses_none(cluster: Cluster, store: Store) -> None:
    def failing(verb: str, kind: Kind, _name: str) -> ApiError | None:
        return ApiError(500, "InternalError") if (verb, kind) == ("create", EVENT) else None

    async with cluster.controller():
        await cluster.settle(seconds=10)
        cluster.kube.failures = failing
        store.cross(DAILY, 80)
        await cluster.settle(seconds=100)
        assert _events(cluster) == []
        cluster.kube.failures = lambda _verb, _kind, _name: None
        await cluster.settle(seconds=100)

        assert len(_events(cluster)) == 1


async def test_an_event_that_is_refused_for_good_does_not_stop_the_status(cluster: Cluster, store: Store) -> None:
    def forbidden(verb: str, kind: Kind, _name: str) -> ApiError | None:
        return ApiError(403, "Forbidden") if (verb, kind) == ("create", EVENT) else None

    cluster.kube.failures = forbidden
    store.cross(DAILY, 80, at_ms=NOON)
    async with cluster.controller():
        await cluster.settle(seconds=10)

        assert _status(cluster)["lastAlert"] == "1-0"


async def test_a_store_that_forgot_and_claims_a_threshold_again_is_not_believed(cluster: Cluster, store: Store) -> None:
    async with cluster.controller():
        await cluster.settle(seconds=10)
        store.cross(DAILY, 80)
        await cluster.settle(seconds=10)
        store.cross(DAILY, 80)
        await cluster.settle(seconds=10)

        assert len(_events(cluster)) == 1


async def test_after_a_reset_the_same_threshold_is_told_again(cluster: Cluster, store: Store) -> None:
    async with cluster.controller():
        await cluster.settle(seconds=10)
        store.cross(DAILY, 80)
        await cluster.settle(seconds=10)
        store.use(DAILY, used=800, credit=800, reset=800)
        store.cross(DAILY, 80)
        await cluster.settle(seconds=10)

        assert len(_events(cluster)) == 2


@pytest.mark.parametrize(
    "forged", [{"limit": "other"}, {"percent": 42}, {"unit": LimitUnit.COST}, {"per": "Week"}], ids=str
)
async def test_what_the_team_quota_does_not_know_is_not_told(
    cluster: Cluster, store: Store, forged: dict[str, Any]
) -> None:
    """Whoever has the Redis URL can write there."""
    store.alerts = [replace(store.cross(DAILY, 80, at_ms=NOON), **forged)]
    async with cluster.controller():
        await cluster.settle(seconds=10)

    assert _events(cluster) == []


async def test_a_first_controller_does_not_tell_of_windows_that_are_over(cluster: Cluster, store: Store) -> None:
    store.cross(DAILY, 80, at_ms=NOON - 86_400_000)
    store.cross(DAILY, 50, at_ms=NOON)
    async with cluster.controller():
        await cluster.settle(seconds=10)

    assert ["50 %" in one["message"] for one in _events(cluster)] == [True]


async def test_a_crossing_that_is_read_after_its_window_is_told(cluster: Cluster, store: Store) -> None:
    """A minute may end between the crossing and the next look."""
    async with cluster.controller():
        await cluster.settle(seconds=10)
        store.cross(DAILY, 80, at_ms=NOON - 86_400_000)
        await cluster.settle(seconds=10)

    assert len(_events(cluster)) == 1


async def test_a_flood_of_crossings_is_told_in_turns(cluster: Cluster, store: Store) -> None:
    async with cluster.controller():
        await cluster.settle(seconds=10)
        for number in range(250):
            store.cross(DAILY, 80, start_ms=NOON + number)
        await cluster.settle(seconds=60)

    assert len(_events(cluster)) == 250
    assert _status(cluster)["lastAlert"] == "250-0"


async def test_figures_stay_and_say_their_age_while_the_store_is_away(cluster: Cluster, store: Store) -> None:
    async with cluster.controller():
        store.use(DAILY, used=400)
        await cluster.settle(seconds=40)
        store.is_away = True
        await cluster.settle(seconds=20)
        assert _condition(cluster, "Exhausted") == ("False", "RoomLeft")  # too short to be news
        await cluster.settle(seconds=30)

        assert _condition(cluster, "Exhausted") == ("Unknown", "StoreUnavailable")
        assert _condition(cluster, "Ready") == ("True", "Ready")
        assert _status(cluster)["tightest"]["used"] == "400"
        message = cluster.condition(TEAM_QUOTA, "app", "default", "NearLimit")[2]
        assert _status(cluster)["usageReadAt"] in message
        writes = _writes(cluster)
        await cluster.settle(seconds=3000)
        assert _writes(cluster) == writes

        store.is_away = False
        await cluster.settle(seconds=10)
        assert _condition(cluster, "Exhausted") == ("False", "RoomLeft")


async def test_a_controller_that_starts_without_the_store_keeps_what_was_written(
    cluster: Cluster, store: Store
) -> None:
    store.use(DAILY, used=1000)
    async with cluster.controller():
        await cluster.settle(seconds=10)
    store.is_away = True
    async with cluster.controller():
        await cluster.settle(seconds=20)
        assert _condition(cluster, "Exhausted") == ("True", "LimitReached")
        await cluster.settle(seconds=60)

        assert _condition(cluster, "Exhausted") == ("Unknown", "StoreUnavailable")
        assert _status(cluster)["tightest"]["used"] == "1000"


async def test_a_part_of_the_store_that_is_away_hides_its_own_teams_alone(cluster: Cluster, store: Store) -> None:
    cluster.team("other", limits=[DAILY])
    async with cluster.controller():
        await cluster.settle(seconds=10)
        store.missing = {TEAM}
        await cluster.settle(seconds=20)
        assert _condition(cluster, "Exhausted") == ("False", "RoomLeft")  # too short to be news
        await cluster.settle(seconds=20)

        assert _condition(cluster, "Exhausted") == ("Unknown", "StoreUnavailable")
        assert cluster.condition(TEAM_QUOTA, "app", "other", "Exhausted")[:2] == ("False", "RoomLeft")


async def test_a_restart_that_finds_the_same_figures_writes_nothing(cluster: Cluster, store: Store) -> None:
    store.use(DAILY, used=400)
    async with cluster.controller():
        await cluster.settle(seconds=60)
    # The burn rate, which a new controller does not know yet, is the only difference.
    before = {name: value for name, value in _status(cluster).items() if name != "usageReadAt"}
    async with cluster.controller():
        await cluster.settle(seconds=300)
        after = {name: value for name, value in _status(cluster).items() if name != "usageReadAt"}

    assert after["conditions"] == before["conditions"]
    assert after["tightest"]["used"] == before["tightest"]["used"]


async def test_without_redis_nobody_knows_and_the_team_is_ready_all_the_same(cluster: Cluster) -> None:
    cluster.usages = None
    async with cluster.controller():
        await cluster.settle()

        assert _condition(cluster, "Exhausted") == ("Unknown", "NoStore")
        assert _condition(cluster, "Ready") == ("True", "Ready")
        assert "usage" not in _status(cluster)


async def test_a_spec_that_breaks_a_rule_keeps_the_figures(cluster: Cluster, store: Store) -> None:
    store.use(DAILY, used=400)
    async with cluster.controller():
        await cluster.settle(seconds=10)
        cluster.team(limits=[{"name": "daily", "per": "Day"}])
        await cluster.settle(seconds=10)

        assert _condition(cluster, "Exhausted") == ("Unknown", "InvalidSpec")
        assert _status(cluster)["tightest"]["used"] == "400"


async def test_a_team_that_was_made_anew_begins_without_the_past(cluster: Cluster, store: Store) -> None:
    async with cluster.controller():
        await cluster.settle(seconds=10)
        store.cross(DAILY, 80)
        await cluster.settle(seconds=10)
        cluster.kube.drop(TEAM_QUOTA, "app", "default")
        cluster.team(limits=[DAILY])
        await cluster.settle(seconds=20)

        assert store.asked[-1] == {TEAM: "1-0"}
        assert len(_events(cluster)) == 2  # of another object


async def test_all_teams_are_read_in_one_look_every_five_seconds(cluster: Cluster, store: Store) -> None:
    for number in range(20):
        cluster.team(f"t{number}", limits=[DAILY])
    async with cluster.controller():
        await cluster.settle(seconds=60)

    assert 11 <= store.reads <= 13
    assert all(len(asked) == 21 for asked in store.asked[1:])
