"""What to do with the leftovers of another language: each is dropped by its name, or refused; none is passed over."""

from __future__ import annotations

from llm_sidecar.translation.losses import Losses, Untranslatable
from llm_sidecar.translation.parts import Document


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
