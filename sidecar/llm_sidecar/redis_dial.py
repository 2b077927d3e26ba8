"""Opens connections to Redis: transport, login, and first commands in one write."""

from __future__ import annotations

import asyncio
from typing import Final

from llm_sidecar.redis_connection import OnLost, Parsed, RedisConnection, ServerError, packed
from llm_sidecar.redis_endpoint import RedisEndpoint
from llm_sidecar.store import StoreUnavailable

CONNECT_TIMEOUT_SECONDS: Final = 1.0
"""Nobody waits for it but the background: a TLS handshake across zones may take more than a command."""


async def dial(
    endpoint: RedisEndpoint, *commands: bytes, on_lost: OnLost, timeout_seconds: float = CONNECT_TIMEOUT_SECONDS
) -> tuple[RedisConnection, list[Parsed]]:
    """Connect, log in, and send these commands. Their error replies are returned; all else is `StoreUnavailable`."""
    connection = RedisConnection(on_lost=on_lost)
    try:
        async with asyncio.timeout(timeout_seconds):
            await _open_transport(connection, endpoint)
            login = _login(endpoint)
            replies = await _replies(connection, [*login, *commands], timeout_seconds)
    except TimeoutError:
        connection.drop("timeout")
        raise StoreUnavailable("timeout") from None
    except (OSError, ValueError):  # ValueError: a host name that no resolver takes
        connection.drop("connection")
        raise StoreUnavailable("connection") from None
    except BaseException:
        connection.drop("connection")
        raise
    for number, reply in enumerate(replies[: len(login)]):
        if isinstance(reply, ServerError):
            is_password = number == 0 and endpoint.password is not None
            reason = reply.reason(otherwise="authentication" if is_password else "protocol")
            connection.drop(reason)
            raise StoreUnavailable(reason)
    return connection, replies[len(login) :]


async def ask(endpoint: RedisEndpoint, command: bytes, *, timeout_seconds: float = CONNECT_TIMEOUT_SECONDS) -> Parsed:
    """One command over a connection of its own."""
    connection, [reply] = await dial(endpoint, command, on_lost=_not_missed, timeout_seconds=timeout_seconds)
    connection.drop("connection")
    return reply


async def _open_transport(connection: RedisConnection, endpoint: RedisEndpoint) -> None:
    loop = asyncio.get_running_loop()
    if endpoint.path is not None:
        await loop.create_unix_connection(lambda: connection, endpoint.path)
    else:
        await loop.create_connection(lambda: connection, endpoint.host, endpoint.port, ssl=endpoint.tls)


def _login(endpoint: RedisEndpoint) -> list[bytes]:
    commands = []
    if endpoint.password is not None:
        name = (endpoint.username,) if endpoint.username else ()
        commands.append(packed("AUTH", *name, endpoint.password))
    if endpoint.database:
        commands.append(packed("SELECT", endpoint.database))
    return commands


async def _replies(connection: RedisConnection, commands: list[bytes], timeout_seconds: float) -> list[Parsed]:
    loop = asyncio.get_running_loop()
    replies: list[asyncio.Future[Parsed]] = [loop.create_future() for _ in commands]
    deadline = loop.time() + 2 * timeout_seconds  # the attempt's own time-out comes first
    for command, reply_to in zip(commands, replies, strict=True):
        connection.send(command, reply_to=reply_to, deadline=deadline)
    return await asyncio.gather(*replies)


def _not_missed(_connection: RedisConnection, _reason: object) -> None:
    return None
