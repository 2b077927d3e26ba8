"""Reading a body once, and changing it without touching another byte."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.formats import json_body
from llm_sidecar.formats.base import MalformedRequest, Splice
from llm_sidecar.formats.json_body import apply_splices, elements, insert_member, member, members, parse_object

_SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
_KEYS = st.text(max_size=8) | st.sampled_from(
    ["model", "stream_options", "a", 'quo"te', "back\\slash", "\u00e9", "a/b"]
)
_DOCUMENTS = st.dictionaries(_KEYS, _VALUES, max_size=6)
_SPACES = st.sampled_from([None, 1, "\t"])


def _encode(document: Any, indent: Any, *, ascii_only: bool) -> bytes:
    return json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()


@given(_DOCUMENTS, _SPACES, st.booleans())
def test_every_member_is_found_where_it_stands(document: dict[str, Any], indent: Any, ascii_only: bool) -> None:
    body = b" \n" + _encode(document, indent, ascii_only=ascii_only) + b" "

    found = {one.key: json.loads(body[one.start : one.end]) for one in members(body)}

    assert found == document
    parsed = parse_object(body)
    for key, value in document.items():
        one = member(body, parsed, key)
        assert one is not None
        assert json.loads(body[one.start : one.end]) == value
    assert member(body, parsed, "a key that nobody has") is None


@given(st.lists(_VALUES, max_size=6), _SPACES)
def test_every_element_is_found_where_it_stands(values: list[Any], indent: Any) -> None:
    body = _encode(values, indent, ascii_only=False)

    assert [json.loads(body[start:end]) for start, end in elements(body, 0)] == values


@given(_DOCUMENTS.filter(bool), _SPACES, st.booleans(), st.data(), _SCALARS)
def test_a_replaced_value_changes_nothing_else(
    document: dict[str, Any], indent: Any, ascii_only: bool, data: st.DataObject, value: Any
) -> None:
    body = _encode(document, indent, ascii_only=ascii_only)
    key = data.draw(st.sampled_from(sorted(document)))
    place = member(body, parse_object(body), key)
    assert place is not None
    replacement = json.dumps(value).encode()

    changed = apply_splices(body, [Splice(place.start, place.end, replacement)])

    assert json.loads(changed) == {**document, key: value}
    assert changed == body[: place.start] + replacement + body[place.end :]


@given(_DOCUMENTS, _SPACES)
def test_an_inserted_member_changes_nothing_else(document: dict[str, Any], indent: Any) -> None:
    body = b"\n " + _encode(document, indent, ascii_only=True)
    splice = insert_member(body, 0, "new key", b'{"x":1}')

    changed = apply_splices(body, [splice])

    assert json.loads(changed) == {"new key": {"x": 1}, **document}
    assert changed.replace(splice.replacement, b"", 1) == body


def test_without_splices_the_very_same_bytes_go_on() -> None:
    body = b'{"a": 1}'

    assert apply_splices(body, []) is body


@pytest.mark.parametrize(
    "splices", [[Splice(3, 2, b"")], [Splice(2, 4, b""), Splice(3, 5, b"")], [Splice(0, 99, b"")], [Splice(-1, 1, b"")]]
)
def test_splices_that_overlap_or_leave_the_body_are_a_mistake_of_ours(splices: list[Splice]) -> None:
    with pytest.raises(ValueError, match="splices"):
        apply_splices(b"0123456789", splices)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","x":{"model":1},"model":"b"}',
        rb'{"model":"a","\u006dodel":"b"}',
        rb'{"\u006Dodel":"a","model":"b"}',
        b'{ "model" : "a" , "model" : "a" }',
    ],
)
def test_a_doubled_key_is_refused_by_name(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match="'model'"):
        parse_object(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a/b":1,"a\\/b":2}',
        b'{"a\\nb":1,"a\\u000ab":2}',
        '{"é":1,"\\u00e9":2}'.encode(),
        b'{"":1,"":2}',
        b'{"' + b"k" * 100 + b'":1,"' + b"k" * 100 + b'":2}',
    ],
)
def test_a_key_doubled_in_another_spelling_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match="more than once"):
        parse_object(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"user":"user","messages":[{"role":"user"}]}',
        b'{"text":{"text":"text"},"x":"\\"text\\":1"}',
        rb'{"model":"\u0041"}',
        b"{}",
        b" { } ",
    ],
)
def test_the_same_word_elsewhere_is_no_doubled_key(body: bytes) -> None:
    assert parse_object(body) == json.loads(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"[]", "an array"),
        (b"null", "null"),
        (b'"prompt"', "a string"),
        (b"1", "a number"),
        (b"true", "a boolean"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b"\x1f\x8b\x08\x00", "UTF-8"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "too deeply"),
        (b"[" * 200_000, "too deeply"),
        (b'{"a":1', "not valid JSON"),
        (b'{"a":NaN}', "not valid JSON"),
        (b'{"a":1}{"a":1}', "not valid JSON"),
        (rb'{"a":"\ud800"}', "not valid JSON"),
    ],
)
def test_a_body_that_cannot_be_read_says_why(body: bytes, message: str) -> None:
    with pytest.raises(MalformedRequest, match=message):
        parse_object(body)


def test_the_message_quotes_nothing_of_the_body() -> None:
    with pytest.raises(MalformedRequest) as caught:
        parse_object(b'{"messages":"a secret prompt" oops')

    assert "secret" not in str(caught.value)


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_our_own_error(body: bytes) -> None:
    for candidate in (body, b'{"a":' + body + b"}", b'{"' + body):
        for read in (parse_object, members, lambda raw: elements(raw, 0)):
            try:
                read(candidate)
            except MalformedRequest:
                continue


@given(st.text(alphabet='{}[]",:\\ a1', max_size=40))
def test_random_punctuation_gives_spans_within_the_body_or_our_own_error(text: str) -> None:
    body = text.encode()
    try:
        found = members(body)
    except MalformedRequest:
        return
    assert all(0 <= one.start < one.end <= len(body) for one in found)


# --- what a body may cost


class Counted(bytes):
    """A body that knows how many of its bytes were looked at by `count`."""

    looked_at = 0

    def count(self, *arguments: Any) -> int:
        type(self).looked_at += len(self)
        return super().count(*arguments)


@pytest.fixture
def counted() -> type[Counted]:
    return type("CountedHere", (Counted,), {})


class CountingPattern:
    """A compiled expression that counts how often it is tried."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.tries = 0

    def match(self, body: bytes, position: int) -> re.Match[bytes] | None:
        self.tries += 1
        return self._pattern.match(body, position)


@pytest.fixture
def brackets(monkeypatch: pytest.MonkeyPatch) -> CountingPattern:
    counting = CountingPattern(json_body._NEXT_BRACKET)
    monkeypatch.setattr(json_body, "_NEXT_BRACKET", counting)
    return counting


def _with_keys(number: int) -> bytes:
    return b"{%b}" % b",".join(b'"key%d":%d' % (index, index) for index in range(number))


def test_more_keys_than_any_request_has_are_refused_before_they_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(json_body, "_keys_are_surely_unique")
    monkeypatch.delattr(json_body, "_refuse_doubled_keys")
    with pytest.raises(MalformedRequest, match="more than 256 keys"):
        parse_object(_with_keys(20_000))


def test_keys_of_a_generous_number_are_all_compared() -> None:
    body = _with_keys(256)
    assert parse_object(body) == json.loads(body)
    with pytest.raises(MalformedRequest, match="'key7'"):
        parse_object(body[:-1] + b',"key7":1}')


@pytest.mark.parametrize("keys", [10, 32, 33, 200])
def test_comparing_keys_looks_at_a_body_a_bounded_number_of_times(counted: type[Counted], keys: int) -> None:
    body = counted(_with_keys(keys)[:-1] + b',"image":"' + b"A" * 4_000_000 + b'"}')
    document = parse_object(bytes(body))
    assert len(document) == keys + 1
    json_body._keys_are_surely_unique(body, document)
    assert counted.looked_at <= 64 * 1024 * 1024


def test_the_first_doubled_key_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = CountingPattern(json_body._STRING_TOKEN)
    monkeypatch.setattr(json_body, "_STRING_TOKEN", keys)
    with pytest.raises(MalformedRequest, match="'a'"):
        parse_object(b"{%b}" % b",".join([b'"a":1'] * 50_000))
    assert keys.tries == 2


@pytest.mark.parametrize("filling", [b"[]", b'{"a":[1,"]"]}', b"[" * 7 + b"]" * 7, b'"\\"]"'])
def test_what_is_nested_as_usual_is_skipped_at_once(brackets: CountingPattern, filling: bytes) -> None:
    values = b",".join([filling] * 20_000)
    found = members(b'{"x":[%b],"y":1}' % values)
    assert [one.key for one in found] == ["x", "y"]
    assert brackets.tries == 0


def test_deep_values_are_skipped_in_a_bounded_number_of_steps(brackets: CountingPattern) -> None:
    deep = b"[" * 500 + b"]" * 500
    assert len(members(b'{"x":%b}' % deep)) == 1
    with pytest.raises(MalformedRequest, match="deeply nested"):
        members(b'{"x":[%b]}' % b",".join([deep] * 200))
    assert brackets.tries < 110_000


@given(st.integers(1, 30), st.sampled_from([b"1", b'"]"', b'"\\\\"', b"{}", b'{"x":["}"]}']), st.integers(0, 3))
def test_values_of_every_depth_end_where_they_end(depth: int, core: bytes, siblings: int) -> None:
    value = core
    for level in range(depth):
        beside = b"[[]]," * siblings
        value = b"[%b%b]" % (beside, value) if level % 2 else b'{"s":[%b0],"v":%b}' % (beside, value)
    body = b'{"a":%b,"b":1}' % value
    one = member(body, parse_object(body), "a")
    assert one is not None
    assert body[one.start : one.end] == value


@given(_DOCUMENTS.filter(bool), _SPACES, st.booleans(), st.data())
def test_a_doubled_key_is_found_in_every_document(
    document: dict[str, Any], indent: Any, ascii_only: bool, data: st.DataObject
) -> None:
    body = _encode(document, indent, ascii_only=ascii_only)
    assert parse_object(body) == document
    key = data.draw(st.sampled_from(sorted(document)))
    again = json.dumps(key, ensure_ascii=data.draw(st.booleans())).encode()

    with pytest.raises(MalformedRequest, match="more than once"):
        parse_object(body.rstrip()[:-1] + b"," + again + b":null}")
