"""Whether providers take their keys: asked beside everything else, remembered by what was asked about.

A verdict belongs to one spec and one key. A change of either asks anew; otherwise it is asked again now and then.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from llm_operator.reconcile.credentials import Credentials
from llm_operator.reconcile.key_transport import AddressPolicy, KeyTransport
from llm_operator.reconcile.objects import Key
from llm_operator.status import Reason, Truth
from llm_sidecar.contract.resources import LLMProviderSpec
from llm_sidecar.providers.base import (
    Authentication,
    KeyCheck,
    ProviderSettings,
    SecretText,
    Timeouts,
    Transport,
    TransportError,
)
from llm_sidecar.providers.factory import LLMProviderFactory

UNREACHABLE_RETRY_SECONDS: Final = 60
REJECTED_RETRY_SECONDS: Final = 120
AT_ONCE: Final = 4
LONGEST_QUESTION_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a provider said, as its condition will tell it."""

    truth: Truth
    reason: Reason
    message: str


Ask = Callable[[str, LLMProviderSpec, Credentials], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class _Remembered:
    digest: bytes
    verdict: Verdict
    ask_again_at: float


class KeyChecker:
    """Verdicts by provider. `on_verdict` is called when one is new."""

    def __init__(
        self,
        ask: Ask,
        *,
        clock: Callable[[], float],
        interval_seconds: float,
        on_verdict: Callable[[Key, Verdict], None],
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._on_verdict = on_verdict
        self._remembered: dict[Key, _Remembered] = {}
        self._asking: dict[Key, tuple[bytes, asyncio.Task[None]]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    def verdict(self, key: Key, spec: LLMProviderSpec, credentials: Credentials) -> Verdict | None:
        """What is known about this spec and key; begins to ask where that is nothing, or old."""
        digest = digest_of(spec, credentials)
        known = self._remembered.get(key)
        is_about_this = known is not None and known.digest == digest
        if known is None or not is_about_this or self._clock() >= known.ask_again_at:
            self._begin(key, digest, spec, credentials)
        return known.verdict if known is not None and is_about_this else None

    def seconds_until_next(self, key: Key) -> float | None:
        """When a provider should be looked at again for its key's sake."""
        known = self._remembered.get(key)
        return max(1.0, known.ask_again_at - self._clock()) if known is not None else None

    def forget(self, key: Key) -> None:
        """The provider is gone."""
        self._remembered.pop(key, None)
        asking = self._asking.pop(key, None)
        if asking is not None:
            asking[1].cancel()

    async def close(self) -> None:
        """Stop asking."""
        tasks = [task for _, task in self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Wait for all that is being asked."""
        while self._asking:
            await asyncio.gather(*(task for _, task in self._asking.values()), return_exceptions=True)

    async def _asked(self, key: Key, spec: LLMProviderSpec, credentials: Credentials) -> Verdict:
        try:
            async with asyncio.timeout(LONGEST_QUESTION_SECONDS):
                return await self._ask(str(key), spec, credentials)
        except Exception as error:  # noqa: BLE001 - a provider type of somebody else may raise anything
            message = f"The provider could not be asked ({type(error).__name__})."
            return Verdict(Truth.UNKNOWN, Reason.PROVIDER_UNREACHABLE, message)

    def _begin(self, key: Key, digest: bytes, spec: LLMProviderSpec, credentials: Credentials) -> None:
        asking = self._asking.get(key)
        if asking is not None:
            if asking[0] == digest:
                return
            asking[1].cancel()
        task = asyncio.create_task(self._ask_once(key, digest, spec, credentials))
        self._asking[key] = (digest, task)

    async def _ask_once(self, key: Key, digest: bytes, spec: LLMProviderSpec, credentials: Credentials) -> None:
        try:
            async with self._slots:
                verdict = await self._asked(key, spec, credentials)
            waits = {Truth.TRUE: self._interval_seconds, Truth.FALSE: REJECTED_RETRY_SECONDS}
            again_at = self._clock() + waits.get(verdict.truth, UNREACHABLE_RETRY_SECONDS)
            self._remembered[key] = _Remembered(digest, verdict, again_at)
        finally:
            current = self._asking.get(key)
            if current is not None and current[0] == digest:
                del self._asking[key]
        self._on_verdict(key, verdict)


def digest_of(spec: LLMProviderSpec, credentials: Credentials) -> bytes:
    """Of all that a provider is asked with: another one, and the answer is about something else."""
    asked_with = spec.model_dump(
        mode="json", include={"type", "base_url", "authentication", "headers", "egress", "timeouts"}
    )
    return sha256(json.dumps(asked_with, sort_keys=True).encode() + credentials.digest()).digest()


class ProviderAsker:
    """Asks over HTTP, through `Provider.validate_key`, which spends no tokens."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy

    async def __call__(self, name: str, spec: LLMProviderSpec, credentials: Credentials) -> Verdict:
        """One question."""
        try:
            transport = KeyTransport(self._policy, credentials=credentials, proxy_url=spec.egress.proxy_url)
            async with transport:
                check = await provider_check(name, spec, credentials, transport)
        except TransportError as error:
            return Verdict(
                Truth.UNKNOWN, Reason.PROVIDER_UNREACHABLE, f"The provider could not be asked: {error.detail}."
            )
        # `validate_key` tells of it as of any other missing connection.
        if transport.has_refused:
            message = (
                "spec.baseURL leads to an address that is no provider's: link-local, metadata, loopback or the API "
                "server. Fix: name the provider's own address"
            )
            return Verdict(Truth.FALSE, Reason.ADDRESS_REFUSED, message)
        return _verdict(check)


async def provider_check(name: str, spec: LLMProviderSpec, credentials: Credentials, transport: Transport) -> KeyCheck:
    """Ask a provider for its models, over this transport."""
    authentication = spec.authentication
    settings = ProviderSettings(
        name=name,
        base_url=spec.base_url,
        key=SecretText(credentials.credential.get_secret_value()) if credentials.credential is not None else None,
        authentication=Authentication(authentication.header, authentication.scheme) if authentication else None,
        headers=tuple((header.name, header.value) for header in spec.headers),
        apis=spec.apis or (),
        timeouts=Timeouts(connect=min(spec.timeouts.connect_seconds, 10)),
    )
    return await LLMProviderFactory.create(spec.type, settings, transport).validate_key()


def _verdict(check: KeyCheck) -> Verdict:
    if check.accepted is None:
        return Verdict(Truth.UNKNOWN, Reason.PROVIDER_UNREACHABLE, sentence(check.reason))
    if check.accepted:
        return Verdict(Truth.TRUE, Reason.KEY_ACCEPTED, sentence(check.reason))
    message = f"{sentence(check.reason)} Fix: correct the key in its Secret, or spec.authentication"
    return Verdict(Truth.FALSE, Reason.KEY_REJECTED, message)


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:].rstrip(".") + "."
