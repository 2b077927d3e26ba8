"""Token usage as chat completions and embeddings tell it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_sidecar.formats.base import Usage
from llm_sidecar.formats.openai_usage import chat_usage
from llm_sidecar.translation.answer import ToldUsage


def decode_usage(usage: Mapping[str, Any]) -> ToldUsage:
    """The buckets, and the object as it came."""
    return ToldUsage(buckets=chat_usage(usage), extra=usage)


def encode_usage(buckets: Usage) -> dict[str, Any]:
    """The totals include what was cached and what was thought; details are told where they are known."""
    prompt, completion = buckets.told_input_tokens or 0, buckets.output_tokens or 0
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    cached = {"cached_tokens": buckets.cache_read_tokens, "cache_write_tokens": buckets.cache_write_tokens}
    told = {name: count for name, count in cached.items() if count is not None}
    if told:
        usage["prompt_tokens_details"] = told
    if buckets.reasoning_tokens is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": buckets.reasoning_tokens}
    return usage
