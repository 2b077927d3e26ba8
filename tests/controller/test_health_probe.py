"""A probe, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from pydantic import SecretStr

from llm_operator.reconcile.credentials import Credentials
from llm_operator.reconcile.health import Probe, ProbeOutcome
from llm_operator.reconcile.health_probe import HTTPProbe
from llm_operator.reconcile.key_transport import AddressPolicy
from llm_sidecar.contract.resources import LLMProviderSpec

KEY = Credentials(credential=SecretStr("sk-good"))


class Provider:
    """Answers what it is told to, and remembers what was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.hangs = False
        self.asked: list[tuple[str, str]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append((request.method, request.path))
        if self.hangs:
            await asyncio.Event().wait()
        headers = {"Location": f"{self.url}/elsewhere"} if self.status in range(300, 400) else {}
        return web.Response(status=self.status, text="secret-of-the-answer", headers=headers)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", provider.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield provider
    await runner.cleanup()


async def _probe(url: str, **health_check: object) -> Probe:
    spec = LLMProviderSpec.model_validate({"type": "OpenAI", "baseURL": url, "healthCheck": health_check})
    return await HTTPProbe(AddressPolicy(allow_loopback=True))("llm-system/p", spec, KEY)


async def test_a_probe_is_one_get_of_the_models_and_is_timed(provider: Provider) -> None:
    probe = await _probe(f"{provider.url}/v1")

    assert probe.outcome is ProbeOutcome.SUCCEEDED
    assert probe.milliseconds is not None
    assert 0 < probe.milliseconds < 5000
    assert provider.asked == [("GET", "/v1/models")]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (401, ProbeOutcome.KEY_REFUSED),
        (403, ProbeOutcome.KEY_REFUSED),
        (404, ProbeOutcome.INCONCLUSIVE),
        (429, ProbeOutcome.INCONCLUSIVE),
        (302, ProbeOutcome.INCONCLUSIVE),
        (500, ProbeOutcome.FAILED),
        (503, ProbeOutcome.FAILED),
    ],
)
async def test_a_status_says_whether_it_works(provider: Provider, status: int, outcome: ProbeOutcome) -> None:
    provider.status = status

    probe = await _probe(f"{provider.url}/v1")

    assert probe.outcome is outcome
    assert str(status) in probe.message
    assert "secret" not in probe.message


async def test_a_redirect_is_not_followed(provider: Provider) -> None:
    provider.status = 307

    await _probe(f"{provider.url}/v1")

    assert provider.asked == [("GET", "/v1/models")]


async def test_a_probe_takes_no_longer_than_it_may(provider: Provider) -> None:
    provider.hangs = True

    async with asyncio.timeout(4):
        probe = await _probe(f"{provider.url}/v1", timeoutSeconds=1)

    assert (probe.outcome, probe.message) == (ProbeOutcome.FAILED, "No answer within 1 s.")


async def test_a_provider_that_is_away_has_failed() -> None:
    probe = await _probe("http://127.0.0.1:9/v1")

    assert probe.outcome is ProbeOutcome.FAILED
    assert "127.0.0.1" not in probe.message


async def test_addresses_that_are_no_providers_are_not_asked(provider: Provider) -> None:
    spec = LLMProviderSpec.model_validate({"type": "OpenAI", "baseURL": f"{provider.url}/v1"})

    probe = await HTTPProbe(AddressPolicy())("llm-system/p", spec, KEY)

    assert probe.outcome is ProbeOutcome.FAILED
    assert provider.asked == []
