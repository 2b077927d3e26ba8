"""Asking a provider about its key, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from pydantic import SecretStr

from llm_operator.reconcile.credentials import Credentials
from llm_operator.reconcile.key_check import KeyChecker, ProviderAsker, Verdict
from llm_operator.reconcile.key_transport import AddressPolicy, api_server_addresses
from llm_operator.reconcile.objects import Key
from llm_operator.status import Reason, Truth
from llm_sidecar.contract.resources import LLMProviderSpec

KEY = Credentials(credential=SecretStr("sk-good"))
OPEN = AddressPolicy(allow_loopback=True)


class Provider:
    """Answers what it is told to, and remembers who asked."""

    def __init__(self) -> None:
        self.answer: Callable[[], web.Response] = web.Response
        self.requests: list[tuple[str, str | None]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((request.path, request.headers.get("Authorization")))
        if request.headers.get("Authorization") != "Bearer sk-good":
            return web.json_response({"error": "the key sk-wrong is unknown"}, status=401)
        return self.answer()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", provider.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield provider
    await runner.cleanup()


def _spec(url: str, **more: object) -> LLMProviderSpec:
    return LLMProviderSpec.model_validate({"type": "OpenAI", "baseURL": url} | more)


async def test_an_accepted_key_costs_one_question_that_spends_nothing(provider: Provider) -> None:
    verdict = await ProviderAsker(OPEN)("p", _spec(f"{provider.url}/v1"), KEY)

    assert (verdict.truth, verdict.reason) == (Truth.TRUE, Reason.KEY_ACCEPTED)
    assert provider.requests == [("/v1/models", "Bearer sk-good")]


async def test_a_refused_key_is_told_without_the_providers_words(provider: Provider) -> None:
    wrong = Credentials(credential=SecretStr("sk-wrong"))
    verdict = await ProviderAsker(OPEN)("p", _spec(f"{provider.url}/v1"), wrong)

    assert (verdict.truth, verdict.reason) == (Truth.FALSE, Reason.KEY_REJECTED)
    assert "sk-wrong" not in verdict.message
    assert "unknown" not in verdict.message


async def test_a_redirect_is_not_followed(provider: Provider) -> None:
    provider.answer = lambda: web.Response(status=302, headers={"Location": f"{provider.url}/stolen"})
    verdict = await ProviderAsker(OPEN)("p", _spec(f"{provider.url}/v1"), KEY)

    assert (verdict.truth, verdict.reason) == (Truth.UNKNOWN, Reason.PROVIDER_UNREACHABLE)
    assert [path for path, _ in provider.requests] == ["/v1/models"]


async def test_a_provider_that_is_away_leaves_the_verdict_open() -> None:
    verdict = await ProviderAsker(OPEN)("p", _spec("http://127.0.0.1:9/v1"), KEY)

    assert (verdict.truth, verdict.reason) == (Truth.UNKNOWN, Reason.PROVIDER_UNREACHABLE)
    assert "127.0.0.1" not in verdict.message


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0", "127.1", "2130706433", "0x7f.0.0.1"]
)
async def test_the_controllers_own_pod_is_not_asked_however_it_is_spelt(provider: Provider, host: str) -> None:
    port = provider.url.rpartition(":")[2]
    verdict = await ProviderAsker(AddressPolicy())("p", _spec(f"http://{host}:{port}/v1"), KEY)

    assert (verdict.truth, verdict.reason) == (Truth.FALSE, Reason.ADDRESS_REFUSED)
    assert provider.requests == []


async def test_a_proxy_at_a_refused_address_is_not_asked_either(provider: Provider) -> None:
    spec = _spec("https://api.openai.com/v1", egress={"proxyURL": provider.url})
    verdict = await ProviderAsker(AddressPolicy())("p", spec, KEY)

    assert verdict.reason is Reason.ADDRESS_REFUSED
    assert provider.requests == []


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("169.254.169.254", False),
        ("fe80::1", False),
        ("fd00:ec2::254", False),
        ("100.100.100.200", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("::ffff:169.254.169.254", False),
        ("2002:a9fe:a9fe::", False),
        ("::", False),
        ("224.0.0.1", False),
        ("10.96.0.1", False),
        ("10.96.0.2", True),
        ("192.168.1.1", True),
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("no address", False),
    ],
)
def test_which_addresses_a_provider_may_have(address: str, is_allowed: bool) -> None:
    policy = AddressPolicy(api_server=api_server_addresses("10.96.0.1"))

    assert policy.allows(address) is is_allowed


@pytest.mark.looptime
async def test_a_verdict_counts_for_its_key_and_spec_alone() -> None:
    asked: list[str] = []

    async def ask(_name: str, spec: LLMProviderSpec, credentials: Credentials) -> Verdict:
        await asyncio.sleep(1)
        assert credentials.credential is not None
        asked.append(f"{spec.base_url} {credentials.credential.get_secret_value()}")
        return Verdict(Truth.TRUE, Reason.KEY_ACCEPTED, "Yes.")

    clock, told = asyncio.get_running_loop().time, list[Key]()
    checker = KeyChecker(ask, clock=clock, interval_seconds=600, on_verdict=lambda key, _: told.append(key))
    key, spec, other = Key("a", "b"), _spec("http://x/v1"), Credentials(credential=SecretStr("sk-other"))

    assert checker.verdict(key, spec, KEY) is None
    assert checker.verdict(key, spec, KEY) is None  # one question at a time
    await checker.settle()
    assert checker.verdict(key, spec, KEY) is not None
    assert checker.verdict(key, spec, other) is None
    await checker.settle()
    assert checker.verdict(key, spec, other) is not None
    assert checker.verdict(key, spec, KEY) is None

    assert asked == ["http://x/v1 sk-good", "http://x/v1 sk-other"]
    assert told == [key, key]
    await checker.close()


@pytest.mark.looptime
async def test_a_check_that_raises_anything_leaves_the_verdict_open() -> None:
    async def ask(_name: str, _spec: LLMProviderSpec, _credentials: Credentials) -> Verdict:
        raise LookupError("sk-good")

    clock, told = asyncio.get_running_loop().time, list[Verdict]()
    checker = KeyChecker(ask, clock=clock, interval_seconds=600, on_verdict=lambda _, verdict: told.append(verdict))
    checker.verdict(Key("a", "b"), _spec("http://x/v1"), KEY)
    await checker.settle()

    assert [one.truth for one in told] == [Truth.UNKNOWN]
    assert "sk-good" not in told[0].message
