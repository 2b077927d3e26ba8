"""`llm-sidecar simulate`: run the simulated providers until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import errno
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from llm_sidecar.commands.arguments import port_number
from llm_sidecar.simulate import (
    DEFAULT_MODELS,
    DEFAULT_PORT,
    Family,
    FaultSpecError,
    SimulatorSettings,
    parse_faults,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_sidecar.simulate import SimulatorHandle

_EPILOG = """\
Faults are name=value,name=value and may also come with one request, in the header x-llm-simulate, or for all requests
under a path: http://127.0.0.1:9900/fault/status=529,fail_times=3/v1. docs/simulator.md lists the names.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "simulate",
        help="simulated OpenAI, Anthropic and Gemini upstreams",
        description="Simulate OpenAI, Anthropic and Gemini on one port, for demos, tests and chaos.",
        epilog=_EPILOG,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=port_number, default=DEFAULT_PORT, help="0 for any free one (default: %(default)s)"
    )
    parser.add_argument("--fault", action="append", default=[], metavar="SPEC", help="faults for every request")
    parser.add_argument("--latency-ms", type=int, metavar="N", help="short for --fault latency_ms=N")
    parser.add_argument(
        "--require-key",
        action="append",
        default=[],
        metavar="KEY",
        help="refuse other keys; openai=KEY, anthropic=KEY or gemini=KEY for one API alone, and for a key with a = in "
        "it; may be repeated",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="API=NAME",
        help="what that API's model list tells, instead of a usual choice; may be repeated",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the ids in answers (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM; 0 after a clean end, 2 when an argument is wrong, 1 when the port is taken."""
    try:
        settings = _settings(args)
    except ValueError as error:
        sys.stderr.write(f"llm-sidecar simulate: {error}\n")
        return 2
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(settings))
    except OSError as error:
        where = f"{settings.host} port {settings.port}"
        sys.stderr.write(f"llm-sidecar simulate: cannot listen on {where}: {error.strerror}. {_fix(error)}\n")
        return 1
    return 0


def _settings(args: argparse.Namespace) -> SimulatorSettings:
    faults = ",".join(args.fault)
    _check_faults("--fault", faults)
    if args.latency_ms is not None:
        faults = f"{faults},latency_ms={args.latency_ms}"
        _check_faults("--latency-ms", faults)
    for key in args.require_key:
        _check_key(key)
    return SimulatorSettings(
        host=args.host,
        port=args.port,
        faults=faults,
        required_keys=tuple(args.require_key),
        seed=args.seed,
        models=_models(args.model, DEFAULT_MODELS),
    )


def _check_faults(option: str, specification: str) -> None:
    try:
        parse_faults(specification)
    except FaultSpecError as error:
        raise ValueError(f"{option}: {error}") from None


def _check_key(told: str) -> None:
    name, equals, key = told.partition("=")
    # A mistyped API is far more likely than a key with a = in it, and would shut everybody out without a word.
    if not told or (equals and not (key and name in set(Family))):
        # Nothing of it is repeated: it may be the key.
        raise ValueError(
            "--require-key: expected KEY, openai=KEY, anthropic=KEY or gemini=KEY, and none of them empty; "
            "a key with a = in it needs the API's name before it"
        )


def _models(told: list[str], usual: Mapping[Family, tuple[str, ...]]) -> Mapping[Family, tuple[str, ...]]:
    chosen: dict[Family, tuple[str, ...]] = {}
    for each in told:
        api, equals, name = each.partition("=")
        if not equals or not name or api not in {str(family) for family in Family}:
            raise ValueError(f"--model {each!r}: expected openai=NAME, anthropic=NAME or gemini=NAME")
        chosen[Family(api)] = (*chosen.get(Family(api), ()), name)
    return {**usual, **chosen}


def _fix(error: OSError) -> str:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "Give --host an address of this machine, such as 127.0.0.1."
    return "Choose another --port, or 0 for any free one."


async def _serve(settings: SimulatorSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(settings) as simulator:
        sys.stdout.write(_banner(simulator))
        sys.stdout.flush()
        await stop.wait()


def _banner(simulator: SimulatorHandle) -> str:
    return (
        f"OpenAI     OPENAI_BASE_URL={simulator.base_url}/v1\n"
        f"Anthropic  ANTHROPIC_BASE_URL={simulator.base_url}\n"
        f"Gemini     GOOGLE_GEMINI_BASE_URL={simulator.base_url}\n"
    )


def _loop_factory() -> Any:
    try:
        import uvloop  # noqa: PLC0415 - not there on every Python
    except ImportError:
        return None
    return uvloop.new_event_loop
