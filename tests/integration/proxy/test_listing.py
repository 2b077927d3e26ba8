"""Model lists come from the configuration, in the shape of the SDK that asks, without a call to any provider."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anthropic
import openai
import pytest
from google import genai

from llm_sidecar.contract.config import ConfigDocument, TeamEntry
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import TOKEN, Proxy, Upstream, document, provider

Serve = Callable[..., Awaitable[Upstream]]

FAMILIES = {
    "openai": {"authorization": f"Bearer {TOKEN}"},
    "anthropic": {"x-api-key": TOKEN, "anthropic-version": "2023-06-01", "authorization": ""},
    "gemini": {"x-goog-api-key": TOKEN, "authorization": ""},
}


@pytest.fixture
async def upstream(serve: Serve) -> Upstream:
    return await serve()


@pytest.fixture
async def proxy(start_proxy: StartProxy, upstream: Upstream) -> Proxy:
    url = upstream.base_url
    return await start_proxy(
        document(
            provider("o", url, models=[{"name": "gpt", "aliases": ["small"]}, "embed", "secret-1", "family-*"]),
            provider("a", url, type="Anthropic", models=[{"name": "claude", "aliases": ["small"]}]),
            provider("g", url, type="Google", models=["gemini", "secret-2"]),
            team={"models": {"allow": ["gpt", "small", "claude", "gemini", "secret-*"], "deny": ["secret-*"]}},
        )
    )


async def test_each_sdk_lists_what_its_team_may_ask_for(proxy: Proxy, upstream: Upstream) -> None:
    """Whoever serves it: a request in another language is translated."""
    every = ["claude", "gemini", "gpt", "small"]
    async with openai.AsyncOpenAI(base_url=f"{proxy.base_url}/v1", api_key=TOKEN) as one:
        assert [model.id async for model in one.models.list()] == every
        assert (await one.models.retrieve("small")).id == "small"
    async with anthropic.AsyncAnthropic(base_url=proxy.base_url, api_key=TOKEN) as two:
        assert [model.id async for model in two.models.list()] == every
        assert (await two.models.retrieve("claude")).id == "claude"
    client = genai.Client(api_key=TOKEN, http_options=genai.types.HttpOptions(base_url=proxy.base_url))
    try:
        pager = await client.aio.models.list()
        assert [model.name async for model in pager] == [f"models/{name}" for name in every]
        assert (await client.aio.models.get(model="gemini")).name == "models/gemini"
    finally:
        await client.aio.aclose()
        client.close()
    assert not upstream.seen


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("model", ["unknown", "secret-1", "secret-2", "family-x", "embed"])
async def test_a_model_that_is_not_listed_is_a_404(proxy: Proxy, family: str, model: str) -> None:
    path = f"/v1beta/models/{model}" if family == "gemini" else f"/v1/models/{model}"
    reply = await proxy.ask("GET", path, headers=FAMILIES[family])
    assert (reply.status, reply.code) == (404, "model_not_found")


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_list_takes_get_only(proxy: Proxy, family: str) -> None:
    path = "/v1beta/models" if family == "gemini" else "/v1/models"
    reply = await proxy.ask("DELETE", path, headers=FAMILIES[family])
    assert (reply.status, reply.code, reply.headers["allow"]) == (405, "method_not_allowed", "GET")


@pytest.mark.parametrize("model", ["embed", "secret-1", "family-x"])
async def test_a_model_that_the_team_may_not_use_is_a_403(proxy: Proxy, upstream: Upstream, model: str) -> None:
    reply = await proxy.chat(model=model)
    assert (reply.status, reply.code) == (403, "model_not_allowed")
    assert "payments/payments" in reply.json()["error"]["message"]
    assert not upstream.seen


async def test_a_team_that_does_not_admit_the_pod_gives_it_nothing(start_proxy: StartProxy) -> None:
    """What the operator publishes when a claim is revoked: the team's name, and neither providers nor keys."""
    team = TeamEntry(namespace="payments", name="payments", allowed=False)
    proxy = await start_proxy(ConfigDocument(team=team))
    for reply in (await proxy.chat(), await proxy.ask("GET", "/v1/models"), await proxy.ask("POST", "/v1/files")):
        assert (reply.status, reply.code) == (403, "team_not_allowed")
        assert "payments/payments" in reply.json()["error"]["message"]


async def test_what_clients_type_becomes_no_label(proxy: Proxy) -> None:
    for number in range(20):
        await proxy.chat(model=f"made-up-{number}")
    await proxy.ask("GET", "/v1/models/made-up")
    assert b"made-up" not in (await proxy.admin("/metrics")).body
    assert proxy.metric("llm_requests_total", model="other") == 21
