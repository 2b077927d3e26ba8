"""OpenAI, and every server that speaks its API: Azure, Groq, OpenRouter, vLLM, Ollama (by `baseURL`)."""

from __future__ import annotations

from llm_sidecar.contract.names import API
from llm_sidecar.providers.base import Authentication, Provider


class OpenAIProvider(Provider):
    """The OpenAI API. Its SDKs hold `/v1` in their base URL."""

    type = "OpenAI"
    default_base_url = "https://api.openai.com/v1"
    default_authentication = Authentication("Authorization", "Bearer")
    default_apis = (API.OPENAI_CHAT, API.OPENAI_RESPONSES, API.OPENAI_EMBEDDINGS)
    client_path_prefix = "/v1"
