"""The last requests are remembered, and no more of them."""

from __future__ import annotations

from llm_sidecar.explain import KEPT_REQUESTS, Explanations


def test_a_request_is_found_by_its_id_alone() -> None:
    kept = Explanations()
    kept.keep("a-1", b"{}\n")

    assert kept.find("a-1") == b"{}"
    assert kept.find("a-2") is None
    assert kept.find("") is None


def test_the_oldest_is_forgotten_first() -> None:
    kept = Explanations(limit=2)
    for number in range(3):
        kept.keep(f"a-{number}", b"{}\n")

    assert [kept.find(f"a-{number}") is not None for number in range(3)] == [False, True, True]


def test_a_thousand_are_kept_unless_told_otherwise() -> None:
    kept = Explanations()
    for number in range(KEPT_REQUESTS + 1):
        kept.keep(f"a-{number}", b"{}\n")

    assert KEPT_REQUESTS == 1000
    assert kept.find("a-0") is None
    assert kept.find("a-1") == b"{}"
