"""An answer is the same however the network cuts it, and no bytes whatever make the parser fail in another way."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.providers.base import TransportError
from llm_sidecar.upstream.answer import Answer

WIRE = (
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\nx-a: 2\r\n\r\n"
    b"3\r\nabc\r\n10;name=value\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\n"
)


def answer() -> Answer:
    """An answer that nobody's connection feeds."""
    return Answer(expects_body=True, on_read=lambda: None, on_close=lambda _: None)


def _read(fed: Answer) -> bytes:
    reading = fed.read_some()
    try:
        reading.send(None)
    except StopIteration as done:
        return bytes(done.value)
    raise AssertionError("nothing was there to be read")


@given(st.lists(st.integers(0, len(WIRE)), max_size=12))
def test_cuts_change_nothing(cuts: list[int]) -> None:
    fed = answer()
    places = [0, *sorted(cuts), len(WIRE)]
    for start, end in pairwise(places):
        if start < end:
            fed.feed(WIRE[start:end])
    assert (fed.status, fed.complete, fed.keeps_alive, fed.is_spoiled) == (200, True, True, False)
    assert fed.headers == [("X-A", "1"), ("Transfer-Encoding", "chunked"), ("x-a", "2")]
    assert (_read(fed), _read(fed)) == (b"abc0123456789abcdef", b"")


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.booleans())
def test_any_bytes_end_in_an_answer_or_in_a_transport_error(pieces: list[bytes], after_a_head: bool) -> None:
    fed = answer()
    if after_a_head:
        fed.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in pieces:
        fed.feed(piece)
    fed.end(TransportError("disconnected", "gone"))
    assert fed.complete or fed.failed
