"""Cutting a stream at frame boundaries: nothing lost, nothing added, memory bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.formats.base import FrameTooLarge, FrameUnreadable
from llm_sidecar.formats.sse import FrameSplitter, read_frame
from tests.unit.formats.streams import (
    CHAT,
    GEMINI_ARRAY,
    GEMINI_EVENTS,
    MESSAGES,
    RESPONSES,
    observer_of,
    play,
    split_at,
)

TARGETS = [CHAT, RESPONSES, "/v1/embeddings", MESSAGES, GEMINI_EVENTS, GEMINI_ARRAY]
_PIECES = st.sampled_from(
    [b"data: {}", b"data: [DONE]", b'data: {"error":1}', b"event: error", b"\n", b"\n\n", b"\r\n", b"\r\n\r\n", b"\r",
     b": c", b"[", b"]", b"{", b"}", b'"', b"\\", b",", b"\xc3\xa9", b'{"candidates":[{"finishReason":"STOP"}]}']
)  # fmt: skip


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n"])
def test_an_unfinished_frame_is_held_back_under_any_line_ending(end: bytes) -> None:
    stream = b"data: 1" + end + b"data: 2" + end
    for cut in range(len(stream)):
        splitter = FrameSplitter(max_frame_bytes=100)

        first = splitter.push(stream[:cut])

        assert first in (b"", b"data: 1" + end)
        assert first + splitter.push(stream[cut:]) == stream


def test_a_read_that_ends_with_a_frame_goes_on_uncopied() -> None:
    chunk = b"data: 1\n\ndata: 2\n\n"

    assert FrameSplitter(max_frame_bytes=100).push(chunk) is chunk


def test_a_frame_without_end_is_refused_once_it_is_too_large() -> None:
    observer = observer_of(CHAT, max_frame_bytes=1000)
    with pytest.raises(FrameTooLarge, match="1000"):
        play(observer, [b"data: " + b"x" * 50] * 100)


def test_an_array_element_without_end_is_refused_once_it_is_too_large() -> None:
    observer = observer_of(GEMINI_ARRAY, max_frame_bytes=1000)
    observer.feed(b"[")
    with pytest.raises(FrameTooLarge, match="1000"):
        play(observer, [b'{"text":"' + b"x" * 50] * 100)


def test_a_frame_made_of_many_reads_comes_out_whole() -> None:
    splitter = FrameSplitter(max_frame_bytes=1 << 22)
    pieces = [b"data: ", *([b"x" * 4096] * 500), b"\n", b"\n"]

    assert b"".join(splitter.push(piece) for piece in pieces) == b"".join(pieces)


@pytest.mark.parametrize(
    ("frame", "event", "data"),
    [
        (b"event: a\ndata: 1\n\n", b"a", b"1"),
        (b"event:a\r\ndata:1\r\n\r\n", b"a", b"1"),
        (b"data: 1\rdata: 2\r\r", b"", b"1\n2"),
        (b": data: no\n\n", b"", b""),
        (b"\xef\xbb\xbfdata: 1\n\n", b"", b"1"),
        (b"data\n\n", b"", b""),
        (b"database: 1\n\n", b"", b""),
        (b"id: 1\nretry: 2\ndata:  x \n\n", b"", b" x "),
    ],
)
def test_a_frame_is_read_as_the_standard_says(frame: bytes, event: bytes, data: bytes) -> None:
    assert read_frame(frame) == (event, data)


@pytest.mark.parametrize("tail", [b"data: [DONE]", b"data: [DONE]\n", b'data: {"choices":[]}\n', b"\n", b""])
def test_a_last_frame_that_only_lacks_its_empty_line_is_relayed(tail: bytes) -> None:
    stream = b"data: {}\n\n" + tail

    assert play(observer_of(CHAT), [stream]) == stream


def test_half_a_last_frame_is_dropped() -> None:
    assert play(observer_of(CHAT), [b'data: {}\n\ndata: {"choi']) == b"data: {}\n\n"


@given(st.lists(_PIECES | st.binary(max_size=10), max_size=30), st.data())
def test_random_bytes_are_relayed_but_for_an_unfinished_end(pieces: list[bytes], data: st.DataObject) -> None:
    """Whatever comes, however it is split: a prefix of it goes out, and only a frame that is no JSON is refused."""
    stream = b"".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    for target in TARGETS:
        observer = observer_of(target)
        try:
            relayed = play(observer, split_at(stream, cuts))
        except FrameUnreadable as error:
            relayed = error.readable

        assert relayed in stream
        observer.error_tail(500, "upstream_stream_ended", "The stream ended early.")


_CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null}\n\n'
_USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'


@given(st.lists(st.sampled_from([_CHUNK, _USAGE, b": note\n\n", b"data: [DONE]\r\n\r\n"]), max_size=12), st.data())
def test_only_the_usage_that_we_asked_for_is_cut_out(frames: list[bytes], data: st.DataObject) -> None:
    """Wherever those frames stand in a read, before the first content or after it."""
    stream = b"".join(frames)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=4))
    observer = observer_of(CHAT, hide_usage=True)

    relayed = play(observer, split_at(stream, cuts))

    assert relayed == b"".join(frame for frame in frames if frame != _USAGE)
    assert (observer.usage is not None) is (_USAGE in frames)


def test_frames_are_relayed_as_soon_as_they_are_whole() -> None:
    """However long a stream is, no more than one unfinished frame is ever held."""
    observer = observer_of(CHAT, max_frame_bytes=1000)
    frame = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
    stream = frame * 2000
    relayed_bytes = 0
    for start in range(0, len(stream), 333):
        relayed_bytes += len(observer.feed(stream[start : start + 333]))
        assert min(start + 333, len(stream)) - relayed_bytes < len(frame)
