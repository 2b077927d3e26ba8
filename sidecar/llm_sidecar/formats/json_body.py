"""A request body: read once, and changed, if at all, at exact places while every other byte stays.

Prompt caches of the providers compare prefixes byte by byte, so a body is never serialised again. Finding a place
needs a scan of the top-level members; it runs only for the few requests in which something must change or in which
a cheap proof of unique keys fails. The scan keeps its own depth: nesting costs no recursion.

Whoever sends a body must not choose how long the event loop stands still: every bound here is one on work.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from llm_sidecar.formats.base import MalformedRequest, ParsedRequest, Splice

# A quote without a backslash before it ends a string: looking for nothing but quotes is three times as fast.
_STRING: Final = rb'(?:"[^"]*+"(?<!\\")|"[^"\\]*+(?:\\.[^"\\]*+)*+")'
_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
_STRING_TOKEN: Final = re.compile(_STRING, re.DOTALL)
_FLAT: Final = rb'[^"\[\]{}]++|' + _STRING
_SKIPPED_DEPTH: Final = 8


def _container(depth: int) -> bytes:
    """An array or object in which no more than `depth` containers stand within each other, itself included."""
    inner = _FLAT if depth == 1 else _FLAT + b"|" + _container(depth - 1)
    return rb"[\[{](?:" + inner + rb")*+[\]}]"


_CONTAINER: Final = re.compile(_container(_SKIPPED_DEPTH), re.DOTALL)
# One bracket and all that stands before it: strings and what is not nested deeply are skipped within the expression,
# not one by one. Possessive throughout: a byte is looked at once for each of the depths at most.
_NEXT_BRACKET: Final = re.compile(rb"(?:" + _FLAT + b"|" + _container(_SKIPPED_DEPTH) + rb")*+([\[\]{}])", re.DOTALL)
_SCALAR: Final = re.compile(rb"[-+.0-9A-Za-z]++")
_SEPARATOR: Final = re.compile(rb"[ \t\n\r]*+([,:\]}])[ \t\n\r]*+")
# An escaped ASCII letter, digit or sign: only with one of these can a plain key be written in a second way.
_ESCAPED_ASCII: Final = re.compile(rb"\\u00[2-7]")
_OPENING: Final = frozenset(b"[{")
_QUOTE: Final = 0x22
_NOT_JSON: Final = "The request body is not valid JSON"
# No API has a longer name; what applications make up must not fill the memory of spellings.
_PLAIN_KEY_CHARACTERS: Final = 64
# The longest request of the three APIs has some forty members; SDKs let callers add their own.
_MAX_TOP_LEVEL_KEYS: Final = 256
# What the cheap proof may cost, in keys and in bytes looked at: beyond it the scan, which looks once, is cheaper.
_PROOF_KEYS: Final = 32
_PROOF_BYTES: Final = 64 * 1024 * 1024
# Brackets that the scan takes one by one, since more than `_SKIPPED_DEPTH` others stand within them.
_MAX_DEEP_BRACKETS: Final = 100_000
# Keys are no prompts, but a hostile one may be megabytes long.
_SHOWN_KEY_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class Member:
    """Where the value of one member of an object stands."""

    key: str
    start: int
    end: int


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a request body that must be a JSON object without doubled top-level keys; raises `MalformedRequest`."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedRequest(_explain(body, error)) from None
    if not isinstance(document, dict):
        raise MalformedRequest(f"The request body is {_kind(document)}; this API takes a JSON object.")
    if len(document) > _MAX_TOP_LEVEL_KEYS:
        raise MalformedRequest(_too_many_keys())
    if not _keys_are_surely_unique(body, document):
        _refuse_doubled_keys(body)
    return document


def members(body: bytes, start: int = 0) -> list[Member]:
    """The members of the object that begins at `start` (leading space is skipped); raises `MalformedRequest`."""
    return list(_each_member(body, start))


def _each_member(body: bytes, start: int = 0) -> Iterator[Member]:
    position = _enter(body, start, b"{")
    if body[position : position + 1] == b"}":
        return
    while True:
        key = _STRING_TOKEN.match(body, position)
        if key is None:
            raise MalformedRequest(_NOT_JSON)
        value_start = _expect(body, key.end(), b":")[1]
        value_end = _end_of_value(body, value_start)
        yield Member(_decode_key(key[0]), value_start, value_end)
        separator, position = _expect(body, value_end, b",}")
        if separator == b"}":
            return


def elements(body: bytes, start: int) -> list[tuple[int, int]]:
    """Start and end of each element of the array that begins at `start`; raises `MalformedRequest`."""
    position = _enter(body, start, b"[")
    found: list[tuple[int, int]] = []
    if body[position : position + 1] == b"]":
        return found
    while True:
        end = _end_of_value(body, position)
        found.append((position, end))
        separator, position = _expect(body, end, b",]")
        if separator == b"]":
            return found


def member(body: bytes, document: Mapping[str, Any], key: str) -> Member | None:
    """The top-level member `key` of a body that `parse_object` read as `document`, or None."""
    if key not in document:
        return None
    quoted = b'"%b"' % key.encode()
    if body.count(quoted) == 1 and b"\\u00" not in body:
        # The key is there, can be spelled in one way only, and that stands in one place: no scan needed.
        _, start = _expect(body, body.index(quoted) + len(quoted), b":")
        return Member(key, start, _end_of_value(body, start))
    return next((found for found in members(body) if found.key == key), None)


def replace_model(request: ParsedRequest, model: str | None) -> list[Splice]:
    """Put another name into the top-level `model`; nothing to do if it is the same one."""
    if model is None or request.document.get("model") == model:
        return []
    found = member(request.body, request.document, "model")
    return [] if found is None else [Splice(found.start, found.end, orjson.dumps(model))]


def insert_member(body: bytes, start: int, key: str, value: bytes) -> Splice:
    """Put a new member right behind the opening brace of the object at `start`, where no scan is needed."""
    position = _enter(body, start, b"{")
    brace = body.index(b"{", start) + 1
    comma = b"" if body[position : position + 1] == b"}" else b","
    return Splice(brace, brace, b'"%b":%b%b' % (key.encode(), value, comma))


def apply_splices(body: bytes, splices: Iterable[Splice]) -> bytes:
    """The body with each splice put in. They must ascend and not overlap (`ValueError`)."""
    parts: list[bytes] = []
    position = 0
    for splice in splices:
        if not position <= splice.start <= splice.end <= len(body):
            raise ValueError("splices must ascend, not overlap, and lie within the body")
        parts += (body[position : splice.start], splice.replacement)
        position = splice.end
    if not parts:
        return body
    parts.append(body[position:])
    return b"".join(parts)


def _enter(body: bytes, start: int, opening: bytes) -> int:
    """Step behind the opening bracket at `start` to the first member, element or closing bracket."""
    position = _skip_space(body, start)
    if body[position : position + 1] != opening:
        raise MalformedRequest(_NOT_JSON)
    return _skip_space(body, position + 1)


def _skip_space(body: bytes, position: int) -> int:
    space = _SPACE.match(body, position)
    return position if space is None else space.end()


def _expect(body: bytes, position: int, allowed: bytes) -> tuple[bytes, int]:
    """Read one of the `allowed` separators: it, and where the next token begins."""
    separator = _SEPARATOR.match(body, position)
    if separator is None or separator[1] not in allowed:
        raise MalformedRequest(_NOT_JSON)
    return separator[1], separator.end()


def _end_of_value(body: bytes, start: int) -> int:
    first = body[start] if start < len(body) else 0
    if first in _OPENING:
        return _end_of_container(body, start)
    token = (_STRING_TOKEN if first == _QUOTE else _SCALAR).match(body, start)
    if token is None:
        raise MalformedRequest(_NOT_JSON)
    return token.end()


def _end_of_container(body: bytes, start: int) -> int:
    whole = _CONTAINER.match(body, start)
    if whole is not None:
        return whole.end()
    depth = 0
    position = start
    for _ in range(_MAX_DEEP_BRACKETS):
        bracket = _NEXT_BRACKET.match(body, position)
        if bracket is None:
            raise MalformedRequest(_NOT_JSON)
        position = bracket.end()
        depth += 1 if body[position - 1] in _OPENING else -1
        if depth == 0:
            return position
    raise MalformedRequest("The request body has too many deeply nested values. Send fewer, or flatten them.")


def _decode_key(raw: bytes) -> str:
    try:
        return str(orjson.loads(raw))
    except orjson.JSONDecodeError:
        raise MalformedRequest(_NOT_JSON) from None


def _keys_are_surely_unique(body: bytes, document: Mapping[str, Any]) -> bool:
    """Prove without a scan that no top-level key stands twice; False means "look closer"."""
    if len(document) > _PROOF_KEYS or len(document) * len(body) > _PROOF_BYTES:
        return False
    if b"\\u00" in body and _ESCAPED_ASCII.search(body) is not None:
        return False
    for key in document:
        quoted = _only_spelling(key) if len(key) <= _PLAIN_KEY_CHARACTERS else None
        if quoted is None or body.count(quoted) != 1:
            return False
    return True


@lru_cache(maxsize=512)
def _only_spelling(key: str) -> bytes | None:
    """How a key must stand in a body without escaped ASCII; None if a short escape could spell it otherwise."""
    return b'"%b"' % key.encode() if key.isascii() and key.isidentifier() else None


def _refuse_doubled_keys(body: bytes) -> None:
    seen: set[str] = set()
    for found in _each_member(body):
        if found.key in seen:
            # Parsers disagree on which of the two counts: ours could check one and the provider obey the other.
            raise MalformedRequest(
                f"The key {found.key[:_SHOWN_KEY_CHARACTERS]!r} stands more than once at the top level of the request "
                "body. Send it once."
            )
        seen.add(found.key)


def _too_many_keys() -> str:
    return (
        f"The request body has more than {_MAX_TOP_LEVEL_KEYS} keys at its top level; no request of this API has "
        "that many. Send fewer."
    )


def _kind(document: object) -> str:
    match document:
        case None:
            return "`null`"
        case bool():
            return "a boolean"
        case list():
            return "an array"
        case str():
            return "a string"
        case _:
            return "a number"


def _explain(body: bytes, error: orjson.JSONDecodeError) -> str:
    """Say what is wrong in words that quote nothing of the body."""
    if not body.strip():
        return "The request body is empty; this API takes a JSON object."
    if body.startswith(b"\xef\xbb\xbf"):
        return "The request body begins with a byte order mark; send JSON without one."
    if "depth limit" in error.msg or "ecursion" in error.msg:
        return "The request body is nested too deeply (more than 1024 levels)."
    if not _is_utf8(body):
        return "The request body is not valid UTF-8. If it is compressed, send it without a content-encoding."
    return f"{_NOT_JSON} (line {error.lineno}, column {error.colno})"


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
