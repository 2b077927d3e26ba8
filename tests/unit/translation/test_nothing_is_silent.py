"""The check that nothing is dropped silently finds what it is there to find."""

from __future__ import annotations

from typing import Any

import orjson

from tests.unit.translation.nothing_is_silent import Account
from tests.unit.translation.pairs import Fate, Outcome

DOCUMENT = {"text": "Hi", "limit": 5, "strict": True, "old": None, "tools": [{"name": "f"}, {"name": "g"}]}


def _account(*losses: str, carried: tuple[str, ...] = (), structure: tuple[str, ...] = ()) -> Account:
    def bring(document: Any) -> Outcome:
        written = orjson.dumps({name: document.get(name) for name in carried})
        return Outcome(Fate.CARRIED, losses=losses, written=written)

    account = Account()
    account.take(DOCUMENT, bring, structure=structure)
    return account


def test_a_leaf_that_is_nowhere_is_found() -> None:
    assert [each.split()[0] for each in _account(carried=("text", "strict")).silent] == [
        "limit",
        "tools[].name",
        "tools[].name",
    ]


def test_a_leaf_may_be_carried_named_or_structure() -> None:
    account = _account("request.limit", carried=("text", "strict"), structure=(r"tools\[\]\.name",))
    assert (account.carried, account.named, account.structure, account.silent) == (2, 1, 2, [])


def test_a_value_that_stands_in_the_target_for_another_reason_does_not_count() -> None:
    def bring(_: Any) -> Outcome:
        return Outcome(Fate.CARRIED, written=b'{"text":"Hi","limit":5}')

    account = Account()
    account.take({"text": "Hi", "limit": 5}, bring, structure=())
    assert len(account.silent) == 2


def test_what_is_refused_needs_no_further_word() -> None:
    account = Account()
    account.take(DOCUMENT, lambda _: Outcome(Fate.REFUSED, "no"), structure=())
    assert (account.carried, account.silent) == (0, [])
