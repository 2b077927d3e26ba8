"""Anthropic."""

from __future__ import annotations

from types import MappingProxyType

from llm_sidecar.contract.names import API
from llm_sidecar.providers.base import Authentication, Provider


class AnthropicProvider(Provider):
    """The Anthropic API. Its SDKs write `/v1` themselves."""

    type = "Anthropic"
    default_base_url = "https://api.anthropic.com"
    default_authentication = Authentication("x-api-key")
    default_apis = (API.ANTHROPIC_MESSAGES,)
    key_check_path = "/v1/models"
    key_check_headers = MappingProxyType({"anthropic-version": "2023-06-01"})
