"""The provider types that come with this package, by name and place.

They are not found by entry points, as those of other packages are: that would read the metadata of everything that is
installed, at each start of each pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

BUILT_IN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Anthropic": "llm_sidecar.providers.anthropic:AnthropicProvider",
        "Google": "llm_sidecar.providers.google:GoogleProvider",
        "OpenAI": "llm_sidecar.providers.openai:OpenAIProvider",
    }
)
"""An LLMProvider's `type` to `module:class`; imported when first needed."""
