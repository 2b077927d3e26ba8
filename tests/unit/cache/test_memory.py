"""Answers in memory: bounded in bytes and in time."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.cache.entries import CachedAnswer
from llm_sidecar.cache.memory import LIFETIME_SECONDS, MAX_REMEMBERED_BYTES, OVERHEAD_BYTES, Memory

ANSWER = CachedAnswer(b"x" * 100, "", None, 0.0, 60)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_is_remembered_for_its_moment() -> None:
    clock = Clock()
    memory = Memory(clock=clock)
    memory.put("a", ANSWER)
    clock.now = LIFETIME_SECONDS
    assert memory.get("a") is ANSWER
    clock.now = LIFETIME_SECONDS + 0.1
    assert memory.get("a") is None
    assert (len(memory), memory.size_bytes) == (0, 0)


def test_being_asked_for_does_not_lengthen_it() -> None:
    clock = Clock()
    memory = Memory(clock=clock)
    memory.put("a", ANSWER)
    for _ in range(30):
        clock.now += 0.1
        memory.get("a")
    assert memory.get("a") is None


def test_what_was_not_asked_for_longest_goes_first() -> None:
    memory = Memory(max_bytes=2 * (100 + OVERHEAD_BYTES))
    memory.put("a", ANSWER)
    memory.put("b", ANSWER)
    memory.get("a")
    memory.put("c", ANSWER)
    assert [digest for digest in "abc" if memory.get(digest)] == ["a", "c"]


def test_what_is_too_large_is_not_remembered() -> None:
    memory = Memory()
    memory.put("a", replace(ANSWER, body=bytes(MAX_REMEMBERED_BYTES + 1)))
    assert memory.get("a") is None


def test_a_stream_is_made_once() -> None:
    memory = Memory()
    made: list[int] = []

    def make() -> bytes:
        made.append(1)
        return b"stream"

    kind = (False, True)
    assert memory.stream("a", ANSWER, kind, make) == b"stream"  # not remembered: made each time
    memory.put("a", ANSWER)
    assert [memory.stream("a", ANSWER, kind, make) for _ in range(3)] == [b"stream"] * 3
    assert len(made) == 2
    assert memory.stream("a", ANSWER, (False, False), lambda: None) is None
    assert memory.size_bytes == 100 + OVERHEAD_BYTES + 6


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 3000), st.sampled_from(["put", "get", "stream", "clear"]))
    )
)
def test_it_is_never_larger_than_its_bound(steps: list[tuple[str, int, str]]) -> None:
    memory = Memory(max_bytes=6000)
    for digest, size_bytes, step in steps:
        if step == "put":
            memory.put(digest, replace(ANSWER, body=bytes(size_bytes)))
        elif step == "get":
            memory.get(digest)
        elif step == "stream":
            memory.stream(digest, memory.get(digest) or ANSWER, (False, False), lambda: bytes(size_bytes))  # noqa: B023 - called at once
        else:
            memory.clear()
        assert memory.size_bytes <= 6000
        assert (memory.size_bytes == 0) == (len(memory) == 0)


def test_a_stream_is_never_that_of_an_earlier_answer() -> None:
    memory = Memory()
    kind = (False, False)
    for body in (b"x", bytes(MAX_REMEMBERED_BYTES + 1)):
        answer = replace(ANSWER, body=body)
        memory.put("a", answer)
        assert memory.stream("a", answer, kind, lambda: b"of %d" % len(body)) == b"of %d" % len(body)  # noqa: B023
    assert memory.get("a") is None
