"""Which headers travel."""

from __future__ import annotations

import pytest

from llm_sidecar.headers import HOP_BY_HOP, NEVER_RETURNED, NEVER_SENT, to_application, to_provider


@pytest.mark.parametrize("name", sorted(NEVER_SENT))
def test_a_header_that_stops_here_is_not_sent_however_it_is_written(name: str) -> None:
    assert to_provider([(name.title(), "x"), (name.upper(), "x")]) == [("Accept-Encoding", "identity")]


@pytest.mark.parametrize("name", sorted(NEVER_RETURNED))
def test_a_header_that_stops_here_is_not_returned_however_it_is_written(name: str) -> None:
    assert to_application([(name.title(), "x"), (name.upper(), "x")]) == []


def test_everything_else_travels_in_order_and_doubled() -> None:
    headers = [("X-B", "1"), ("x-a", "2"), ("X-B", "3"), ("anthropic-beta", "b")]
    assert to_provider(headers) == [*headers, ("Accept-Encoding", "identity")]
    assert to_application(headers) == headers


def test_what_connection_names_is_of_this_connection_only() -> None:
    headers = [("X-Hop", "1"), ("Connection", "close, X-Hop"), ("x-other", "2"), ("Connection", "X-OTHER"), ("a", "b")]
    assert to_provider(headers) == [("a", "b"), ("Accept-Encoding", "identity")]


def test_our_own_headers_cannot_be_forged_from_either_side() -> None:
    assert to_provider([("X-LLM-Sidecar-Team", "x")]) == [("Accept-Encoding", "identity")]
    assert to_application([("X-LLM-Sidecar-Cache", "hit")]) == []


def test_hop_by_hop_headers_stop_in_both_directions() -> None:
    assert HOP_BY_HOP <= NEVER_SENT
    assert HOP_BY_HOP <= NEVER_RETURNED
