"""Which requests mean the same. The whole request counts, but for a short list of what cannot change an answer.

A list of what may differ fails safe: a field that nobody thought of makes a miss, never a wrong answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from llm_sidecar.formats.base import ParsedRequest

KEY_VERSION: Final = 1
"""Part of every key: raise it when the meaning of a key changes, and old entries are simply never found again."""

IGNORED_MEMBERS: Final = frozenset(
    {"stream", "stream_options", "user", "safety_identifier", "metadata", "prompt_cache_key"}
)
"""Top-level members that say how, or on whose behalf, an answer is delivered; never what it is."""

SEMANTIC_HEADERS: Final = ("anthropic-version", "anthropic-beta", "openai-beta")
"""Headers that change what the same body means."""


def cache_digest(
    request: ParsedRequest, headers: Mapping[str, str], query: str, *, provider: str, model: str
) -> str | None:
    """The digest under which an answer by `model` of `provider` to this request is stored; None if it has none."""
    document = request.document
    said = {name: document[name] for name in document if name not in IGNORED_MEMBERS}
    meaning = [
        KEY_VERSION,
        request.call.api,
        request.call.path,
        query,
        provider,
        model,
        [headers.get(name) for name in SEMANTIC_HEADERS],
        said,
    ]
    try:
        return sha256(orjson.dumps(meaning, option=orjson.OPT_SORT_KEYS)).hexdigest()
    except orjson.JSONEncodeError:  # nested deeper than it writes, though not deeper than it reads
        return None
