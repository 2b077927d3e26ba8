"""How an answer lies in the store."""

from __future__ import annotations

import random
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
from llm_sidecar.formats.base import Usage

ANSWER = CachedAnswer(b'{"a":\n1}', "application/json; charset=utf-8", Usage(1, None, 0, 2, None), 1000.5, 60)
EPOCHS = (0, 3, 0, 1)
LONG = orjson.dumps({"text": "so it goes on and on " * 1000})
RANDOM = random.Random(7).randbytes(COMPRESSED_FROM_BYTES)


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
        replace(ANSWER, body=b"", content_type="", usage=None, asked_at=0.0, ttl_seconds=0),
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
    ],
    ids=str,
)
def test_an_entry_that_is_not_quite_ours_is_a_miss(changes: dict[str, Any]) -> None:
    assert decode(with_head(encode(), **changes)) is None


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
