"""`llm-sidecar usage` and `llm-operator quota adjust` as a user meets them, beside a proxy that was really called."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import yaml

from llm_sidecar.contract.config import ConfigDocument, StoreEntry, TeamEntry, render_config
from llm_sidecar.contract.keys import quota_counters
from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from tests.integration.conftest import SimulatedProvider
from tests.integration.processes import DEFECTS, Sidecar, running_sidecar

ROOT: Final = Path(__file__).parents[2]
SECONDS: Final = 60.0
TEAM: Final = "payments/payments"
LIMITS: Final[list[dict[str, Any]]] = [
    {"name": "monthly", "per": "Month", "requests": 10},
    {"name": "tokens", "per": "Month", "tokens": 1_000_000},
    {"name": "budget", "per": "Month", "costUSD": "5.00"},
    {"name": "parallel", "concurrentRequests": 5},
]


def _run(program: str, *words: str | Path, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """A command to its end: status, output, errors. A traceback is never part of it."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "KUBECONFIG": "/nowhere", **(environment or {})},
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert not any(word in done.stderr for word in DEFECTS), done.stderr
    return done.returncode, done.stdout, done.stderr


def _usage(*words: str | Path, **environment: str) -> tuple[int, str, str]:
    return _run("llm-sidecar", "usage", *words, environment=environment)


@pytest.fixture
def manifests(tmp_path: Path, simulator: SimulatedProvider) -> Path:
    pricing = {"inputUSDPerMillionTokens": "100", "outputUSDPerMillionTokens": "100"}
    provider = {
        "type": "OpenAI",
        "baseURL": f"{simulator.base_url}/v1",
        "credentials": {"secretKeyRef": {"name": "openai", "key": "api-key"}},
        "models": [{"name": "gpt-5-mini", "aliases": ["small"], "maxOutputTokens": 100, "pricing": pricing}],
    }
    documents = [
        {"kind": "LLMProvider", "metadata": {"name": "openai", "namespace": "payments"}, "spec": provider},
        {"kind": "TeamQuota", "metadata": {"name": "payments", "namespace": "payments"}, "spec": {"limits": LIMITS}},
    ]
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "openai",
            "namespace": "payments",
            "labels": {"llm-sidecar.io/credentials": "true"},
        },
        "stringData": {"api-key": simulator.key},
    }
    path = tmp_path / "manifests.yaml"
    named = [{"apiVersion": "llm-sidecar.io/v1alpha1", **document} for document in documents]
    path.write_text(yaml.safe_dump_all([*named, secret]), encoding="utf-8")
    return path


Call = Callable[[], int]


@contextmanager
def _proxy(manifests: Path, *arguments: str, **environment: str) -> Iterator[Call]:
    with running_sidecar(manifests, arguments=arguments, environment=environment) as sidecar:
        yield lambda: _call(sidecar)


def _call(sidecar: Sidecar) -> int:
    request = urllib.request.Request(  # noqa: S310 - of our own making
        f"{sidecar.base_url}/v1/chat/completions",
        data=json.dumps({"model": "small", "messages": [{"role": "user", "content": "hi"}]}).encode(),
        headers={"Authorization": f"Bearer {sidecar.token}", "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=SECONDS) as response:
            status: int = response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    return status


def _limits(manifests: Path, store_url: str) -> dict[str, dict[str, Any]]:
    status, told, _ = _usage("-f", manifests, "--redis", store_url, "--output", "json")
    assert status == 0
    return {one["name"]: one for one in json.loads(told)[TEAM]}


def _settled(manifests: Path, store_url: str, requests: int) -> dict[str, dict[str, Any]]:
    """The limits, once so many requests are charged and nothing is held."""
    deadline = time.monotonic() + 10
    while True:
        limits = _limits(manifests, store_url)
        if limits["monthly"]["used"] == str(requests) and limits["parallel"]["reserved"] == "0":
            return limits
        assert time.monotonic() < deadline, limits


def test_what_an_application_spent_is_in_the_table_the_export_and_agrees(manifests: Path, store_url: str) -> None:
    with _proxy(manifests, "--redis", store_url) as call:
        assert [call() for _ in range(3)] == [200, 200, 200]
        limits = _settled(manifests, store_url, 3)

    assert limits["monthly"]["percent"] == 30
    status, table, errors = _usage("-f", manifests, "--redis", store_url)
    assert (status, errors) == (0, "")
    assert [line.split()[:1] for line in table.splitlines()] == [
        [TEAM],
        ["limit"],
        *([one["name"]] for one in LIMITS),
    ]

    status, exported, _ = _usage("export", "-f", manifests, "--redis", store_url)
    rows = list(csv.DictReader(io.StringIO(exported)))
    assert status == 0
    assert [(row["model"], row["provider"], row["source"], row["status"]) for row in rows] == [
        ("gpt-5-mini", "openai", "measured", "200")
    ] * 3
    tokens = sum(int(row["input"]) + int(row["output"]) for row in rows)
    assert str(tokens) == limits["tokens"]["used"]

    assert _usage("recompute", "-f", manifests, "--redis", store_url, "--ledger-is-whole") == (
        0,
        f"{TEAM}: 3 counters agree with the ledger, 0 do not\n",
        "",
    )


def test_json_lines_go_on_where_the_last_export_ended(manifests: Path, store_url: str) -> None:
    words = ("export", "--team", TEAM, "--redis", store_url, "--format", "jsonl")
    with _proxy(manifests, "--redis", store_url) as call:
        call()
        _settled(manifests, store_url, 1)
        [first] = [json.loads(line) for line in _usage(*words)[1].splitlines()]
        call()
        _settled(manifests, store_url, 2)

    [second] = [json.loads(line) for line in _usage(*words, "--since", first["entry"])[1].splitlines()]
    assert second["entry"] > first["entry"]
    assert len(_usage(*words, "--since", "2026-01-01")[1].splitlines()) == 2
    assert _usage(*words, "--since", "2126-01-01T00:00:00+01:00")[1] == ""


def test_the_store_of_a_proxy_that_runs_here_is_found(manifests: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="usage-") as folder:
        status, _, errors = _usage("-f", manifests, TMPDIR=folder)
        assert (status, "no store is known" in errors) == (2, True)

        with _proxy(manifests, TMPDIR=folder) as call:
            assert call() == 200
            deadline = time.monotonic() + 10
            while "monthly   Month  requests            1 " not in _usage("-f", manifests, TMPDIR=folder)[1]:
                assert time.monotonic() < deadline


def test_of_two_stores_one_must_be_named(manifests: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="usage-") as folder,
        _proxy(manifests, TMPDIR=folder),
        _proxy(manifests, TMPDIR=folder),
    ):
        status, _, errors = _usage("-f", manifests, TMPDIR=folder)

        assert status == 2
        stores = [line for line in errors.splitlines() if line.startswith("unix://")]
        assert len(stores) == 2
        assert _usage("-f", manifests, "--redis", stores[1], TMPDIR=folder)[0] == 0


def test_a_grant_reaches_a_proxy_that_refuses_at_once(manifests: Path, store_url: str) -> None:
    with _proxy(manifests, "--redis", store_url) as call:
        assert [call() for _ in range(11)] == [200] * 10 + [429]

        words = ("quota", "adjust", TEAM, "--limit", "monthly", "--reason", "launch", "--who", "ann", "-f", manifests)
        status, told, _ = _run("llm-operator", *words, "--grant", "1", "--redis", store_url)
        assert (status, told) == (
            0,
            f"team {TEAM}, limit monthly: granted 1 by ann (launch); now 10 of 11 are used, 0 reserved\n",
        )
        assert [call(), call()] == [200, 429]

        assert _run("llm-operator", *words, "--reset", "--redis", store_url)[0] == 0
        assert call() == 200
        limits = _settled(manifests, store_url, 1)

    assert (limits["monthly"]["limit"], limits["monthly"]["percent"]) == ("11", 9)
    adjusted = [
        row
        for row in csv.DictReader(io.StringIO(_usage("export", "--team", TEAM, "--redis", store_url)[1]))
        if row["source"] == "adjusted"
    ]
    assert [(row["who"], row["reason"], row["adjustment"], row["amount"]) for row in adjusted] == [
        ("ann", "launch", "grant", "1"),
        ("ann", "launch", "reset", "0"),
    ]


def test_a_counter_that_differs_is_told_and_written_on_demand(manifests: Path, store_url: str) -> None:
    words = ("recompute", "-f", manifests, "--redis", store_url, "--ledger-is-whole")
    with _proxy(manifests, "--redis", store_url) as call:
        call()
        _settled(manifests, store_url, 1)
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        fields: Any = client.hkeys(quota_counters(TEAM))
        [used] = [field for field in fields if field.startswith("monthly|") and field.endswith("|used")]
        client.hset(quota_counters(TEAM), used, 7)

    status, told, _ = _usage(*words)
    assert status == 1
    assert "2 counters agree with the ledger, 1 do not" in told
    assert told.splitlines()[-1].split() == ["monthly", "requests", told.splitlines()[-1].split()[2], "7", "1", "-6"]

    status, told, _ = _usage(*words, "--write", "--reason", "checked")
    assert (status, "set right" in told) == (0, True)
    assert _usage(*words)[0] == 0
    assert _limits(manifests, store_url)["monthly"]["used"] == "1"


def test_windows_that_the_ledger_may_not_cover_are_said_to_be_left_out(manifests: Path, store_url: str) -> None:
    with _proxy(manifests, "--redis", store_url) as call:
        call()
        _settled(manifests, store_url, 1)

    status, told, _ = _usage("recompute", "-f", manifests, "--redis", store_url)

    assert status == 0
    assert "3 began before its first entry, and were not compared" in told


def test_the_config_document_of_a_pod_names_team_and_store(tmp_path: Path, store_url: str) -> None:
    document = ConfigDocument(
        team=TeamEntry(namespace="payments", name="payments", spec=TeamQuotaSpec.model_validate({"limits": LIMITS})),
        store=StoreEntry.model_validate({"url": store_url}),
    )
    path = tmp_path / "config.json"
    path.write_bytes(render_config(document))

    status, told, _ = _usage("--config", path, "--output", "json")

    assert status == 0
    assert [one["used"] for one in json.loads(told)[TEAM]] == ["0", "0", "0.00", "0"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name its file with -f"),
        (("--team", TEAM), "name its file with -f"),
        (("-f", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("--config", "nowhere.json"), "nowhere.json cannot be read"),
        (("--config", "pyproject.toml"), "not JSON"),
        (("-f", "MANIFESTS", "--team", "payments/x"), f"name one of these: {TEAM}"),
        (("-f", "MANIFESTS", "--redis", "http://x"), "--redis: "),
        (("-f", "MANIFESTS", "--redis", "redis://127.0.0.1:1"), "the store cannot be asked (connection)"),
        (("export", "--team", TEAM, "--redis", "redis://127.0.0.1:1", "--since", "soon"), "'soon' is no time"),
    ],
    ids=["nothing", "team", "no file", "no config", "no document", "other team", "bad url", "no store", "no time"],
)
def test_what_cannot_be_told_says_why(manifests: Path, words: tuple[str, ...], said: str) -> None:
    status, told, errors = _usage(*(manifests if word == "MANIFESTS" else word for word in words))

    assert (status, told) == (2, "")
    assert said in errors
    assert "127.0.0.1" not in errors


def test_a_reader_that_has_seen_enough_is_no_error(manifests: Path, store_url: str) -> None:
    with redis.Redis.from_url(store_url) as client, client.pipeline() as pipeline:
        for _ in range(5000):
            pipeline.xadd(f"llm-sidecar:v1:{{{TEAM}}}:quota:ledger", {"model": "m" * 100})
        pipeline.execute()
    program = Path(sys.executable).with_name("llm-sidecar")
    command = f'"{program}" usage export --team {TEAM} --redis "{store_url}" | head -n 1'

    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=SECONDS, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("entry,time,team,request,")
