"""What applications and providers may send instead of what they should."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

_NAMES: Final = ("type", "text", "name", "new")
ANYTHING: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "x", "function"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=2),
    max_leaves=4,
)
"""A JSON value, of names and words that may well mean something where it stands."""


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every member of every object and array within: its holder, and its name or number."""
    found: list[tuple[Any, Any]] = []
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        found += [(value, name), *places(member)]
    return found
