"""Acme, an imaginary provider that speaks OpenAI's chat API, with manners of its own."""

from __future__ import annotations

from llm_sidecar.contract.names import API
from llm_sidecar.formats.told_error import FailureKind, ToldError
from llm_sidecar.providers.base import Authentication, Provider


class AcmeProvider(Provider):
    """Acme's hosted models. There is a daily allotment: once it is spent, every call is a 402 until midnight."""

    type = "Acme"
    default_base_url = "https://llm.acme.example/v1"
    default_authentication = Authentication("api-key")  # the bare key: Acme knows no `Authorization: Bearer`
    default_apis = (API.OPENAI_CHAT,)
    client_path_prefix = "/v1"
    key_check_path = "/account"  # a GET that needs the key and spends nothing

    def rejects_key(self, status: int, body: bytes) -> bool:
        """A 402 is not about the key here."""
        return status != 402 and super().rejects_key(status, body)

    def failure_kind(self, error: ToldError) -> FailureKind:
        """The allotment comes back by itself: that is a limit, and no unpaid bill."""
        return FailureKind.RATE_LIMITED if error.status == 402 else super().failure_kind(error)
