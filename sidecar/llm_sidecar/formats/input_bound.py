"""The most input tokens that a request can have, where its body alone decides that. Pure.

Every tokenizer in use works on bytes or falls back to them, so no text has more tokens than bytes. What a provider
puts around it (roles, its own words about tools) is bounded, too. What images, files and sounds take, what a provider
fetches, or what it remembers from before, nobody can tell from the body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.estimate import has_parts
from llm_sidecar.formats.fields import mappings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from llm_sidecar.formats.base import ParsedRequest

FRAME_TOKENS: Final = 64
"""For what stands around any request. What surrounds a message is less than its own JSON has bytes."""
TOOLS_TOKENS: Final = 1024
"""For the words about tools that a provider adds; Anthropic documents up to some 700."""
_OWN_TOOLS: Final = frozenset({None, "function", "custom"})
_GEMINI_OWN_TOOLS: Final = frozenset({"functionDeclarations", "function_declarations"})
_FETCHING: Final = ("web_search_options", "mcp_servers", "container", "prompt")
"""Members with which something from elsewhere becomes input."""


def input_tokens_at_most(request: ParsedRequest) -> int | None:
    """An upper bound; None where the body does not tell it."""
    if request.call.type is RequestType.TOKEN_COUNT:
        return 0
    document = request.document
    if request.stateful or has_parts(request.body) or any(document.get(name) for name in _FETCHING):
        return None
    tools = mappings(document, "tools")
    if not all(_runs_in_application(tool, request.call.api) for tool in tools):
        return None
    return len(request.body) + FRAME_TOKENS + (TOOLS_TOKENS if tools else 0)


def _runs_in_application(tool: Mapping[str, Any], api: API) -> bool:
    if api is API.GEMINI:
        return _GEMINI_OWN_TOOLS.issuperset(tool)
    return tool.get("type") in _OWN_TOOLS
