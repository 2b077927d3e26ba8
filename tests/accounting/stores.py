"""The store of the check: a primary with its data on disk, and a replica behind a link that can be made to lag."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from hiredis import Reader, pack_command

from tests.accounting.fault_proxy import FaultProxy
from tests.integration.store.servers import VALKEY, Server

PATIENCE_SECONDS: Final = 10.0
OPTIONS: Final = (
    *("--appendonly", "yes", "--appendfsync", "no"),  # written before each reply: only a kernel's crash would lose it
    *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--repl-timeout", "60"),
    *("--repl-diskless-load", "swapdb", "--auto-aof-rewrite-percentage", "0"),
)


class Stores:
    """Two servers, of which one is the primary."""

    def __init__(self, primary: Server, replica: Server, link: FaultProxy) -> None:
        self.primary = primary
        self.replica = replica
        self.link = link
        """From the replica to the primary."""

    async def ask_all(self, server: Server, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        """Some commands in one go, of which none may fail."""
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            writer.writelines(pack_command(words) for words in commands)  # type: ignore[arg-type]
            parser, replies = Reader(), list[Any]()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(replies) < len(commands):
                    data = await reader.read(2**20)
                    if not data:
                        raise ConnectionResetError
                    parser.feed(data)
                    while len(replies) < len(commands) and (reply := parser.gets()) is not False:
                        replies.append(reply)
        finally:
            writer.transport.abort()
        for reply in replies:
            if isinstance(reply, Exception):
                raise ConnectionResetError(str(reply))  # it is loading, or going away
        return replies

    async def restart(self, *, empty: bool) -> None:
        """Kill the primary and start it again, with its data or without."""
        self.primary.kill()
        if empty:
            shutil.rmtree(self.primary.folder / "appendonlydir")
        await self.primary.start()

    async def in_step(self) -> None:
        """Wait until the replica follows the primary."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    if await self.replica.info("replication", "master_link_status") == "up":
                        return
                except OSError:
                    pass
                await asyncio.sleep(0.02)

    async def promote(self) -> None:
        """Make the replica the primary, with no more than it has; the old one is told nothing."""
        await self.replica.ask("REPLICAOF", "NO", "ONE")
        self.primary, self.replica = self.replica, self.primary
        self.link.drop()
        self.link.target_port = self.primary.port
        self.link.thaw()

    async def follow(self) -> None:
        """Make the old primary a replica of the new one. If it is gone, it starts again, empty."""
        if self.replica.process is None:
            shutil.rmtree(self.replica.folder / "appendonlydir")
            await self.replica.start()
        await self.replica.ask("REPLICAOF", "127.0.0.1", self.link.port)


@asynccontextmanager
async def running() -> AsyncIterator[Stores]:
    """Start both."""
    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-sidecar-")))
        servers: list[Server] = []
        for name in ("first", "second"):
            folder = root / name
            folder.mkdir()
            servers.append(Server(program=VALKEY, folder=folder, options=OPTIONS))
            stack.callback(servers[-1].kill)
            await servers[-1].start()
        primary, replica = servers
        link = await stack.enter_async_context(FaultProxy(primary.port).listening())
        await replica.ask("REPLICAOF", "127.0.0.1", link.port)
        stores = Stores(primary, replica, link)
        await stores.in_step()
        yield stores
