"""`llm-operator quota adjust` on a real Valkey, beside a proxy's quota that lives with what it does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import yaml
from aiohttp import web

from llm_operator.__main__ import main
from llm_operator.quota_adjust import Adjustment, InvalidAdjustment, adjust, find_limit, parse_amount, parse_reason
from llm_sidecar.contract.keys import quota_counters, quota_ledger
from llm_sidecar.contract.limits import Limit
from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.embedded_store import embedded_store
from llm_sidecar.quota import Charge, Demand, LedgerEntry, Quota, QuotaExceeded
from llm_sidecar.redis_store import RedisStore

TEAM = "payments/payments"
LIMITS = [
    {"name": "monthly", "per": "Month", "tokens": 1000},
    {"name": "budget", "per": "Month", "costUSD": "500.00"},
    {"name": "parallel", "concurrentRequests": 5},
]
SPEC = TeamQuotaSpec.model_validate({"limits": LIMITS})
RESOURCE = {
    "apiVersion": "llm-sidecar.io/v1alpha1",
    "kind": "TeamQuota",
    "metadata": {"name": "payments", "namespace": "payments", "uid": "u-1"},
    "spec": {"limits": LIMITS},
}
WHY = "--reason=the launch"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with embedded_store() as found:
        yield found


@pytest.fixture
async def client(url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def quota(url: str) -> AsyncIterator[Quota]:
    store = RedisStore(url, timeout_seconds=5)
    quota = Quota(store, team=TEAM, spec=SPEC, sidecar="pod-1")
    yield quota
    await quota.close(timeout_seconds=5)
    await store.close()


async def _spend(quota: Quota, tokens: int) -> None:
    demand = Demand(model="m", input_tokens=tokens, expected_output_tokens=0, maximum_output_tokens=0)
    reservation = await quota.reserve(f"request-{tokens}-{quota.settled_by_source.total()}", demand)
    quota.settle(reservation, Charge(tokens=tokens), LedgerEntry(source="measured", model="m"))
    async with asyncio.timeout(10):
        while quota.pending_settlements:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.001)


def _adjustment(*, amount: int | None, limit: str = "monthly") -> Adjustment:
    return Adjustment(
        team=TEAM,
        limit=find_limit(SPEC, limit, team=TEAM),
        time_zone="UTC",
        amount=amount,
        who="ann@desk",
        reason="the launch",
    )


async def _ledger(client: redis.asyncio.Redis) -> list[dict[str, str]]:
    entries: Any = await client.xrange(quota_ledger(TEAM))
    return [words for _, words in entries if words["source"] == "adjusted"]


# --- what it does


async def test_a_grant_lets_in_what_was_refused(quota: Quota, client: redis.asyncio.Redis) -> None:
    await _spend(quota, 1000)
    with pytest.raises(QuotaExceeded):
        await _spend(quota, 200)

    adjusted = await adjust(client, _adjustment(amount=300))
    await _spend(quota, 200)

    assert (adjusted.before.remaining, adjusted.after.remaining, adjusted.after.limit) == (0, 300, 1300)
    with pytest.raises(QuotaExceeded):
        await _spend(quota, 101)


async def test_a_reset_gives_back_all_that_was_used_and_no_more(quota: Quota, client: redis.asyncio.Redis) -> None:
    await _spend(quota, 900)

    first = await adjust(client, _adjustment(amount=None))
    assert (first.after.used, first.after.limit, first.after.remaining) == (0, 1000, 1000)
    await _spend(quota, 400)
    second = await adjust(client, _adjustment(amount=None))
    assert (second.before.used, second.after.used, second.after.limit) == (400, 0, 1000)

    await _spend(quota, 1000)
    with pytest.raises(QuotaExceeded):
        await _spend(quota, 1)


async def test_a_reset_leaves_what_was_charged_and_what_was_granted(quota: Quota, client: redis.asyncio.Redis) -> None:
    await _spend(quota, 900)
    await adjust(client, _adjustment(amount=500))

    after = (await adjust(client, _adjustment(amount=None))).after

    assert (after.figures.used, after.used, after.limit) == (900, 0, 1500)


async def test_a_reset_leaves_what_requests_under_way_hold(quota: Quota, client: redis.asyncio.Redis) -> None:
    demand = Demand(model="m", input_tokens=700, expected_output_tokens=0, maximum_output_tokens=0)
    await quota.reserve("under way", demand)

    after = (await adjust(client, _adjustment(amount=None))).after

    assert (after.used, after.reserved, after.remaining) == (0, 700, 300)


async def test_a_grant_before_anybody_used_anything_counts_in_the_current_window(
    quota: Quota, client: redis.asyncio.Redis
) -> None:
    await adjust(client, _adjustment(amount=500))

    await _spend(quota, 1500)


async def test_a_command_that_is_sent_twice_happens_once(
    client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Same:
        hex = "the same id"

    monkeypatch.setattr("llm_operator.quota_adjust.uuid4", Same)

    await adjust(client, _adjustment(amount=300))
    again = await adjust(client, _adjustment(amount=300))

    assert again.before == again.after
    assert again.after.limit == 1300
    assert len(await _ledger(client)) == 1


async def test_amounts_beyond_what_doubles_hold_stay_exact(quota: Quota, client: redis.asyncio.Redis) -> None:
    month = (await adjust(client, _adjustment(amount=1, limit="budget"))).after.figures.counter
    huge = 9_007_199_254_740_993
    await client.hset(quota_counters(TEAM), f"{month}|used", str(huge))
    await client.hset(quota_counters(TEAM), f"{month}|reset", "3")

    after = (await adjust(client, _adjustment(amount=None, limit="budget"))).after

    assert (after.figures.reset, after.figures.credit) == (huge, 1 + huge - 3)


async def test_it_stands_in_the_ledger_with_who_and_why(quota: Quota, client: redis.asyncio.Redis) -> None:
    await _spend(quota, 900)
    await adjust(client, _adjustment(amount=300))
    await adjust(client, _adjustment(amount=None))

    grant, reset = await _ledger(client)
    assert {name: grant[name] for name in ("who", "reason", "adjustment", "amount", "charges")} == {
        "who": "ann@desk",
        "reason": "the launch",
        "adjustment": "grant",
        "amount": "300",
        "charges": "",
    }
    assert grant["counter"].startswith("monthly|tokens|Month|")
    assert (reset["adjustment"], reset["reset_from"], reset["reset_to"]) == ("reset", "0", "900")


async def test_thresholds_that_are_not_reached_any_more_are_told_again_when_they_are(
    quota: Quota, client: redis.asyncio.Redis
) -> None:
    await _spend(quota, 960)
    adjusted = await adjust(client, _adjustment(amount=600))  # 60 % of 1600
    alerted = await client.hget(quota_counters(TEAM), f"{adjusted.after.figures.counter}|alerted")
    assert alerted == "60"

    await _spend(quota, 340)
    alerts: Any = await client.xrange("llm-sidecar:v1:{payments/payments}:quota:alerts")
    assert [words["percent"] for _, words in alerts] == ["50", "80", "95", "80"]


async def test_the_sequence_grows_so_that_proxies_know_a_store_that_lost_it(client: redis.asyncio.Redis) -> None:
    await adjust(client, _adjustment(amount=1))
    await adjust(client, _adjustment(amount=1))


# --- what cannot be done


def _limit(**fields: Any) -> Limit:
    return Limit.model_validate({"name": "l", "per": "Day", **fields})


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1e3", "٣", "9007199254740993", "99999999999999999"])
def test_what_is_no_number_of_tokens_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidAdjustment, match=r"Fix: .*such as 100000"):
        parse_amount(_limit(tokens=5), text)


@pytest.mark.parametrize("text", ["", "0", "0.00", "-1", "0.0000000001", "9000001", "1,5", "$5"])
def test_what_is_no_amount_of_dollars_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidAdjustment, match=r"Fix: .*such as 50\.00"):
        parse_amount(_limit(costUSD="5"), text)


@pytest.mark.parametrize(
    ("fields", "text", "amount"),
    [
        ({"tokens": 5}, "100000", 100_000),
        ({"requests": 5}, "7", 7),
        ({"costUSD": "5"}, "12.5", 12_500_000_000),
        ({"costUSD": "5"}, "0.000000001", 1),
        ({"costUSD": "5"}, "9000000", 9_000_000 * 10**9),
    ],
)
def test_amounts_are_exact(fields: dict[str, Any], text: str, amount: int) -> None:
    assert parse_amount(_limit(**fields), text) == amount


@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "x" * 501])
def test_a_reason_is_one_line(text: str) -> None:
    with pytest.raises(InvalidAdjustment, match="--reason"):
        parse_reason(text)


# --- the command


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "quota.yaml"
    path.write_text(yaml.safe_dump_all([{"kind": "Secret"}, RESOURCE]), encoding="utf-8")
    return path


async def _command(*words: object) -> int:
    return await asyncio.to_thread(main, ["quota", "adjust", *map(str, words)])


async def test_from_a_file_it_needs_no_cluster(
    url: str, client: redis.asyncio.Redis, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = await _command(TEAM, "--limit=budget", "--grant=12.5", WHY, "-f", manifest, "--redis", url, "--who=ann")

    assert status == 0
    told = capsys.readouterr()
    assert told.out == (
        "team payments/payments, limit budget: granted 12.50 by ann (the launch); now 0.00 of 512.50 are used, "
        "0.00 reserved\n"
    )
    assert told.err == ""
    assert [entry["who"] for entry in await _ledger(client)] == ["ann"]


async def test_who_did_it_is_known_without_being_asked(url: str, client: redis.asyncio.Redis, manifest: Path) -> None:
    assert await _command(TEAM, "--limit=monthly", "--reset", WHY, "-f", manifest, "--redis", url) == 0

    assert "@" in (await _ledger(client))[0]["who"]


async def test_the_redis_url_comes_from_the_controllers_own_setting(
    url: str, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "url"
    secret.write_text(url, encoding="utf-8")
    monkeypatch.setenv("LLM_OPERATOR_REDIS_URL_FILE", str(secret))

    assert await _command(TEAM, "--limit=monthly", "--grant=5", WHY, "-f", manifest) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((TEAM, "--limit=x", "--grant=1"), "its limits: monthly, budget, parallel"),
        ((TEAM, "--limit=parallel", "--grant=1"), "Fix: change spec.limits"),
        ((TEAM, "--limit=monthly", "--grant=1.5"), "such as 100000"),
        (("payments/other", "--limit=monthly", "--reset"), "name one that is there: payments/payments"),
        (("payments", "--limit=monthly", "--reset"), "write NAMESPACE/NAME"),
        ((TEAM, "--limit=monthly", "--reset", "--redis=nonsense"), "Redis URL cannot be used"),
    ],
    ids=["unknown limit", "no window", "no whole number", "unknown team", "no team", "no url"],
)
async def test_what_cannot_be_done_says_why_and_what_to_do(
    url: str, manifest: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    redis_url = () if words[-1].startswith("--redis") else ("--redis", url)

    assert await _command(*words, WHY, "-f", manifest, *redis_url) == 2

    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), ("a: [", "is not YAML"), ("kind: TeamQuota\nmetadata: {name: payments}\n", "default/")],
    ids=["missing", "broken", "without a namespace"],
)
async def test_a_file_that_cannot_be_used_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    path = tmp_path / "quota.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")

    assert await _command(TEAM, "--limit=monthly", "--reset", WHY, "-f", path, "--redis=redis://127.0.0.1:1") == 2
    assert said in capsys.readouterr().err


async def test_a_resource_that_breaks_a_rule_names_the_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "quota.yaml"
    path.write_text(yaml.safe_dump(RESOURCE | {"spec": {"timeZone": "Local"}}), encoding="utf-8")

    assert await _command(TEAM, "--limit=monthly", "--reset", WHY, "-f", path, "--redis=redis://127.0.0.1:1") == 2
    assert "spec.timeZone" in capsys.readouterr().err


async def test_a_redis_that_does_not_answer_is_told_without_its_address(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = await _command(TEAM, "--limit=monthly", "--reset", WHY, "-f", manifest, "--redis=redis://127.0.0.1:1")

    told = capsys.readouterr().err
    assert status == 1
    assert "Redis did not answer" in told
    assert "127.0.0.1" not in told


async def test_without_a_redis_url_it_says_what_to_give(
    manifest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLM_OPERATOR_REDIS_URL", raising=False)

    assert await _command(TEAM, "--limit=monthly", "--reset", WHY, "-f", manifest) == 2
    assert "--redis URL" in capsys.readouterr().err


# --- with a cluster


class ApiServer:
    """Lists one TeamQuota, and takes Events."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.event_status = 201
        self.list_status = 200
        self.url = ""

    async def list_quotas(self, request: web.Request) -> web.Response:
        items = [RESOURCE] if request.match_info["namespace"] == "payments" else []
        if self.list_status != 200:
            return web.json_response({"reason": "Forbidden"}, status=self.list_status)
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})

    async def create_event(self, request: web.Request) -> web.Response:
        self.events.append(await request.json())
        return web.json_response({"reason": "Forbidden"}, status=self.event_status)


@pytest.fixture
async def api_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiServer]:
    server = ApiServer()
    application = web.Application()
    application.router.add_get("/apis/llm-sidecar.io/v1alpha1/namespaces/{namespace}/teamquotas", server.list_quotas)
    application.router.add_post("/api/v1/namespaces/payments/events", server.create_event)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    yield server
    await runner.cleanup()


async def test_in_a_cluster_an_event_tells_of_it(
    url: str, api_server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await _command(TEAM, "--limit=monthly", "--grant=500", WHY, "--who=ann", "--redis", url) == 0

    [event] = api_server.events
    assert (event["reason"], event["type"], event["involvedObject"]["uid"]) == ("QuotaAdjusted", "Normal", "u-1")
    assert event["message"] == capsys.readouterr().out.strip()
    assert "granted 500 by ann (the launch)" in event["message"]


async def test_an_event_can_be_left_out(url: str, api_server: ApiServer) -> None:
    assert await _command(TEAM, "--limit=monthly", "--grant=500", WHY, "--no-event", "--redis", url) == 0

    assert api_server.events == []


async def test_an_event_that_is_refused_undoes_nothing_and_is_told(
    url: str, client: redis.asyncio.Redis, api_server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    api_server.event_status = 403

    assert await _command(TEAM, "--limit=monthly", "--grant=500", WHY, "--redis", url) == 0

    told = capsys.readouterr()
    assert "granted 500" in told.out
    assert "no Event could be written" in told.err
    assert len(await _ledger(client)) == 1


async def test_an_unknown_team_is_told_with_those_of_its_namespace(
    url: str, api_server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await _command("payments/x", "--limit=monthly", "--reset", WHY, "--redis", url) == 2
    assert "payments/payments" in capsys.readouterr().err


async def test_an_account_that_may_not_list_is_told_so(
    url: str, api_server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    api_server.list_status = 403

    assert await _command(TEAM, "--limit=monthly", "--reset", WHY, "--redis", url) == 2
    assert "403 Forbidden" in capsys.readouterr().err


async def test_without_a_cluster_it_says_what_to_give(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))

    assert await _command(TEAM, "--limit=monthly", "--reset", WHY, "--redis", url) == 2
    assert "set KUBECONFIG" in capsys.readouterr().err
