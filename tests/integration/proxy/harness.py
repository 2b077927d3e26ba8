"""A proxy inside the test's own event loop, and providers on loopback that answer exactly as a test wants.

In one process a test may look at both ends of every connection, and no port is chosen before it is bound.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from llm_sidecar.app import Listening, Sidecar
from llm_sidecar.contract.config import ConfigDocument, parse_config

TOKEN: Final = "token-of-this-pod"
KEY: Final = "sk-provider-key"
PATIENCE_SECONDS: Final = 10.0
CHAT_PATH: Final = "/v1/chat/completions"

CHAT_ANSWER: Final = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "pong"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
)


# --- what a provider does

Answer = Callable[[web.BaseRequest, bytes], Awaitable[web.StreamResponse]]
Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request as it reached a provider."""

    method: str
    path: str
    headers: CIMultiDict[str]
    body: bytes


@dataclass(slots=True, kw_only=True)
class Upstream:
    """A provider under the test's control."""

    base_url: str
    seen: list[Seen] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a connection was lost before its answer was complete."""


def held_back(gate: asyncio.Event, then: Answer) -> Answer:
    """Answer once the gate is open."""

    async def answer(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        await gate.wait()
        return await then(request, body)

    return answer


def plain(
    body: bytes = CHAT_ANSWER, *, status: int = 200, content_type: str = "application/json", **headers: str
) -> Answer:
    """Answer always the same."""

    async def answer(_request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers={"content-type": content_type, **named})

    return answer


def error(status: int, message: str = "the provider's own words") -> Answer:
    """An error in OpenAI's shape."""
    body = orjson.dumps({"error": {"message": message, "type": "t", "param": None, "code": "c"}})
    return plain(body, status=status)


def streaming(
    *pieces: bytes,
    content_type: str = "text/event-stream",
    hold: asyncio.Event | None = None,
    cut: bool = False,
    pause_before_last: float = 0,
) -> Answer:
    """Send pieces, the last one after a pause; wait for `hold`, if told; end cleanly, or cut the connection."""

    async def answer(request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": content_type})
        await response.prepare(request)
        for number, piece in enumerate(pieces, 1):
            await asyncio.sleep(pause_before_last if number == len(pieces) else 0)
            await response.write(piece)
        if hold is not None:
            await hold.wait()
        if cut:
            assert request.transport is not None
            request.transport.abort()
        else:
            await response.write_eof()
        return response

    return answer


@asynccontextmanager
async def upstream(
    answer: Answer, *, tls: ssl.SSLContext | None = None, reads_body: bool = True
) -> AsyncIterator[Upstream]:
    """A provider that answers by a function."""
    self = Upstream(base_url="")

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read() if reads_body else b""
        self.seen.append(
            Seen(method=request.method, path=request.raw_path, headers=CIMultiDict(request.headers), body=body)
        )
        try:
            return await answer(request, body)
        except (asyncio.CancelledError, ConnectionError):
            self.gone.set()
            raise

    runner = web.ServerRunner(
        web.Server(handle, access_log=None, handler_cancellation=True, auto_decompress=False),
        shutdown_timeout=0.1,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
        self.base_url = f"{scheme}://{host}:{runner.addresses[0][1]}"
        yield self
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(converse: Conversation) -> AsyncIterator[int]:
    """A server of bytes; gives its port. Every conversation ends with its connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


def says(*pieces: bytes) -> Conversation:
    """Read one request, then send these bytes and close."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return converse


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of one request with a Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    return head, await reader.readexactly(length)


# --- configuration


def provider(name: str, base_url: str, **spec: Any) -> dict[str, Any]:
    """A provider entry; a key unless `credential` says None. All other arguments are fields of its spec."""
    secret = {
        "credential": spec.pop("credential", KEY),
        "caBundle": spec.pop("ca_bundle", None),
        "clientCertificate": spec.pop("client_certificate", None),
    }
    kind = spec.pop("type", "OpenAI")
    models = spec.pop("models", ["m"])
    full = {
        "type": kind,
        "baseURL": base_url + ("/v1" if kind == "OpenAI" else ""),
        "models": [{"name": model} if isinstance(model, str) else model for model in models],
        **spec,
    }
    if secret["credential"] is not None:
        full["credentials"] = {"secretKeyRef": {"name": "s", "key": "k"}}
    told = {key: value for key, value in secret.items() if value is not None}
    return {"namespace": "llm-system", "name": name, "shared": True, "spec": full, **told}


def document(
    *providers: dict[str, Any], store_url: str | None = None, team: dict[str, Any] | None = None
) -> ConfigDocument:
    """A config document; `team` is the spec of TeamQuota `payments/payments`."""
    raw: dict[str, Any] = {"schemaVersion": 1, "minimumReaderVersion": 1, "providers": list(providers)}
    if store_url is not None:
        raw["store"] = {"url": store_url}
    if team is not None:
        raw["team"] = {"namespace": "payments", "name": "payments", "spec": team}
    return parse_config(orjson.dumps(raw))


# --- the proxy


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer as an application received it."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The stable code of an error of ours, wherever its API puts it; and it must be in that shape."""
        body = self.json()
        error = (body[0] if isinstance(body, list) else body)["error"]
        assert self.headers["x-llm-sidecar-refused-by"] == "llm-sidecar"
        if "status" in error:  # Gemini
            assert error["code"] == self.status
            return str(next(detail["reason"] for detail in error["details"] if "reason" in detail))
        return str(error["code"] if "code" in error else error["details"]["error_code"])

    @property
    def request_id(self) -> str:
        """The id of the audit line."""
        return self.headers["x-llm-sidecar-request-id"]


@dataclass(slots=True, kw_only=True)
class Proxy:
    """A running proxy and an application's session with it."""

    sidecar: Sidecar
    listening: Listening
    session: aiohttp.ClientSession
    audit_path: Path

    @property
    def base_url(self) -> str:
        """Without `/v1`."""
        return f"http://127.0.0.1:{self.listening.port}"

    def open(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, data: Any = None) -> Any:
        """An aiohttp request, to be entered: for streams and hang-ups."""
        own = {"authorization": f"Bearer {TOKEN}"} if headers is None or "authorization" not in headers else {}
        return self.session.request(
            method, URL(self.base_url + path, encoded=True), data=data, headers={**own, **(headers or {})}
        )

    async def ask(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, data: Any = None) -> Reply:
        """One request with the pod's token, unless `headers` say otherwise."""
        async with self.open(method, path, headers=headers, data=data) as response:
            return Reply(status=response.status, headers=CIMultiDict(response.headers), body=await response.read())

    async def chat(self, *, headers: Mapping[str, str] | None = None, **members: Any) -> Reply:
        """One chat completion."""
        return await self.ask("POST", CHAT_PATH, headers=headers, data=chat_body(**members))

    async def raw(self, data: bytes) -> bytes:
        """Send bytes and read until the proxy closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listening.port)
        try:
            writer.write(data)
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await reader.read()
        finally:
            writer.close()

    async def audit_line(self, request_id: str) -> dict[str, Any]:
        """The audit line of a request, as soon as it is written."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found.extend(line for line in self.audit_lines() if line["request_id"] == request_id)
            return bool(found)

        await until(is_there)
        return found[0]

    def audit_lines(self) -> list[dict[str, Any]]:
        """All whole lines so far."""
        whole, _, _ = self.audit_path.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    async def last_audit_line(self, count: int = 1) -> dict[str, Any]:
        """The last of at least `count` lines."""
        await until(lambda: len(self.audit_lines()) >= count)
        return self.audit_lines()[-1]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        text = self.sidecar.metrics.exposition().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and all(sample.labels[key] == value for key, value in labels.items())
        )

    async def admin(self, path: str) -> Reply:
        """A request to the admin listener."""
        url = f"http://127.0.0.1:{self.listening.admin_port}{path}"
        async with self.session.get(url) as response:
            return Reply(status=response.status, headers=CIMultiDict(response.headers), body=await response.read())

    async def is_well(self) -> None:
        """The process goes on: a good request is answered."""
        reply = await self.chat()
        assert reply.status == 200, reply.body


def chat_body(**members: Any) -> bytes:
    """A request for a chat completion."""
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "ping"}], **members})


async def until(condition: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for what happens by itself."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.005)
