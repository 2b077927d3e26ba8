"""What a translation leaves out, told; and what it must not leave out, refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

# What is left out by more than one language: one name for each, whoever leaves it out.
DETAIL: Final = "messages.content.detail"
FILE_NAME: Final = "messages.content.name"
STRICT_OUTPUT: Final = "output.strict"
STRICT_TOOL: Final = "tools.strict"
SYSTEM_POSITION: Final = "messages.system_position"
"""Instructions stood behind the first message, and stand before it now."""
THINKING_SIGNATURE: Final = "thinking.signature"


class Untranslatable(Exception):
    """The other language cannot say something without which the answer would be another one.

    The message names it, for the application's author, and quotes nothing of its content.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Undecodable(ValueError):
    """Not a document of this language. The message names the field and quotes nothing of its content."""


@dataclass(slots=True)
class Losses:
    """Collects the names of what was dropped because it is harmless, each once, in order."""

    names: list[str] = field(default_factory=list)

    def drop(self, name: str) -> None:
        """`name` as the application spelled it, such as `logprobs` or `messages.name`."""
        if name not in self.names:
            self.names.append(name)
