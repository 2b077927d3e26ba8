"""The recorded traffic, and what a careful reader of the providers' documentation would say that each exchange took.

The reading of token usage here is deliberately another one than the product's: the whole answer is at hand, so it is
parsed at once and plainly. Two readings that agree on all recordings are each other's proof.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

APIS: Final = ("openai", "anthropic", "google")
EXPECTED_EXCHANGES: Final = {"openai": 213, "anthropic": 165, "google": 113}

Usage = dict[str, int | None]


@dataclass(frozen=True)
class Exchange:
    """One recorded request and its answer."""

    api: str
    id: str
    method: str
    path: str
    request_headers: Mapping[str, str]
    request: Any
    status: int
    response_headers: Mapping[str, str]
    response: bytes

    @cached_property
    def request_body(self) -> bytes | None:
        """The bytes to send. Spacing differs from exchange to exchange: whoever re-serialises is found out."""
        if self.request is None:
            return None
        seed = int(self.id, 16)
        separators = ((",", ":"), (", ", ": "), (" ,", " :  "))[seed % 3]
        text = json.dumps(self.request, ensure_ascii=seed % 2 == 0, separators=separators)
        return (text + "\n" * (seed % 4 == 3)).encode()

    @property
    def is_stream(self) -> bool:
        """Whether the answer is a stream of events."""
        return self.response_headers.get("content-type", "").startswith("text/event-stream")

    @property
    def usage(self) -> Usage | None:
        """Token usage in disjoint buckets, as told; None where none was or where the path is merely passed through."""
        reader = _USAGE_READERS.get(self._endpoint)
        if reader is None or self.status != 200:
            return None
        return reader(self._documents)

    @property
    def provider_total(self) -> int | None:
        """The provider's own sum, where its API tells one."""
        if self._endpoint not in _USAGE_READERS or self.status != 200:
            return None
        totals = [usage.get("total_tokens", usage.get("totalTokenCount")) for usage in _usages(self._documents)]
        return totals[-1] if totals else None

    @property
    def _endpoint(self) -> str:
        path = self.path.partition("?")[0]
        return re.sub(r"^/v1beta/models/[^:/]+", "", path)

    @property
    def _documents(self) -> list[dict[str, Any]]:
        text = self.response.decode()
        if not self.is_stream:
            return [json.loads(text)]
        data = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
        return [json.loads(each) for each in data if each != "[DONE]"]


def load(directory: Path) -> list[Exchange]:
    """All exchanges of all three APIs."""
    exchanges = []
    for api in APIS:
        # Not `splitlines`: JSON strings may hold characters that Unicode takes for line ends.
        for line in (directory / f"{api}.jsonl").read_text().split("\n"):
            if line:
                fields = json.loads(line)
                fields.pop("source")
                exchanges.append(Exchange(api=api, **fields | {"response": fields["response"].encode()}))
    return exchanges


def _usages(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every usage object that is told, wherever this API puts it."""
    found = []
    for document in documents:
        nested = document.get("response") or document.get("message") or {}
        found += [holder.get(name) for holder in (document, nested) for name in ("usage", "usageMetadata")]
    return [usage for usage in found if usage]


def _openai(documents: list[dict[str, Any]]) -> Usage | None:
    usages = _usages(documents)
    if not usages:
        return None
    usage = usages[-1]
    total_input = usage.get("input_tokens", usage.get("prompt_tokens", 0))
    details = usage.get("input_tokens_details") or usage.get("prompt_tokens_details") or {}
    output_details = usage.get("output_tokens_details") or usage.get("completion_tokens_details") or {}
    cache_read, cache_write = details.get("cached_tokens"), details.get("cache_write_tokens")
    return {
        "input_tokens": total_input - (cache_read or 0) - (cache_write or 0),
        "cache_read_tokens": cache_read,
        "cache_write_tokens": cache_write,
        "output_tokens": usage.get(
            "output_tokens", usage.get("completion_tokens", usage["total_tokens"] - total_input)
        ),
        "reasoning_tokens": output_details.get("reasoning_tokens"),
    }


def _anthropic(documents: list[dict[str, Any]]) -> Usage | None:
    usages = _usages(documents)
    if not usages:
        return None
    merged: dict[str, Any] = {}
    for usage in usages:
        merged |= {name: value for name, value in usage.items() if value is not None}
    return {
        "input_tokens": merged.get("input_tokens"),
        "cache_read_tokens": merged.get("cache_read_input_tokens"),
        "cache_write_tokens": merged.get("cache_creation_input_tokens"),
        "output_tokens": merged.get("output_tokens"),
        "reasoning_tokens": (merged.get("output_tokens_details") or {}).get("thinking_tokens"),
    }


def _gemini(documents: list[dict[str, Any]]) -> Usage | None:
    usages = _usages(documents)
    if not usages:
        return None
    usage = usages[-1]
    cache_read, thoughts = usage.get("cachedContentTokenCount"), usage.get("thoughtsTokenCount")
    prompt = usage.get("promptTokenCount", 0) + usage.get("toolUsePromptTokenCount", 0)
    return {
        "input_tokens": prompt - (cache_read or 0),
        "cache_read_tokens": cache_read,
        "cache_write_tokens": None,
        "output_tokens": usage.get("candidatesTokenCount", 0) + (thoughts or 0),
        "reasoning_tokens": thoughts,
    }


def _nothing(_documents: list[dict[str, Any]]) -> Usage:
    """Counting is free with all three: what it tells is what another call would take."""
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    return dict.fromkeys(names) | {"input_tokens": 0, "output_tokens": 0}


_USAGE_READERS: Final = {
    "/v1/chat/completions": _openai,
    "/v1/responses": _openai,
    "/v1/embeddings": _openai,
    "/v1/messages": _anthropic,
    "/v1/responses/input_tokens": _nothing,
    "/v1/messages/count_tokens": _nothing,
    ":countTokens": _nothing,
    ":generateContent": _gemini,
    ":streamGenerateContent": _gemini,
    ":batchEmbedContents": _gemini,
}
