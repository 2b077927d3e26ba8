"""The load generator: a closed loop over a fixed number of connections, in a process of its own.

Every answer is compared with what the upstream sent, so that errors can't look fast; the first wrong one ends the run.
It reads the CPU time and memory of the processes under test itself, at the bounds of its own measured window.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

import uvloop

from tests.bench import pairs
from tests.bench.figures import percentile
from tests.bench.http_messages import MalformedMessage, MessageParser
from tests.bench.pairs import PAIRS
from tests.bench.payloads import Kind, expected_body, request_parts
from tests.bench.proc import cpu_seconds, machine_busy_seconds, resident_bytes
from tests.bench.results import LoadResult

SAMPLE_SECONDS: Final = 0.05
STALL_SECONDS: Final = 20.0
"""Longer than any answer takes here, even on a machine that does something else as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """What to send, how long, and what to look at meanwhile."""

    port: int
    kind: Kind
    concurrency: int
    bodies: int = 0
    """How many different ones are sent, in turn; 0: each is new."""
    warm_up_seconds: float = 0.0
    window_seconds: float = 0.0
    requests: int = 0
    """Stop after this many requests instead of by the clock."""
    expected_headers: tuple[str, ...] = ()
    """Pieces of the head, in lower case, without which an answer of the measured window counts as wrong."""
    pair: str = ""
    """Languages of the call, by the pair's name; empty for the chat API on both sides."""
    watch: Mapping[str, int] = field(default_factory=dict)
    """Processes to measure: name to process id."""

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> LoadSettings:
        """From what JSON makes of it."""
        typed = {"kind": Kind(document["kind"]), "expected_headers": tuple(document["expected_headers"])}
        return cls(**{**document, **typed})

    @property
    def limit_seconds(self) -> float:
        """When a run that has not ended will never end: a target slower than 200 requests a second is broken too."""
        return self.warm_up_seconds + self.window_seconds + self.requests / 200 + STALL_SECONDS


class Load:
    """The state of one run that its connections share."""

    def __init__(self, settings: LoadSettings) -> None:
        self.settings = settings
        self.expected = expected_body(settings.kind)
        self.expected_headers = tuple(header.encode() for header in settings.expected_headers)
        self.pair = PAIRS[settings.pair] if settings.pair else None
        self.before, self.after = (
            request_parts(settings.kind, port=settings.port)
            if self.pair is None
            else pairs.request_parts(self.pair, settings.kind, port=settings.port)
        )
        self.prefix = b"same----" if settings.bodies else os.urandom(4).hex().encode()
        self.issued = 0
        self.stopping = False
        self.open_connections = 0
        self.finished = asyncio.Event()
        self.errors: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.first_bytes: list[float] = []
        self.window_begin = float("inf")
        self.window_end = float("inf")
        self.cpu_begin: dict[str, float] = {}
        self.cpu_end: dict[str, float] = {}
        self.generator_begin = self.generator_end = 0.0
        self.machine_begin = self.machine_end = 0.0
        self.resident_max: dict[str, int] = dict.fromkeys(settings.watch, 0)

    def is_right(self, body: bytes) -> bool:
        """Whether this is what the upstream sent: to the byte, or by its content where it is another language's."""
        if self.pair is None:
            return body == self.expected
        return pairs.is_right(self.pair.client, self.settings.kind, body)

    def next_request(self) -> bytes | None:
        """The bytes of one more request, or None when enough were sent."""
        if self.stopping or (self.settings.requests and self.issued >= self.settings.requests):
            return None
        self.issued += 1
        number = self.issued % self.settings.bodies if self.settings.bodies else self.issued
        return b"%s%s%08d%s" % (self.before, self.prefix, number, self.after)

    def open_window(self) -> None:
        """Begin to count."""
        self.cpu_begin = self._cpu()
        self.generator_begin = time.process_time()
        self.machine_begin = machine_busy_seconds()
        self.window_begin = time.perf_counter()

    def close_window(self) -> None:
        """Count no more, and let what is under way end."""
        if self.cpu_end:
            return
        self.window_end = time.perf_counter()
        self.generator_end = time.process_time()
        self.machine_end = machine_busy_seconds()
        self.cpu_end = self._cpu()
        self.stopping = True

    def record(self, begin: float, *, first_byte: float, end: float) -> None:
        """Count an answer that came within the window."""
        if self.window_begin <= end <= self.window_end:
            self.latencies.append(end - begin)
            self.first_bytes.append(first_byte - begin)

    def fail(self, reason: str) -> None:
        """Note a wrong answer and stop sending."""
        self.errors[reason] += 1
        self.stopping = True

    def connection_done(self) -> None:
        """One connection has sent its last request."""
        self.open_connections -= 1
        if self.open_connections == 0:
            self.finished.set()

    def sample_memory(self) -> None:
        """Keep the highest resident size seen."""
        for name, process_id in self.settings.watch.items():
            self.resident_max[name] = max(self.resident_max[name], resident_bytes(process_id))

    def result(self) -> LoadResult:
        """The figures of the window."""
        latencies, first_bytes = self.latencies or [0.0], self.first_bytes or [0.0]
        return LoadResult(
            requests=len(self.latencies),
            seconds=max(0.0, self.window_end - self.window_begin),
            p50_ms=percentile(latencies, percent=50) * 1000,
            p99_ms=percentile(latencies, percent=99) * 1000,
            first_byte_p50_ms=percentile(first_bytes, percent=50) * 1000,
            first_byte_p99_ms=percentile(first_bytes, percent=99) * 1000,
            cpu_seconds={name: self.cpu_end[name] - begin for name, begin in self.cpu_begin.items()},
            resident_max_bytes=self.resident_max,
            generator_cpu_seconds=self.generator_end - self.generator_begin,
            machine_busy_seconds=self.machine_end - self.machine_begin,
            errors=dict(self.errors),
        )

    def _cpu(self) -> dict[str, float]:
        return {name: cpu_seconds(process_id) for name, process_id in self.settings.watch.items()}


class Connection(asyncio.Protocol):
    """One connection of the closed loop: the next request goes out when the last answer is complete."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._parser = MessageParser(length_required=True)
        self._begin = self._first_byte = 0.0
        self._waiting = False
        self._done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to send."""
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def send_next(self) -> None:
        """Send a request, or end."""
        request = self._load.next_request()
        if request is None:
            self._end()
            return
        self._waiting, self._first_byte = True, 0.0
        self._begin = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take a piece of the answer."""
        parser = self._parser
        try:
            parser.feed(data)
        except MalformedMessage as error:
            self._fail(str(error))
            return
        if not self._first_byte and parser.body_parts:
            self._first_byte = time.perf_counter()
        if parser.complete:
            self._finish(parser)

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that goes away with a request under way is an error."""
        if self._waiting:
            self._fail("the connection closed before the answer was complete")
        self._end()

    def _finish(self, parser: MessageParser) -> None:
        end = time.perf_counter()
        self._waiting = False
        wrong = self._wrong(parser)
        if wrong:
            self._fail(wrong)
            return
        self._load.record(self._begin, first_byte=self._first_byte, end=end)
        parser.next_message()
        self.send_next()

    def _wrong(self, parser: MessageParser) -> str | None:
        if parser.status != 200:
            return f"status {parser.status}: {parser.body[:300].decode(errors='replace')}"
        if not self._load.is_right(parser.body):
            return f"the body differs from what the upstream sent ({len(parser.body)} bytes)"
        if parser.unread:
            return "bytes came after the end of the answer"
        if self._begin >= self._load.window_begin:
            for header in self._load.expected_headers:
                if header not in parser.head:
                    return f"the answer lacks the header {header!r}"
        return None

    def _fail(self, reason: str) -> None:
        self._waiting = False
        self._load.fail(reason)
        self._end()

    def _end(self) -> None:
        if not self._done:
            self._done = True
            self._transport.close()
            self._load.connection_done()


async def run(settings: LoadSettings) -> LoadResult:
    """Load one target and measure."""
    load = Load(settings)
    loop = asyncio.get_running_loop()
    opened = (
        loop.create_connection(lambda: Connection(load), "127.0.0.1", settings.port)
        for _ in range(settings.concurrency)
    )
    try:
        connections = [connection for _, connection in await asyncio.gather(*opened)]
    except OSError as error:
        load.fail(f"no connection: {error.strerror or error}")
        connections = []
    load.open_connections = len(connections)
    if connections:
        await _drive(load, connections)
    return load.result()


async def _drive(load: Load, connections: list[Connection]) -> None:
    settings, loop = load.settings, asyncio.get_running_loop()
    if settings.requests:
        load.open_window()
    else:
        loop.call_later(settings.warm_up_seconds, load.open_window)
        loop.call_later(settings.warm_up_seconds + settings.window_seconds, load.close_window)
    sampler = asyncio.create_task(_sample(load))
    for connection in connections:
        connection.send_next()
    try:
        async with asyncio.timeout(settings.limit_seconds):
            await load.finished.wait()
    except TimeoutError:
        load.fail(f"requests without an answer after {settings.limit_seconds:.0f} s")
    finally:
        sampler.cancel()
    load.close_window()


async def _sample(load: Load) -> None:
    while True:
        load.sample_memory()
        await asyncio.sleep(SAMPLE_SECONDS)


def main(argument: str) -> None:
    """Read the settings as JSON, print the result as JSON."""
    settings = LoadSettings.from_document(json.loads(argument))
    print(json.dumps(asdict(uvloop.run(run(settings)))))


if __name__ == "__main__":
    main(sys.argv[1])
