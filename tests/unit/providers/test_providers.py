"""What providers share, and how each differs: URL, authentication, errors, key validation, registration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from llm_sidecar.formats.told_error import ToldError
from llm_sidecar.providers import base, factory
from llm_sidecar.providers.anthropic import AnthropicProvider
from llm_sidecar.providers.base import (
    Authentication,
    FailureReason,
    Headers,
    Provider,
    ProviderRequest,
    ProviderResponse,
    ProviderSettings,
    SecretText,
    Transport,
    TransportError,
    TransportFailure,
    failure_reason,
)
from llm_sidecar.providers.factory import LLMProviderFactory, UnknownProviderType, UnusableProviderType
from llm_sidecar.providers.google import GoogleProvider
from llm_sidecar.providers.openai import OpenAIProvider

KEY = "secret-key"


class Answering:
    """A transport that answers always the same and remembers what was sent."""

    def __init__(self, status: int = 200, body: bytes = b"{}", error: TransportError | None = None) -> None:
        self.status, self.pieces, self.error = status, [body], error
        self.headers: Headers = []
        self.sent: list[tuple[str, str, Headers]] = []
        self.connect_seconds = 0.0
        self.closed = False

    async def send(
        self, method: str, url: str, headers: Headers, body: bytes | AsyncIterable[bytes] | None, connect_seconds: float
    ) -> ProviderResponse:
        del body
        self.sent.append((method, url, headers))
        self.connect_seconds = connect_seconds
        if self.error is not None:
            raise self.error
        return self

    def header(self, name: str) -> str | None:
        del name
        return None

    exhausted = False

    async def read_some(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def close(self) -> None:
        self.closed = True


def made(kind: type[Provider], transport: Answering, **settings: object) -> Provider:
    return kind(ProviderSettings("p", key=SecretText(KEY), **settings), transport)  # type: ignore[arg-type]


CHECKS = [
    (OpenAIProvider, "https://api.openai.com/v1/models", {"Authorization": f"Bearer {KEY}"}),
    (
        AnthropicProvider,
        "https://api.anthropic.com/v1/models",
        {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
    ),
    (GoogleProvider, "https://generativelanguage.googleapis.com/v1beta/models", {"x-goog-api-key": KEY}),
]


@pytest.mark.parametrize(("kind", "url", "headers"), CHECKS)
async def test_a_key_is_checked_by_a_call_that_spends_nothing(
    kind: type[Provider], url: str, headers: dict[str, str]
) -> None:
    transport = Answering()
    check = await made(kind, transport).validate_key()
    assert check.accepted is True
    [(method, sent_url, sent_headers)] = transport.sent
    assert (method, sent_url, dict(sent_headers)) == ("GET", url, headers)
    assert transport.closed


@pytest.mark.parametrize("kind", [OpenAIProvider, AnthropicProvider, GoogleProvider])
@pytest.mark.parametrize(
    ("status", "accepted"),
    [(200, True), (401, False), (402, False), (403, False), (302, None), (404, None), (429, None), (500, None)],
)
async def test_only_a_clear_word_of_the_provider_decides_on_a_key(
    kind: type[Provider], status: int, accepted: bool | None
) -> None:
    check = await made(kind, Answering(status, b'{"error":{"message":"key secret-key"}}')).validate_key()
    assert check.accepted is accepted
    assert KEY not in check.reason


async def test_a_bad_google_key_is_a_400_with_a_reason() -> None:
    bad = Answering(400, b'{"error":{"details":[{"reason":"API_KEY_INVALID"}]}}')
    assert (await made(GoogleProvider, bad).validate_key()).accepted is False
    assert (await made(GoogleProvider, Answering(400, b"{}")).validate_key()).accepted is None


async def test_a_key_is_judged_by_the_whole_answer_however_it_arrives() -> None:
    transport = Answering(400)
    transport.pieces = [b'{"error":{"details":[{"reason":"API_', b'KEY_INVALID"}]}}']
    assert (await made(GoogleProvider, transport).validate_key()).accepted is False


async def test_an_answer_that_does_not_end_is_read_up_to_a_bound() -> None:
    transport = Answering(403)
    transport.pieces = [bytes(16 * 1024)] * 100
    assert (await made(OpenAIProvider, transport).validate_key()).accepted is False
    assert len(transport.pieces) == 96
    assert transport.closed


async def test_a_provider_that_never_answers_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Answering):
        async def read_some(self) -> bytes:
            await asyncio.Event().wait()
            return b""

    monkeypatch.setattr(base, "KEY_CHECK_SECONDS", 0.01)
    transport = Silent()
    check = await made(OpenAIProvider, transport).validate_key()
    assert (check.accepted, check.reason) == (None, "the provider could not be asked: no answer within 0.01 s")
    assert transport.closed


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("connection", FailureReason.CONNECTION),
        ("timeout", FailureReason.TIMEOUT),
        ("disconnected", FailureReason.DISCONNECTED),
        ("garbled", FailureReason.GARBLED_ANSWER),
    ],
)
def test_every_failure_of_the_transport_has_a_reason(failure: TransportFailure, reason: FailureReason) -> None:
    assert failure_reason(TransportError(failure, "detail")) is reason


async def test_a_provider_that_cannot_be_asked_says_nothing_about_the_key() -> None:
    check = await made(OpenAIProvider, Answering(error=TransportError("connection", "refused"))).validate_key()
    assert check.accepted is None
    assert "refused" in check.reason


def test_an_error_means_what_its_language_says_unless_a_provider_knows_better() -> None:
    for kind in FailureReason:
        assert made(OpenAIProvider, Answering()).failure_kind(ToldError(500, kind)) is kind


async def test_a_request_goes_to_the_base_url_with_our_headers_in_place_of_the_applications() -> None:
    transport = Answering()
    provider = made(
        OpenAIProvider,
        transport,
        base_url="https://host/openai/v1/",
        authentication=Authentication("api-key"),
        headers=(("X-Ours", "1"),),
    )
    request = ProviderRequest("POST", "/responses", "a=b", [("API-KEY", "x"), ("x-ours", "2"), ("x-kept", "3")], b"{}")
    await provider.complete(request)
    assert transport.sent == [
        ("POST", "https://host/openai/v1/responses?a=b", [("x-kept", "3"), ("api-key", KEY), ("X-Ours", "1")])
    ]
    assert transport.connect_seconds == provider.timeouts.connect


async def test_without_a_key_no_authentication_is_sent() -> None:
    transport = Answering()
    await OpenAIProvider(ProviderSettings("p"), transport).complete(ProviderRequest("GET", "/models", "", [], None))
    assert transport.sent[0][2] == []


def test_a_secret_shows_itself_only_when_asked_by_name() -> None:
    secret = SecretText(KEY)
    assert KEY not in repr(secret) + str(secret) + repr(ProviderSettings("p", key=secret))
    assert secret.reveal() == KEY
    assert secret == SecretText(KEY)
    assert hash(secret) == hash(SecretText(KEY))
    assert secret != SecretText("other")


# --- the factory


@pytest.fixture(autouse=True)
def _registrations_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LLMProviderFactory, "_registered", {})


@pytest.mark.parametrize("kind", [OpenAIProvider, AnthropicProvider, GoogleProvider])
def test_the_built_in_types_need_no_search_for_entry_points(
    kind: type[Provider], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the metadata of everything that is installed: much, at the start of every pod."""
    monkeypatch.delattr(factory, "entry_points")
    provider = LLMProviderFactory.create(kind.type, ProviderSettings("p"), Answering())
    assert type(provider) is kind
    assert provider.apis == kind.default_apis


def test_an_unknown_type_is_told_with_those_that_are_known() -> None:
    with pytest.raises(UnknownProviderType, match="'Nobody' is not known here; known are: Anthropic, Google, OpenAI"):
        LLMProviderFactory.create("Nobody", ProviderSettings("p"), Answering())


def test_a_class_registers_itself() -> None:
    @LLMProviderFactory.register
    class Acme(OpenAIProvider):
        type = "Acme"

    assert "Acme" in LLMProviderFactory.types()
    assert type(LLMProviderFactory.create("Acme", ProviderSettings("p"), Answering())) is Acme


def test_the_last_registration_counts_also_over_a_built_in_type() -> None:
    class Other(OpenAIProvider):
        pass

    LLMProviderFactory.register(Other)
    assert LLMProviderFactory.provider_class("OpenAI") is Other


def test_another_package_adds_a_type_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("Acme", "llm_sidecar.providers.anthropic:AnthropicProvider", factory.ENTRY_POINT_GROUP)

    def found(**params: Any) -> EntryPoints:
        return EntryPoints([point]).select(**params)

    monkeypatch.setattr(factory, "entry_points", found)
    assert LLMProviderFactory.types() == ["Acme", "Anthropic", "Google", "OpenAI"]
    assert LLMProviderFactory.provider_class("Acme") is AnthropicProvider


def test_a_package_that_cannot_be_loaded_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("Acme", "llm_sidecar.providers.no_such_module:Acme", factory.ENTRY_POINT_GROUP)
    monkeypatch.setattr(factory, "entry_points", lambda **params: EntryPoints([point]).select(**params))
    with pytest.raises(UnusableProviderType, match=r"'Acme' cannot be loaded \(ModuleNotFoundError: .*no_such_module"):
        LLMProviderFactory.create("Acme", ProviderSettings("p"), Answering())


def test_a_class_that_fails_to_start_is_told_without_its_words() -> None:
    """It was given the key, and may quote it."""

    @LLMProviderFactory.register
    class Acme(OpenAIProvider):
        type = "Acme"

        def __init__(self, settings: ProviderSettings, transport: Transport) -> None:
            super().__init__(settings, transport)
            raise RuntimeError(f"bad key {settings.key and settings.key.reveal()}")

    with pytest.raises(
        UnusableProviderType, match=r"failed to start with RuntimeError at test_providers.py:\d+"
    ) as raised:
        LLMProviderFactory.create("Acme", ProviderSettings("p", key=SecretText(KEY)), Answering())
    assert KEY not in str(raised.value)
