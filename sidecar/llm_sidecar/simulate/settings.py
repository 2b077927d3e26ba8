"""How a simulator is set up, by the command line and by tests alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from llm_sidecar.simulate.errors import Family

DEFAULT_PORT: Final = 9900
DEFAULT_MODELS: Final[Mapping[Family, tuple[str, ...]]] = MappingProxyType(
    {
        Family.OPENAI: ("gpt-5", "gpt-5-mini", "text-embedding-3-small", "text-embedding-3-large"),
        Family.ANTHROPIC: ("claude-opus-4-8", "claude-sonnet-4-6", "claude-haiku-4-5"),
        Family.GEMINI: ("gemini-3-flash-preview", "gemini-2.5-flash", "gemini-embedding-2"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """Everything that a simulator needs to know; the defaults ask for no key and break nothing."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """0 takes any free port."""
    faults: str = ""
    """Holds for every request; path and header add to it."""
    required_keys: tuple[str, ...] = ()
    """`KEY` for all three APIs, or `openai=KEY`, `anthropic=KEY`, `gemini=KEY`; several may be right."""
    models: Mapping[Family, tuple[str, ...]] = field(default_factory=lambda: DEFAULT_MODELS)
    """What the model lists tell; any other name answers as well, but for those that begin with `missing-`."""
    seed: int = 0
    """Of the ids in answers."""
    ledger_size: int = 10_000
    maximum_body_bytes: int = 64 * 1024 * 1024

    def keys_of(self, family: Family) -> frozenset[str]:
        """Return the keys that open this API; none means that none is asked for."""
        names = {str(each) for each in Family}
        keys = set()
        for told in self.required_keys:
            name, equals, key = told.partition("=")
            if not equals or name not in names:
                keys.add(told)
            elif name == family:
                keys.add(key)
        return frozenset(keys)
