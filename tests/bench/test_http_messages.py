import pytest

from tests.bench.http_messages import HEAD_MAX_SIZE, MalformedMessage, MessageParser

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-One: Two\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;name=value\r\nhel\r\n2\r\nlo\r\n0\r\nx-trailer: 1\r\n\r\n"
)


def answer_parser() -> MessageParser:
    return MessageParser(length_required=True)


@pytest.mark.parametrize("message", [PLAIN, CHUNKED], ids=["length", "chunks"])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_message_is_read_however_the_network_splits_it(message: bytes, step: int) -> None:
    parser = answer_parser()
    for first in range(0, len(message), step):
        assert not parser.complete
        parser.feed(message[first : first + step])

    assert (parser.complete, parser.status, parser.body, parser.unread) == (True, 200, b"hello", 0)


def test_the_head_is_kept_in_lower_case() -> None:
    parser = answer_parser()
    parser.feed(PLAIN)

    assert b"\r\nx-one: two\r\n" in parser.head


def test_messages_that_came_together_are_read_one_after_another() -> None:
    parser = answer_parser()
    parser.feed(PLAIN + CHUNKED + PLAIN[:10])
    bodies = []
    while parser.complete:
        bodies.append(parser.body)
        parser.next_message()

    assert (bodies, parser.unread) == ([b"hello", b"hello"], 10)


def test_a_request_without_a_length_has_no_body() -> None:
    parser = MessageParser(length_required=False)
    parser.feed(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")

    assert (parser.complete, parser.body) == (True, b"")


@pytest.mark.parametrize(
    "message",
    [
        b"HTTP/1.1 200 OK\r\nserver: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabcd",
        b"a" * (HEAD_MAX_SIZE + 1),
    ],
    ids=["no length", "negative length", "no chunk size", "chunk too long", "endless head"],
)
def test_what_is_no_message_is_an_error(message: bytes) -> None:
    with pytest.raises(MalformedMessage):
        answer_parser().feed(message)
