"""Just enough HTTP/1.1 to read the harness's own requests and answers.

A full parser would be a large part of what the load generator does, and the load generator must not be what
is measured. This one knows a length and chunks; whatever else comes is an error, so it can't look like an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

HEAD_MAX_SIZE: Final = 64 * 1024
"""Arbitrary; an answer whose head is longer than this comes from something that went wrong."""


class MalformedMessage(Exception):
    """What came over the connection is not a message that this harness would send or expect."""


class MessageParser:
    """Reads one message after another from one connection, however the network splits them."""

    __slots__ = ("_buffer", "_length_required", "_position", "_read", "_remaining", "body_parts", "complete", "head")

    def __init__(self, *, length_required: bool) -> None:
        """An answer has to tell its length; a request that tells none has no body."""
        self._length_required = length_required
        self._buffer = b""
        self._start()

    def _start(self) -> None:
        self._position = 0
        self._remaining = 0
        self._read: Callable[[], bool] = self._read_head
        self.head = b""
        self.body_parts: list[bytes] = []
        self.complete = False

    @property
    def body(self) -> bytes:
        """What has come of the body, without its chunking."""
        return b"".join(self.body_parts)

    @property
    def status(self) -> int:
        """The status of an answer."""
        return int(self.head[9:12])

    @property
    def unread(self) -> int:
        """How many bytes came after the end of this message."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection, and stop at the end of the message."""
        self._buffer = self._buffer + data if self._buffer else data
        while not self.complete and self._read():
            pass
        self._buffer = self._buffer[self._position :]
        self._position = 0

    def next_message(self) -> None:
        """Begin the next message, with the bytes that came after the last one."""
        self._start()
        self.feed(b"")

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", self._position)
        if end < 0:
            if len(self._buffer) - self._position > HEAD_MAX_SIZE:
                raise MalformedMessage("the head of a message has no end")
            return False
        self.head = self._buffer[self._position : end + 2].lower()
        self._position = end + 4
        self._choose_body()
        return True

    def _choose_body(self) -> None:
        if b"\r\ntransfer-encoding: chunked\r\n" in self.head:
            self._read = self._read_chunk_size
            return
        length = self._content_length()
        self._remaining = length
        self._read = self._read_body
        self.complete = length == 0

    def _content_length(self) -> int:
        _, found, rest = self.head.partition(b"\r\ncontent-length:")
        value = rest.partition(b"\r\n")[0].strip()
        if not found and not self._length_required:
            return 0
        if not value.isdigit():
            raise MalformedMessage("an answer tells no length and is not chunked")
        return int(value)

    def _read_body(self) -> bool:
        self._take()
        self.complete = self._remaining == 0
        return False

    def _read_chunk_size(self) -> bool:
        end = self._buffer.find(b"\r\n", self._position)
        if end < 0:
            return False
        size = self._buffer[self._position : end].partition(b";")[0]
        try:
            self._remaining = int(size, 16)
        except ValueError:
            raise MalformedMessage("a chunk does not begin with its size") from None
        self._position = end + 2
        self._read = self._read_chunk if self._remaining else self._read_trailer
        return True

    def _read_chunk(self) -> bool:
        self._take()
        if self._remaining or len(self._buffer) - self._position < 2:
            return False
        if self._buffer[self._position : self._position + 2] != b"\r\n":
            raise MalformedMessage("a chunk is longer than its size")
        self._position += 2
        self._read = self._read_chunk_size
        return True

    def _read_trailer(self) -> bool:
        end = self._buffer.find(b"\r\n", self._position)
        if end < 0:
            return False
        self.complete = end == self._position
        self._position = end + 2
        return True

    def _take(self) -> None:
        part = self._buffer[self._position : self._position + self._remaining]
        if part:
            self.body_parts.append(part)
            self._position += len(part)
            self._remaining -= len(part)
