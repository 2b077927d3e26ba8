"""How an answer lies in the store."""

from __future__ import annotations

import random
import time
import zlib
from dataclasses import replace
from typing import Any

import orjson
import pytest

from llm_sidecar.cache.entries import (
    COMPRESSED_FROM_BYTES,
    MAX_ENTRY_BYTES,
    CachedAnswer,
    decode_entry,
    encode_entry,
)
from llm_sidecar.contract.fields import MAX_TTL_SECONDS
from llm_sidecar.formats.base import Usage

ANSWER = CachedAnswer(b'{"a":\n1}', "application/json; charset=utf-8", Usage(1, None, 0, 2, None), 1000.5, 60)
EPOCHS = (0, 3, 0, 1)
LONG = orjson.dumps({"text": "so it goes on and on " * 1000})
RANDOM = random.Random(7).randbytes(COMPRESSED_FROM_BYTES)


_NO_COUNTS: tuple[Any, ...] = ("x", -5, 1.0, True, [], 2**40)


def encode(answer: CachedAnswer = ANSWER) -> bytes:
    return encode_entry("ns/team", "d", EPOCHS, answer)


def decode(
    entry: bytes, *, team: str = "ns/team", digest: str = "d", epochs: tuple[int, ...] = EPOCHS
) -> CachedAnswer | None:
    return decode_entry(team, digest, epochs, entry)


def with_head(entry: bytes, **changes: Any) -> bytes:
    head, _, body = entry.partition(b"\n")
    return orjson.dumps({**orjson.loads(head), **changes}) + b"\n" + body


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER,
        replace(ANSWER, body=b"", content_type="a", usage=None, asked_at=0.0, ttl_seconds=0),
        replace(ANSWER, body=bytes(256), dropped=("logprobs", "é")),
        replace(ANSWER, body=LONG),
        replace(ANSWER, body=RANDOM),
    ],
    ids=["usual", "empty", "binary", "long", "random"],
)
def test_what_is_written_is_read_again(answer: CachedAnswer) -> None:
    assert decode(encode(answer)) == answer


def test_what_shrinks_is_compressed_and_nothing_else() -> None:
    assert len(encode(replace(ANSWER, body=LONG))) < len(LONG) / 5
    assert RANDOM in encode(replace(ANSWER, body=RANDOM))
    assert ANSWER.body in encode()


@pytest.mark.parametrize(
    "other",
    [{"team": "ns/other"}, {"digest": "e"}, {"epochs": (0, 4, 0, 1)}, {"epochs": (0, 3, 0)}, {"epochs": ()}],
    ids=str,
)
def test_an_entry_for_another_is_a_miss(other: dict[str, Any]) -> None:
    assert decode(encode(), **other) is None


@pytest.mark.parametrize("body", [ANSWER.body, LONG[:COMPRESSED_FROM_BYTES]], ids=["plain", "compressed"])
def test_a_cut_entry_is_a_miss_wherever_it_is_cut(body: bytes) -> None:
    entry = encode(replace(ANSWER, body=body))
    assert all(decode(entry[:length]) is None for length in range(len(entry)))
    assert decode(entry + b"x") is None


def test_a_changed_byte_anywhere_in_the_body_is_a_miss() -> None:
    for body in (ANSWER.body, LONG[:COMPRESSED_FROM_BYTES]):
        entry = encode(replace(ANSWER, body=body))
        start = entry.index(b"\n") + 1
        changed = (entry[:at] + bytes([entry[at] ^ 1]) + entry[at + 1 :] for at in range(start, len(entry)))
        assert all(decode(one) is None for one in changed)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 4},
        {"version": None},
        {"usage": {"new_kind": 1}},
        {"asked_at": "x"},
        {"asked_at": None},
        {"ttl_seconds": "x"},
        {"epochs": None},
        {"epochs": "0301"},
        {"encoding": "zstd"},
        {"encoding": "zlib"},
        {"bytes": 1},
        {"bytes": None},
        {"crc32": 0},
        {"dropped": None},
        {"dropped": "abc"},
        {"dropped": [1]},
        {"dropped": ["logprobs\r\nset-cookie: a=b"]},
        *({"usage": {"input_tokens": wrong, "output_tokens": 1}} for wrong in _NO_COUNTS),
        {"usage": {"reasoning_tokens": -1}},
        {"usage": []},
        {"usage": 7},
        {"asked_at": -1.0},
        {"asked_at": True},
        {"asked_at": 10**12},
        *({"ttl_seconds": seconds} for seconds in (-1, 60.0, True, None, MAX_TTL_SECONDS + 1, 10**15)),
        *({"content_type": given} for given in ("", "a/b\r\nset-cookie: a=b", "a/b\n", "é", "a" * 300, None, 7)),
        {"bytes": -1},
        {"bytes": "9"},
    ],
    ids=str,
)
def test_an_entry_that_is_not_quite_ours_is_a_miss(changes: dict[str, Any]) -> None:
    assert decode(with_head(encode(), **changes)) is None


def test_an_entry_from_the_future_is_a_miss_unless_clocks_may_differ_by_that() -> None:
    """Else it were never old, and no purge by age would reach it."""
    assert decode(encode(replace(ANSWER, asked_at=time.time() + 30))) is not None
    assert decode(encode(replace(ANSWER, asked_at=time.time() + 120))) is None


def test_the_longest_time_that_can_be_configured_is_read() -> None:
    assert decode(encode(replace(ANSWER, ttl_seconds=MAX_TTL_SECONDS))) is not None


@pytest.mark.parametrize("entry", [b"", b"\n", b"null\n", b"[]\n", b"{}\n", b"\xff\n", b"{}"])
def test_garbage_is_a_miss(entry: bytes) -> None:
    assert decode(entry) is None


def test_a_small_entry_that_claims_to_be_huge_takes_no_memory() -> None:
    bomb = zlib.compress(bytes(64 * MAX_ENTRY_BYTES), 9)
    head = orjson.loads(encode().partition(b"\n")[0])
    for size_bytes in (64 * MAX_ENTRY_BYTES, MAX_ENTRY_BYTES, 100):
        changed = {**head, "encoding": "zlib", "bytes": size_bytes, "crc32": zlib.crc32(bomb)}
        assert decode(orjson.dumps(changed) + b"\n" + bomb) is None


def test_the_age_is_never_negative() -> None:
    assert ANSWER.age_seconds(900.0) == 0
    assert ANSWER.age_seconds(1100.7) == 100
