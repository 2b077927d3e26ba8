"""What to do with the leftovers of another language: each is dropped by its name, or refused; none is passed over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from llm_sidecar.translation.answer import Answer
from llm_sidecar.translation.conversation import Conversation, Tool
from llm_sidecar.translation.losses import Losses, Untranslatable
from llm_sidecar.translation.parts import NOTHING, Document, Native, Part, Thinking, ToolCall, ToolResult

TURN: Final = "messages"
"""Names of places, the same for all languages: `where` below, and in a decoder's `harmless`."""
PART: Final = "messages.content"
CALL: Final = "messages.tool_calls"
RESULT: Final = "messages.tool_results"
SYSTEM: Final = "system"
TOOL: Final = "tools"
TOOL_CHOICE: Final = "tool_choice"
OUTPUT: Final = "output"
REASONING: Final = "reasoning"


def check_extra(extra: Document, *, where: str, harmless: frozenset[str], losses: Losses) -> None:
    """Tell of every field in the `extra` of a foreign request. Raises `Untranslatable` for one that is not `harmless`.

    `where`: the place in the application's document without indexes, such as `messages.content`; empty for the
    document itself. A field's name is `where.field`. A `null` says nothing, and a name that begins with
    `$` only how something was spelled: both go without a word.
    """
    for field, value in extra.items():
        if value is None or field.startswith("$"):
            continue
        name = f"{where}.{field}" if where else field
        if name not in harmless:
            raise Untranslatable(f"`{name}`")
        losses.drop(name)


def drop_extra(extra: Document, *, where: str, losses: Losses) -> None:
    """Tell of every field in the `extra` of a foreign answer, which is given already: nothing is refused."""
    for field, value in extra.items():
        if value is not None and not field.startswith("$"):
            losses.drop(f"{where}.{field}" if where else field)


def leave_out(native: Native, losses: Losses) -> None:
    """Tell of a part that only another language knows. Raises `Untranslatable` where the request needs it."""
    if not native.is_harmless:
        raise Untranslatable(f"`{native.kind}`")
    losses.drop(native.kind)


def check_conversation(conversation: Conversation, losses: Losses) -> None:
    """`check_extra` for every node of a foreign request but thinking, which no other language takes along anyhow."""

    def check(extra: Document, where: str) -> None:
        if extra:
            check_extra(extra, where=where, harmless=conversation.harmless, losses=losses)

    check(conversation.extra, "")
    for text in conversation.system:
        check(text.extra, SYSTEM)
    for turn in conversation.turns:
        check(turn.extra, TURN)
        for where, extra in _extras(turn.parts):
            check(extra, where)
    for tool in conversation.tools:
        check(tool.extra if isinstance(tool, Tool) else NOTHING, TOOL)
    for where, node in (
        (TOOL_CHOICE, conversation.tool_choice),
        (OUTPUT, conversation.output),
        (REASONING, conversation.reasoning),
    ):
        check(node.extra if node is not None else NOTHING, where)


def drop_answer_extras(answer: Answer, losses: Losses) -> None:
    """`drop_extra` for every node of a foreign answer but its usage, whose own words are not carried over anyhow."""
    drop_extra(answer.extra, where="", losses=losses)
    for choice in answer.choices:
        drop_extra(choice.extra, where="choices", losses=losses)
        for where, extra in _extras(choice.parts):
            drop_extra(extra, where=where, losses=losses)


def _extras(parts: Iterable[Part]) -> Iterator[tuple[str, Document]]:
    for part in parts:
        if isinstance(part, ToolCall):
            yield CALL, part.extra
        elif isinstance(part, ToolResult):
            yield RESULT, part.extra
            for content in part.content:
                yield PART, content.extra
        elif not isinstance(part, Thinking | Native):
            yield PART, part.extra
