"""Runs an application's scenarios and tells each outcome as one JSON line.

Shared by the programs beside it. They run inside environments that hold one SDK and nothing of this project, so
this module knows the standard library alone.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NoReturn

Scenario = Callable[[], str] | Callable[[], Coroutine[Any, Any, str]]

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A PNG of one pixel."""


class NotAvailable(Exception):
    """There is no such thing here: in this API, this release of its SDK or this run. The message says which."""


def expect(condition: object, expectation: str, seen: object = "") -> None:
    """Like `assert`, but told to the reader of the JSON line, and never optimised away."""
    if not condition:
        raise AssertionError(f"expected {expectation}; saw {seen!r}"[:2000])


def expect_error(kind: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object]) -> Any:
    """The error that `call` must raise."""
    try:
        result = call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind}; the call returned {result!r}"[:2000])


def cut_stream_headers() -> dict[str, str]:
    """Headers that make the simulated provider cut its stream; the tests know them, an application would not."""
    headers: dict[str, str] = json.loads(os.environ["CUT_STREAM_HEADERS"])
    return headers


def ended_stream_headers() -> dict[str, str]:
    """Headers that make the simulated provider end its stream in good form, but before it is complete."""
    told = os.environ.get("ENDED_STREAM_HEADERS")
    if told is None:
        raise NotAvailable("no SDK notices by itself that a stream ended early, and nothing stands before the provider")
    headers: dict[str, str] = json.loads(told)
    return headers


def transport_errors() -> tuple[type[Exception], ...]:
    """What the HTTP client under the SDK raises when a chunked body breaks off: not every major wraps it."""
    clients = []
    for name in ("httpx", "httpx2"):
        try:
            clients.append(importlib.import_module(name))
        except ImportError:
            continue
    return tuple(client.TransportError for client in clients)


def run(scenarios: Mapping[str, Scenario]) -> NoReturn:
    """Run the scenarios named on the command line (default: all) and exit with 1 if any failed."""
    names = sys.argv[1:] or list(scenarios)
    outcomes = [_outcome(name, scenarios[name]) for name in names]
    sys.exit(0 if all(outcomes) else 1)


def _outcome(name: str, scenario: Scenario) -> bool:
    ok, detail, skipped_because = True, None, None
    try:
        result = scenario()
        detail = result if isinstance(result, str) else asyncio.run(result)
    except NotAvailable as reason:
        skipped_because = str(reason)
    except Exception:  # noqa: BLE001 - whatever went wrong in one scenario, the others still run
        ok, detail = False, traceback.format_exc()
    line = {"scenario": name, "ok": ok, "detail": detail, "skipped_because": skipped_because}
    print(json.dumps(line), flush=True)
    return ok
