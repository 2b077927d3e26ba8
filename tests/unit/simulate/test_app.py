from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import aiohttp
import pytest

from llm_sidecar.simulate import SimulatorSettings, running

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "gpt-5", "messages": MESSAGES}
COMMAND = """
import argparse, sys
from llm_sidecar.commands import simulate
parser = argparse.ArgumentParser()
simulate.add_parser(parser.add_subparsers())
args = parser.parse_args()
sys.exit(args.run(args))
"""


@pytest.mark.parametrize(
    ("path", "headers", "owner"),
    [
        ("/v1/models", {}, "object"),
        ("/v1/models", {"anthropic-version": "2023-06-01"}, "has_more"),
        ("/v1/models", {"x-goog-api-key": "any"}, "models"),
        ("/v1/models?key=any", {}, "models"),
        ("/v1beta/models", {}, "models"),
    ],
    ids=["openai", "anthropic", "gemini-by-header", "gemini-by-key", "gemini-by-version"],
)
async def test_the_shared_list_of_models_is_told_apart(
    http: aiohttp.ClientSession, path: str, headers: dict[str, str], owner: str
) -> None:
    async with http.get(path, headers=headers) as answer:
        assert owner in await answer.json()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/models", {"authorization": "Bearer sk-all"}, 200),
        ("/v1/models", {"authorization": "Bearer sk-openai"}, 200),
        ("/v1/models", {"api-key": "sk-openai"}, 200),
        ("/v1/models", {"authorization": "Bearer sk-other"}, 401),
        ("/v1/models", {}, 401),
        ("/v1/models", {"anthropic-version": "1", "x-api-key": "sk-all"}, 200),
        ("/v1/models", {"anthropic-version": "1", "authorization": "Bearer sk-all"}, 200),
        ("/v1/models", {"anthropic-version": "1", "x-api-key": "sk-openai"}, 401),
        ("/v1/models", {"anthropic-version": "1"}, 401),
        ("/v1beta/models", {"x-goog-api-key": "sk-all"}, 200),
        ("/v1beta/models?key=sk-all", {}, 200),
        ("/v1beta/models", {"x-goog-api-key": "sk-openai"}, 400),
        ("/v1beta/models", {}, 403),
    ],
    ids=str,
)
async def test_a_wrong_key_is_refused_as_each_provider_does(path: str, headers: dict[str, str], status: int) -> None:
    settings = SimulatorSettings(port=0, required_keys=("sk-all", "openai=sk-openai"))
    async with (
        running(settings) as handle,
        aiohttp.ClientSession(handle.base_url) as session,
        session.get(path, headers=headers) as answer,
    ):
        told = await answer.json()

    assert answer.status == status
    assert status == 200 or told["error"]["message"]
    if status == 400:
        assert told["error"]["details"][0]["reason"] == "API_KEY_INVALID"


async def test_the_ledger_tells_what_was_true_and_no_secret(http: aiohttp.ClientSession) -> None:
    headers = {"authorization": "Bearer sk-secret", "x-stainless-retry-count": "1", "x-client-request-id": "mine-7"}
    async with http.post("/v1/chat/completions", json={**CHAT, "stream": True}, headers=headers) as answer:
        await answer.read()
    async with http.get("/_simulate/requests") as answer:
        text = await answer.text()
        [entry] = await answer.json()

    assert "sk-secret" not in text
    assert "authorization" in entry.pop("header_names")
    usage = {"input_tokens": 4, "cached_input_tokens": 0, "output_tokens": 7, "thinking_tokens": 0}
    assert entry == {
        "number": 1,
        "method": "POST",
        "path": "/v1/chat/completions",
        "retry_count": "1",
        "client_request_id": "mine-7",
        "api": "openai.chat",
        "model": "gpt-5",
        "stream": True,
        "status": 200,
        "usage_told": None,
        "usage_true": usage,
        "outcome": "finished",
    }


async def test_a_plain_answer_costs_even_when_nobody_waited_for_it(http: aiohttp.ClientSession) -> None:
    headers = {"x-llm-simulate": "latency_ms=60000"}
    asking = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT, headers=headers).__aenter__())
    entries: list[dict[str, Any]] = []
    while not entries or entries[0]["outcome"] != "client gone":
        async with http.get("/_simulate/requests") as answer:
            entries = await answer.json()
        if entries and entries[0]["usage_true"]:
            asking.cancel()

    assert (entries[0]["usage_told"], entries[0]["usage_true"]["output_tokens"]) == (None, 7)


async def test_the_ledger_is_bounded() -> None:
    settings = SimulatorSettings(port=0, ledger_size=2)
    async with running(settings) as handle, aiohttp.ClientSession(handle.base_url) as session:
        for _ in range(3):
            async with session.get("/v1/models"):
                pass
        async with session.get("/_simulate/requests") as answer:
            assert [entry["number"] for entry in await answer.json()] == [2, 3]


async def test_a_body_over_the_limit_is_a_413(http: aiohttp.ClientSession) -> None:
    settings = SimulatorSettings(port=0, maximum_body_bytes=1000)
    async with running(settings) as handle, aiohttp.ClientSession(handle.base_url) as session:
        for path in ("/v1/responses", "/v1/messages", "/v1beta/models/m:generateContent"):
            async with session.post(path, data=b"x" * 2000) as answer:
                assert answer.status == 413
                assert "error" in await answer.json()


async def test_ids_are_the_same_in_every_run_and_differ_by_request() -> None:
    runs: list[list[str]] = []
    for _ in range(2):
        async with running(SimulatorSettings(port=0)) as handle, aiohttp.ClientSession(handle.base_url) as session:
            ids = []
            for _ in range(2):
                async with session.post("/v1/chat/completions", json=CHAT) as answer:
                    told: dict[str, Any] = await answer.json()
                    ids.append(told["id"])
            runs.append(ids)

    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_command_tells_the_three_addresses_and_ends_cleanly(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", COMMAND, "simulate", "--port", "0", "--latency-ms", "1", "--model", "openai=mine",
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": "sidecar"},
    )  # fmt: skip
    assert process.stdout is not None
    lines = [(await process.stdout.readline()).decode().split() for _ in range(3)]
    assert [line[0] for line in lines] == ["OpenAI", "Anthropic", "Gemini"]
    async with aiohttp.ClientSession() as session, session.get(lines[0][1].partition("=")[2] + "/models") as answer:
        assert [model["id"] for model in (await answer.json())["data"]] == ["mine"]

    process.send_signal(number)
    assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--fault", "statu=1"], "statu=1"), (["--model", "cohere=x"], "cohere=x")],
    ids=["fault", "model"],
)
async def test_a_wrong_argument_is_named(arguments: list[str], named: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", COMMAND, "simulate", "--port", "0", *arguments,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": "sidecar"},
    )  # fmt: skip
    _, told = await process.communicate()

    assert process.returncode == 2
    assert named in told.decode()
