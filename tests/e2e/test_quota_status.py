"""From real traffic to what people see of a quota: columns, conditions, Events, a grant; once over controllers."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e import resources
from tests.e2e.applications import Applications
from tests.e2e.release import RELEASE

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.needs("helm")]

Team = Callable[[], Applications]

LIMIT = {"name": "calls", "per": "Month", "requests": 200}


@pytest.fixture
def spender(team: Team) -> Applications:
    """An application that calls all the time, under a limit that it reaches within seconds."""
    applications = team()
    limited = resources.team_quota("default", limits=[LIMIT, {"name": "tokens", "per": "Day", "tokens": 10**12}])
    applications.cluster.apply(limited, namespace=applications.namespace)
    applications.deploy("app", applications.program("app", "steady_calls.py"))
    applications.pod_of("app")
    return applications


def _quota(applications: Applications) -> Any:
    return applications.cluster.kubectl("get", "teamquota", "default", f"--namespace={applications.namespace}")


def _condition(applications: Applications, kind: str) -> str:
    conditions = _quota(applications).get("status", {}).get("conditions", [])
    return str(next((one["status"] for one in conditions if one["type"] == kind), ""))


def _events(applications: Applications, prefix: str = "Quota") -> list[Any]:
    place = f"--namespace={applications.namespace}"
    found = applications.cluster.kubectl("get", "events", place)["items"]
    return [one for one in found if one["reason"].startswith(prefix) and one["involvedObject"]["kind"] == "TeamQuota"]


def _columns(applications: Applications, *options: str) -> dict[str, str]:
    header, row = applications.text("get", "teamquota", "default", *options).splitlines()
    starts = [match.start() for match in re.finditer(r"\S+(?: \S+)*", header)]
    ends = [*starts[1:], None]
    return {header[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)}


def test_a_team_that_reaches_its_limit_is_seen_told_of_once_and_granted_more(
    spender: Applications, tell_figure: Callable[[str], None]
) -> None:
    cluster, namespace = spender.cluster, spender.namespace

    seconds = cluster.wait_until(
        lambda: _condition(spender, "Exhausted") == "True", what="the TeamQuota says that it is exhausted"
    )

    # What is seen.
    assert _condition(spender, "NearLimit") == "True"
    assert _condition(spender, "Ready") == "True"
    columns = _columns(spender)
    assert {name: columns[name] for name in ("TIGHTEST", "UNIT", "SPENT", "RESERVED", "LIMIT", "PERCENT", "READY")} == {
        "TIGHTEST": "calls",
        "UNIT": "requests",
        "SPENT": "200",
        "RESERVED": columns["RESERVED"],  # requests may be under way in the second of the look
        "LIMIT": "200",
        "PERCENT": "100",
        "READY": "True",
    }
    assert datetime.fromisoformat(columns["RESETS"]) > datetime.now(UTC)
    assert {"BURN RATE", "EXHAUSTED AT"} <= _columns(spender, "--output=wide").keys()
    usage = {one["name"]: one for one in _quota(spender)["status"]["usage"]}
    assert usage["calls"]["used"] == "200"
    assert usage["tokens"]["percent"] == 0

    # What is told, once for each threshold.
    cluster.wait_until(lambda: len(_events(spender)) == 4, what="an Event for each threshold")
    messages = sorted(one["message"] for one in _events(spender))
    assert [re.search(r"reached (\d+) %", message) is not None for message in messages] == [True] * 4
    assert all(f"{namespace}/default" in message for message in messages)

    # A controller that starts anew tells nothing twice.
    with spender.release.scaled_to_zero("controller"):
        pass
    cluster.wait_until(lambda: _condition(spender, "Exhausted") == "True", what="the new controller has read")
    assert len(_events(spender)) == 4

    # A grant lets calls through again, and is told.
    told = cluster.text(
        *("exec", f"--namespace={spender.release.namespace}", f"deployment/{RELEASE}-controller", "--"),
        *("llm-operator", "quota", "adjust", f"{namespace}/default", "--limit=calls", "--grant=1000000"),
        *("--reason=end-to-end", "--who=tester"),
    )
    assert "granted 1000000 by tester (end-to-end)" in told
    granted = cluster.wait_until(
        lambda: _condition(spender, "Exhausted") == "False", what="the TeamQuota has room again"
    )
    pod = spender.pod_of("app")
    before = len([one for one in spender.calls(pod) if not one.outcome.startswith("status 429")])
    cluster.wait_until(
        lambda: len([one for one in spender.calls(pod) if not one.outcome.startswith("status 429")]) > before,
        what="calls are answered again",
    )
    assert [one["message"] in told for one in _events(spender, "QuotaAdjusted")] == [True]
    tell_figure(f"limit reached -> Exhausted within {seconds:.1f} s of a look; grant -> room shown: {granted:.1f} s")
