"""One probe of a provider: the request by which its key is checked. It spends no token, and follows no redirect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from time import perf_counter
from typing import Final

from llm_operator.reconcile.credentials import Credentials
from llm_operator.reconcile.health import Probe, ProbeOutcome
from llm_operator.reconcile.key_check import provider_check, sentence
from llm_operator.reconcile.key_transport import AddressPolicy, KeyTransport
from llm_sidecar.contract.resources import LLMProviderSpec
from llm_sidecar.providers.base import Headers, ProviderResponse, Transport, TransportError

ProbeProvider = Callable[[str, LLMProviderSpec, Credentials], Awaitable[Probe]]
"""Probes a provider, by its name. Ends within `healthCheck.timeoutSeconds`."""

_SERVER_ERROR: Final = 500


class _Noticing:
    """A `Transport` that remembers the status of the answer, which `validate_key` does not tell."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.status: int | None = None

    async def send(
        self, method: str, url: str, headers: Headers, body: bytes | AsyncIterable[bytes] | None, connect_seconds: float
    ) -> ProviderResponse:
        """See `Transport`."""
        response = await self._transport.send(method, url, headers, body, connect_seconds)
        self.status = response.status
        return response


class HTTPProbe:
    """A `ProbeProvider` over HTTP."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy

    async def __call__(self, name: str, spec: LLMProviderSpec, credentials: Credentials) -> Probe:
        """One probe."""
        seconds = spec.health_check.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._probe(name, spec, credentials)
        except TimeoutError:
            return Probe(ProbeOutcome.FAILED, f"No answer within {seconds} s.")
        except TransportError as error:
            return Probe(ProbeOutcome.FAILED, sentence(error.detail))
        except Exception as error:  # noqa: BLE001 - a provider type of somebody else may raise anything
            return Probe(ProbeOutcome.INCONCLUSIVE, f"It could not be made ({type(error).__name__}).")

    async def _probe(self, name: str, spec: LLMProviderSpec, credentials: Credentials) -> Probe:
        transport = KeyTransport(self._policy, credentials=credentials, proxy_url=spec.egress.proxy_url)
        async with transport:
            noticing = _Noticing(transport)
            began = perf_counter()
            check = await provider_check(name, spec, credentials, noticing)
            milliseconds = (perf_counter() - began) * 1000
        outcome = _outcome(accepted=check.accepted, status=noticing.status)
        return Probe(outcome, sentence(check.reason), milliseconds if noticing.status is not None else None)


def _outcome(*, accepted: bool | None, status: int | None) -> ProbeOutcome:
    if accepted is not None:
        return ProbeOutcome.SUCCEEDED if accepted else ProbeOutcome.KEY_REFUSED
    # A server without a list of models (404), or that has had enough of us (429), is there all the same. A redirect is
    # not followed, and says no more.
    is_there = status is not None and status < _SERVER_ERROR
    return ProbeOutcome.INCONCLUSIVE if is_there else ProbeOutcome.FAILED
