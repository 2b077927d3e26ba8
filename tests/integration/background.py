"""Asynchronous servers beside a synchronous test: one event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

Value = TypeVar("Value")


@contextmanager
def in_background(server: AbstractAsyncContextManager[Value]) -> Iterator[Value]:
    """Enter `server` on a loop of its own, which runs until the context ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="background-loop")
    thread.start()
    try:
        value = asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
        try:
            yield value
        finally:
            asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
