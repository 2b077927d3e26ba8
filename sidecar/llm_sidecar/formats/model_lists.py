"""`GET /v1/models` as each SDK expects it, from configured names: no provider is asked.

What the configuration does not know (when a model was made, who owns it) is told by fixed values, so that the same
configuration always gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from llm_sidecar.formats.recognise import Family

_OWNER: Final = "llm-sidecar"
# OpenAI's `created` is a required number and Anthropic's `created_at` a required date; both mean "unknown" here.
_CREATED: Final = 0
_CREATED_AT: Final = "1970-01-01T00:00:00Z"
_GEMINI_METHODS: Final = ("generateContent", "countTokens", "embedContent", "batchEmbedContents")


def model_list(family: Family, names: Sequence[str]) -> bytes:
    """The whole list in one page, whatever page size was asked for, in the order given."""
    entries = [_entry(family, name) for name in names]
    match family:
        case Family.OPENAI:
            return orjson.dumps({"object": "list", "data": entries})
        case Family.ANTHROPIC:
            first, last = (names[0], names[-1]) if names else (None, None)
            return orjson.dumps({"data": entries, "has_more": False, "first_id": first, "last_id": last})
        case Family.GEMINI:
            return orjson.dumps({"models": entries})


def one_model(family: Family, name: str) -> bytes:
    """A single model; whether it exists is the caller's to know."""
    return orjson.dumps(_entry(family, name))


def _entry(family: Family, name: str) -> Mapping[str, Any]:
    match family:
        case Family.OPENAI:
            return {"id": name, "object": "model", "created": _CREATED, "owned_by": _OWNER}
        case Family.ANTHROPIC:
            return {"type": "model", "id": name, "display_name": name, "created_at": _CREATED_AT}
        case Family.GEMINI:
            return {
                "name": f"models/{name}",
                "displayName": name,
                "supportedGenerationMethods": list(_GEMINI_METHODS),
            }
