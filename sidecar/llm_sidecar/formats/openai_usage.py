"""Token usage as the OpenAI APIs tell it: totals that include the cached and the reasoning tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_sidecar.formats.base import Usage
from llm_sidecar.formats.fields import count, mapping


def chat_usage(usage: Mapping[str, Any]) -> Usage:
    """From `usage` of chat completions and embeddings."""
    return _disjoint(
        count(usage, "prompt_tokens"),
        mapping(usage, "prompt_tokens_details"),
        count(usage, "completion_tokens"),
        mapping(usage, "completion_tokens_details"),
    )


def responses_usage(usage: Mapping[str, Any]) -> Usage:
    """From `usage` of the Responses API."""
    return _disjoint(
        count(usage, "input_tokens"),
        mapping(usage, "input_tokens_details"),
        count(usage, "output_tokens"),
        mapping(usage, "output_tokens_details"),
    )


def _disjoint(
    prompt: int | None, prompt_details: Mapping[str, Any], output: int | None, output_details: Mapping[str, Any]
) -> Usage:
    read = count(prompt_details, "cached_tokens")
    written = count(prompt_details, "cache_write_tokens")
    return Usage(
        # Never below zero, whatever a provider tells: a negative amount would pay back into a budget.
        input_tokens=None if prompt is None else max(0, prompt - (read or 0) - (written or 0)),
        cache_read_tokens=read,
        cache_write_tokens=written,
        output_tokens=output,
        reasoning_tokens=count(output_details, "reasoning_tokens"),
    )
