"""The headers that each provider adds to an answer, and where each looks for a key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from llm_sidecar.simulate.errors import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_sidecar.simulate.answer import Stamp

_BEARER = "bearer "
_KEY_HEADERS = {Family.OPENAI: "api-key", Family.ANTHROPIC: "x-api-key", Family.GEMINI: "x-goog-api-key"}


def answer_headers(family: Family, stamp: Stamp, *, latency_ms: int) -> dict[str, str]:
    """Return the headers of any answer of this API; Google adds none of its own."""
    if family is Family.OPENAI:
        return {
            "x-request-id": "req_" + stamp.hexadecimal("request", 32),
            "openai-organization": "org-simulated",
            "openai-processing-ms": str(latency_ms + 1),
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-limit-tokens": "2000000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-remaining-tokens": "1999990",
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-reset-tokens": "0s",
        }
    if family is Family.ANTHROPIC:
        reset = datetime.fromtimestamp(stamp.created_seconds, UTC).isoformat().replace("+00:00", "Z")
        limits = {"requests": 4000, "tokens": 2_400_000, "input-tokens": 2_000_000, "output-tokens": 400_000}
        headers = {
            "request-id": "req_01" + stamp.token("request", 22),
            "anthropic-organization-id": "00000000-0000-4000-8000-000000000000",
        }
        for name, limit in limits.items():
            prefix = f"anthropic-ratelimit-{name}-"
            headers |= {prefix + "limit": str(limit), prefix + "remaining": str(limit - 1), prefix + "reset": reset}
        return headers
    return {}


def given_key(family: Family, headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """Return the key that came with a request, or an empty string."""
    authorization = headers.get("authorization", "")
    if authorization.lower().startswith(_BEARER):
        return authorization[len(_BEARER) :].strip()
    key = headers.get(_KEY_HEADERS[family], "")
    return query.get("key", "") if family is Family.GEMINI and not key else key
