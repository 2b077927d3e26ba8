"""What `run` and `serve` share: the event loop, signals, the log, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Final

from llm_sidecar.app import Listening, Sidecar
from llm_sidecar.contract.config import ConfigRefused
from llm_sidecar.reload import ConfigSource, Reloader

if TYPE_CHECKING:
    from llm_sidecar.contract.config import ConfigDocument

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
REFUSED: Final = 1


def set_up_log(level: str) -> None:
    """Our own log goes to standard error; standard output is the audit log's."""
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def load_or_explain(source: ConfigSource) -> ConfigDocument | None:
    """The first configuration. Without one there is nothing to serve: say why, one line per problem."""
    try:
        return source.load()
    except ConfigRefused as error:
        explain(*error.problems)
        return None


def explain(*problems: str) -> None:
    """Tell why the command ends."""
    for problem in problems:
        sys.stderr.write(f"{problem}\n")


async def serve_until_told(
    source: ConfigSource,
    sidecar: Sidecar,
    *,
    port: int,
    admin_port: int,
    admin_host: str,
    announce: Callable[[Listening], None],
) -> int:
    """Serve until SIGTERM or SIGINT, then end in order. Returns the exit status."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        # Before the start, which takes a moment: what changes meanwhile is seen then.
        reloader = Reloader(source, sidecar.apply, sidecar.health)
        listening = await sidecar.start(port=port, admin_port=admin_port, admin_host=admin_host)
    except ConfigRefused as error:
        explain(*error.problems)
        return REFUSED
    except OSError as error:
        explain(f"cannot listen on port {port} or {admin_port} ({error.strerror}): choose others")
        return REFUSED
    reloading = loop.create_task(reloader.run())
    announce(listening)
    await stopping.wait()
    reloading.cancel()
    await asyncio.gather(reloading, return_exceptions=True)
    await sidecar.stop()
    return 0


def run_loop(main: Callable[[], Coroutine[None, None, int]]) -> int:
    """Run a coroutine function to its end, on uvloop where there is one."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
