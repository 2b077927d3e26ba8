from __future__ import annotations

import pytest

from llm_sidecar.contract.keys import quota_counters, quota_ledger
from llm_sidecar.redis_connection import Parsed, ServerError
from llm_sidecar.redis_slots import nodes_of, probe_for, redirected, slot_map, slot_of
from llm_sidecar.store import StoreUnavailable

ASKED = ("10.0.0.9", 7000)


def test_slots_are_those_of_the_specification() -> None:
    assert slot_of("123456789") == 0x31C3  # the specification's own example
    assert slot_of("{user1000}.following") == slot_of("{user1000}.followers") == slot_of("user1000")
    assert slot_of("foo{}{bar}") != slot_of("bar")  # an empty tag is none
    assert slot_of("foo{{bar}}zap") == slot_of("{bar")
    assert slot_of("foo{bar}{zap}") == slot_of("bar")
    assert slot_of("foo{bar") != slot_of("bar")
    assert slot_of(quota_counters("ns/team")) == slot_of(quota_ledger("ns/team")) == slot_of("ns/team")


def test_a_map_is_read_with_names_addresses_and_nodes_that_do_not_know_themselves() -> None:
    owners = slot_map(
        [
            [0, 99, [b"node-1.redis", 6379, b"id", []], [b"replica", 6379, b"id"]],
            [100, 199, [None, 7000, b"id"]],
            [200, 299, [b"", 7001, b"id"]],
            [300, 399, [b"?", 7002, b"id"]],
        ],
        asked=ASKED,
    )

    assert nodes_of(owners) == {("node-1.redis", 6379): 100, ASKED: 100, ("10.0.0.9", 7001): 100}
    assert owners[300] is owners[400] is None


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ([], "cluster"),
        (b"no list", "cluster"),
        (ServerError("ERR This instance has cluster support disabled"), "cluster"),
        (ServerError("NOAUTH log in"), "authentication"),
        (ServerError("LOADING"), "loading"),
        ([[0, 16384, [b"h", 1, b"id"]]], "protocol"),
        ([[0, 1, [b"h", 70000, b"id"]]], "protocol"),
        ([[b"0", 1, [b"h", 1]]], "protocol"),
    ],
)
def test_what_is_no_map_is_refused_by_reason(reply: Parsed, reason: str) -> None:
    with pytest.raises(StoreUnavailable, match=reason) as caught:
        slot_map(reply, asked=ASKED)
    assert not caught.value.maybe_executed


def test_redirections_name_a_slot_and_an_address() -> None:
    assert redirected("3999 10.0.0.1:6381", asked=ASKED) == (3999, ("10.0.0.1", 6381))
    assert redirected("3999 2001:db8::1:6381", asked=ASKED) == (3999, ("2001:db8::1", 6381))
    assert redirected("3999 :6381", asked=ASKED) == (3999, ("10.0.0.9", 6381))


@pytest.mark.parametrize("text", ["", "3999", "x h:1", "3999 h:x", "3999 ?:6381", "16384 h:1", "1 h:0", "1 h:65536"])
def test_a_redirection_that_leads_nowhere_is_a_failure_of_the_cluster(text: str) -> None:
    with pytest.raises(StoreUnavailable, match="cluster"):
        redirected(text, asked=ASKED)


def test_an_address_in_a_redirection_is_never_shown() -> None:
    error = ServerError("MOVED 3999 10.0.0.1:6381")

    assert error.redirection == "3999 10.0.0.1:6381"
    assert "10.0.0.1" not in f"{error} {error!r}"


def test_a_node_with_one_slot_is_probed_there() -> None:
    owners = [("other", 1)] * 16384
    owners[12182] = ("rare", 1)

    key = probe_for(("rare", 1), owners).split(b"\r\n")[4]

    assert slot_of(key.decode()) == 12182
