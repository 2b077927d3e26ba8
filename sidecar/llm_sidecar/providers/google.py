"""Google's Gemini API (AI Studio keys)."""

from __future__ import annotations

from llm_sidecar.contract.names import API
from llm_sidecar.providers.base import Authentication, Provider


class GoogleProvider(Provider):
    """The Gemini API. A key that it does not know is a 400 there, told apart by `ErrorInfo.reason`."""

    type = "Google"
    default_base_url = "https://generativelanguage.googleapis.com"
    default_authentication = Authentication("x-goog-api-key")
    default_apis = (API.GEMINI,)
    key_check_path = "/v1beta/models"

    def rejects_key(self, status: int, body: bytes) -> bool:
        """A bad key is 400 `API_KEY_INVALID` here."""
        return super().rejects_key(status, body) or (status == 400 and b"API_KEY_INVALID" in body)
