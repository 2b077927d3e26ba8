"""How large a body is once it is parsed, told before it is."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.formats import parsed_size
from llm_sidecar.formats.parsed_size import estimated_parsed_bytes

MEBI = 1024 * 1024
BUDGET_BYTES = 64 * MEBI


def _really(value: object) -> int:
    """The sizes of all objects; keys and small numbers count once, as the parser shares them."""
    seen: dict[int, int] = {}
    remaining = [value]
    while remaining:
        one = remaining.pop()
        seen[id(one)] = sys.getsizeof(one)
        if isinstance(one, dict):
            remaining += one.values()
        elif isinstance(one, list):
            remaining += one
    return sum(seen.values())


def _many(value: bytes, number: int = 20_000) -> bytes:
    return b"[%b]" % b",".join([value] * number)


@pytest.mark.parametrize(
    "value",
    [
        b"[]",
        b"{}",
        b"1000",
        b"0.25",
        b'"some text"',
        b"[300]",
        b'{"a":1000}',
        b'{"a":1000,"b":"text"}',
        b"[[[[[[1000]]]]]]",
        b'{"a":{"b":{"c":[]}}}',
        b'{"type":"text","text":"a line of a conversation, and some more of it","index":1000}',
    ],
)
def test_the_estimate_is_near_the_truth(value: bytes) -> None:
    body = _many(value)
    ratio = estimated_parsed_bytes(body) / _really(json.loads(body))
    assert 0.8 < ratio < 3.6  # an object without members counts like one with four


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("a" * 500_000, 1),
        ("\u6f22" * 500_000, 2),
        ("a" * 500_000 + "\U0001f600", 4),
        ("\U0001f600" + "a" * 500_000, 4),
        ("\u6f22" + "a" * 500_000, 2),
    ],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_one_wide_character_widens_its_whole_string(text: str, width: int, ascii_only: bool) -> None:
    body = json.dumps({"a": text, "b": "c" * 200_000}, ensure_ascii=ascii_only).encode()
    expected = width * len(text) + 200_000
    assert expected <= estimated_parsed_bytes(body) < expected * 1.01


@pytest.mark.parametrize("content", ['[[{"a":', '\\"[,', "\\\\", '\\"', ",,,,::::"])
@pytest.mark.parametrize("shift", range(4))
def test_what_stands_within_a_string_is_text(content: str, shift: int) -> None:
    """Whatever of it stands at the edge of what is looked at in one step."""
    body = b" " * shift + json.dumps({"a": content * 60_000}).encode()
    assert estimated_parsed_bytes(body) < len(body) * 1.01 + 300


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    ),
    st.integers(5, 40),
    st.booleans(),
)
def test_the_steps_in_which_a_body_is_read_change_next_to_nothing(value: Any, step: int, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    whole = estimated_parsed_bytes(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsed_size, "_WINDOW_BYTES", step)
        in_steps = estimated_parsed_bytes(body)
    # Sums that are bounded below by zero are taken per step; a character that is cut counts more than once.
    assert in_steps >= 0.5 * whole - 200
    assert in_steps <= 4 * whole + 64 * (len(body) // step + 1)


@given(st.binary(max_size=300))
def test_random_bytes_have_some_size(body: bytes) -> None:
    assert estimated_parsed_bytes(body) >= 0


def test_counting_ends_once_it_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    windows: list[int] = []
    read = parsed_size._Count.read

    def spy(self: parsed_size._Count, window: bytes) -> None:
        windows.append(len(window))
        read(self, window)

    monkeypatch.setattr(parsed_size._Count, "read", spy)
    assert estimated_parsed_bytes(b"[" + b"[]," * (8 * MEBI), enough_bytes=BUDGET_BYTES) > BUDGET_BYTES
    assert sum(windows) < 3 * MEBI


def _tool(number: int) -> dict[str, Any]:
    leaf = {"type": "string", "description": "what this field of the tool means, in words", "enum": ["one", "two"]}

    def level(depth: int) -> dict[str, Any]:
        inner = leaf if depth == 0 else level(depth - 1)
        properties = {f"field_{number}_{depth}_{index}": inner for index in range(5)}
        return {"type": "object", "properties": properties, "required": ["a", "b"], "additionalProperties": False}

    return {"type": "function", "function": {"name": f"tool_{number}", "parameters": level(2)}}


@pytest.mark.parametrize(
    "document",
    [
        {"input": list(range(100_000, 1_100_000))},
        {"input": [[100_000] * 400] * 2048},
        {"input": ["word " * 1000] * 2048},
        {"messages": [{"content": [{"image_url": {"url": "A" * (20 * MEBI)}}, {"text": "\U0001f600"}]}]},
        {"tools": [_tool(number) for number in range(590)]},
        {"messages": [{"content": json.dumps([_tool(number) for number in range(500)])}]},
    ],
    ids=["a million integers", "arrays of integers", "texts", "an image", "schemas", "json in a text"],
)
def test_what_real_applications_send_at_most_fits(document: dict[str, Any]) -> None:
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(body) > 4_000_000
    assert estimated_parsed_bytes(body) < BUDGET_BYTES
