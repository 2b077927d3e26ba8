"""Token usage: Anthropic tells cached input beside the rest of it, and thinking within the output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_sidecar.formats.anthropic_messages import merged_usage
from llm_sidecar.formats.base import Usage
from llm_sidecar.translation.answer import ToldUsage


def decode(told: Mapping[str, Any], before: ToldUsage | None = None) -> ToldUsage:
    """What is told now, on top of what was told `before` in the same stream: explicit later values win."""
    if before is None:
        return ToldUsage(buckets=merged_usage(Usage(), told), extra=told)
    explicit = {name: value for name, value in told.items() if value is not None}
    return ToldUsage(buckets=merged_usage(before.buckets, told), extra={**before.extra, **explicit})


def encode(usage: ToldUsage | None) -> dict[str, Any]:
    """Usage of another language. The SDK's types require input and output: what nobody told is said as 0."""
    buckets = Usage() if usage is None else usage.buckets
    written: dict[str, Any] = {
        "input_tokens": buckets.input_tokens or 0,
        "cache_creation_input_tokens": buckets.cache_write_tokens,
        "cache_read_input_tokens": buckets.cache_read_tokens,
        "output_tokens": buckets.output_tokens or 0,
    }
    if buckets.reasoning_tokens is not None:
        written["output_tokens_details"] = {"thinking_tokens": buckets.reasoning_tokens}
    return written
