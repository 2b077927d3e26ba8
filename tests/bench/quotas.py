"""What quotas cost apart from whole requests: each script, a fleet on one team, and round trips before a call.

Redis has the core to itself here, for Redis is what is measured.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final

import redis

from llm_sidecar.quota.scripts import quota_keys
from tests.bench.children import BenchmarkFailed, Child, Children, accepts, free_port, module_command, wait_until
from tests.bench.limits import LIMITS
from tests.bench.payloads import ANSWER, Kind, request_parts
from tests.bench.quota_load import READY_LIST, START_LIST, START_SECONDS, TEAM, FleetSettings, ScriptSettings
from tests.bench.quota_results import (
    FleetStep,
    FleetWindow,
    QuotaFigures,
    ScriptBlock,
    ScriptCost,
    commands_sent,
    fleet_step,
    script_cost,
)
from tests.bench.results import BARE, EIGHT, QUOTA
from tests.bench.targets import Surroundings, redis_command, start_target

SIDECARS: Final = 200
_PROCESSES: Final = 2
_AGREE_SECONDS: Final = 0.1
_END_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.01
_SINGLE_REQUESTS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaEffort:
    """How much of everything."""

    calls: int
    blocks: int
    rates: tuple[float, ...]
    warm_up_seconds: float
    window_seconds: float


DEFAULT_QUOTA_EFFORT: Final = QuotaEffort(
    calls=200, blocks=15, rates=(250, 500, 1000, 2000, 4000), warm_up_seconds=1.0, window_seconds=4.0
)
QUICK_QUOTA_EFFORT: Final = QuotaEffort(calls=100, blocks=5, rates=(250, 1000), warm_up_seconds=0.5, window_seconds=1.5)


def measure_quotas(children: Children, *, effort: QuotaEffort) -> QuotaFigures:
    """Run all of it, on a Redis of its own."""
    with own_redis(children) as port:
        scripts = [row for limits in LIMITS for row in _scripts(children, port, limits=limits, effort=effort)]
        fleet = [step for policy in ("Allow", "LocalShare") for step in _fleet(children, port, policy, effort=effort)]
    with own_redis(children) as port:
        commands = {name: commands_before_call(name, children, redis_port=port) for name in (BARE, QUOTA, EIGHT)}
    return QuotaFigures(scripts=scripts, sidecars=SIDECARS, fleet=fleet, commands_before_call=commands)


@contextmanager
def own_redis(children: Children) -> Iterator[int]:
    """A Redis on the core of what is measured; gives its port."""
    port = free_port()
    child = children.start("redis-of-quotas", redis_command(port, directory=children.directory), measured=True)
    wait_until(child, lambda: accepts(port), what="listening")
    try:
        yield port
    finally:
        children.stop(child)


# --- each script


def _scripts(children: Children, port: int, *, limits: int, effort: QuotaEffort) -> Iterator[ScriptCost]:
    _flush(port)
    settings = ScriptSettings(port=port, limits=limits, calls=effort.calls, blocks=effort.blocks, sidecars=SIDECARS)
    child, output = _start_load(children, "scripts", asdict(settings), name=f"quota-scripts-{limits}")
    found = _result(children, child, output, limit_seconds=_END_SECONDS)
    about = f"{limits} limit{'s' * (limits > 1)}"
    for script, documents in found.items():
        blocks = [ScriptBlock(**document) for document in documents]
        told = f"{about}, {SIDECARS} sidecars" if script == "share" else about
        yield script_cost(script, about=told, blocks=blocks)


# --- the fleet


def _fleet(children: Children, port: int, policy: str, *, effort: QuotaEffort) -> Iterator[FleetStep]:
    _flush(port)
    parts = [
        FleetSettings(
            port=port,
            numbers=(SIDECARS * part // _PROCESSES, SIDECARS * (part + 1) // _PROCESSES),
            sidecars=SIDECARS,
            policy=policy,
            rates=effort.rates,
            warm_up_seconds=effort.warm_up_seconds,
            window_seconds=effort.window_seconds,
        )
        for part in range(_PROCESSES)
    ]
    loads = [
        _start_load(children, "fleet", asdict(part), name=f"quota-fleet-{policy}-{number}")
        for number, part in enumerate(parts)
    ]
    start_at = _start_together(port, loads)
    spent = _cpu_of_each_step(port, parts[0], start_at=start_at)
    found = [_result(children, child, output, limit_seconds=_END_SECONDS) for child, output in loads]
    check_accounts(port, told=sum(one["settled_tokens"] for one in found))
    for position, rate in enumerate(effort.rates):
        yield fleet_step(
            [FleetWindow(**one["windows"][position]) for one in found],
            policy=policy,
            rate=rate,
            seconds=effort.window_seconds,
            redis_cpu_seconds=spent[position],
            load_cores=min(_PROCESSES, len(children.cores.others)),
        )


def _start_together(port: int, loads: Sequence[tuple[Child, Path]]) -> float:
    with redis.Redis(port=port) as look:
        for child, _output in loads:
            if look.blpop([READY_LIST], timeout=START_SECONDS) is None:
                raise child.failure(f"not all load processes were ready within {START_SECONDS} s")
        start_at = time.monotonic() + _AGREE_SECONDS
        look.rpush(START_LIST, *(repr(start_at) for _ in loads))
    return start_at


def _cpu_of_each_step(port: int, settings: FleetSettings, *, start_at: float) -> list[float]:
    """What Redis uses in each window."""
    spent: list[float] = []
    with redis.Redis(port=port) as look:
        for position in range(len(settings.rates)):
            window_at = settings.window_at(position, start_at=start_at)
            _sleep_until(window_at)
            before = _cpu_seconds(look)
            _sleep_until(window_at + settings.window_seconds)
            spent.append(_cpu_seconds(look) - before)
    return spent


def check_accounts(port: int, *, told: int) -> None:
    """An error can't look fast: what all sidecars settled has to be in the team's counter, to the token."""
    with redis.Redis(port=port) as look:
        counters: Any = look.hgetall(quota_keys(TEAM)[0])
    booked = sum(int(value) for name, value in counters.items() if name.endswith(b"|used"))
    held = sum(int(value) for name, value in counters.items() if name.endswith(b"|held"))
    if (booked, held) != (told, 0):
        raise BenchmarkFailed(
            f"the fleet settled {told} tokens, but Redis has {booked} booked and {held} held: the figures mean nothing"
        )


# --- round trips


def commands_before_call(name: str, children: Children, *, redis_port: int) -> int:
    """How many commands a sidecar sends to Redis for a request before it asks the upstream; the fewest of several.

    What runs in the background (a share's renewal, the last settlement) can only be counted in addition.
    """
    with redis.Redis(port=redis_port) as look, _counting_upstream(look) as (upstream_port, statistics):
        surroundings = Surroundings(
            children=children,
            upstream=children.running[-1],
            upstream_port=upstream_port,
            redis=children.running[-1],
            redis_port=redis_port,
        )
        target = start_target(name, surroundings)  # has answered a request: connections stand, scripts are loaded
        counts = []
        for number in range(_SINGLE_REQUESTS):
            before = _settled_statistics(look)
            statistics.clear()
            _ask(target.port, unique=number)
            if len(statistics) != 1:
                raise target.child.failure(f"one request became {len(statistics)} at the upstream: nothing to count")
            counts.append(commands_sent(before, statistics[-1]))
        children.stop(target.child)
    return min(counts)


@contextmanager
def _counting_upstream(look: redis.Redis) -> Iterator[tuple[int, list[Mapping[str, Any]]]]:
    """An upstream that looks at Redis's statistics when it is asked, before it answers."""
    statistics: list[Mapping[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            statistics.append(_statistics(look))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(ANSWER)))
            self.end_headers()
            self.wfile.write(ANSWER)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the base class
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port, statistics
        finally:
            server.shutdown()
            thread.join()


def _ask(port: int, *, unique: int) -> None:
    body = f"{unique:016d}".encode().join(request_parts(Kind.PLAIN, port=port)).partition(b"\r\n\r\n")[2]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/v1/chat/completions", body=body, headers={"content-type": "application/json"})
        response = connection.getresponse()
        if (response.status, response.read()) != (200, ANSWER):
            raise BenchmarkFailed("a single request was not answered as the upstream did")
    finally:
        connection.close()


def _settled_statistics(look: redis.Redis) -> Mapping[str, Any]:
    """Once nothing of the last request is on its way any more."""
    before = _statistics(look)
    while True:
        time.sleep(0.1)
        after = _statistics(look)
        if commands_sent(before, after) == 0:
            return after
        before = after


# --- what all need


def _statistics(look: redis.Redis) -> Mapping[str, Any]:
    found: Any = look.info("commandstats")
    return dict(found)


def _cpu_seconds(look: redis.Redis) -> float:
    cpu: Any = look.info("cpu")
    return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])


def _flush(port: int) -> None:
    with redis.Redis(port=port) as connection:
        connection.flushall()


def _start_load(children: Children, kind: str, settings: Mapping[str, Any], *, name: str) -> tuple[Child, Path]:
    output = children.directory / f"{name}.json"
    return children.start(name, module_command("quota_load", kind, json.dumps(settings), output)), output


def _result(children: Children, child: Child, output: Path, *, limit_seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + limit_seconds
    while child.process.poll() is None:
        if time.monotonic() > deadline:
            raise child.failure(f"did not end within {limit_seconds:.0f} s")
        time.sleep(_POLL_SECONDS)
    if child.process.returncode or not output.exists():
        raise child.failure(f"ended with status {child.process.returncode} and without figures")
    children.running.remove(child)
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def _sleep_until(instant: float) -> None:
    time.sleep(max(0.0, instant - time.monotonic()))
