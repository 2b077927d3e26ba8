"""Calls in other languages: what the upstream sends is right by the load generator's own look, and little else is."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from tests.bench.fake_upstream import REFUSING_PATH, UpstreamProtocol
from tests.bench.load import LoadSettings, run
from tests.bench.pairs import ANSWERS, PAIRS, PROVIDERS, STREAMS, TRANSLATED, Language, is_right
from tests.bench.payloads import Kind
from tests.bench.test_load import serving

KINDS: Final = (Kind.PLAIN, Kind.STREAM)


def _body(language: Language, kind: Kind) -> bytes:
    return ANSWERS[language] if kind is Kind.PLAIN else b"".join(STREAMS[language])


@pytest.mark.parametrize("language", PROVIDERS)
@pytest.mark.parametrize("kind", KINDS)
async def test_each_providers_own_language_can_be_measured_without_a_proxy(language: Language, kind: Kind) -> None:
    async with serving(UpstreamProtocol) as port:
        pair = f"{language} to {language}"
        result = await run(LoadSettings(port=port, kind=kind, concurrency=2, requests=6, pair=pair))

    assert (result.errors, result.requests) == ({}, 6)


@pytest.mark.parametrize("language", PROVIDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_lacks_some_of_the_text_or_its_end_is_wrong(language: Language, kind: Kind) -> None:
    body = _body(language, kind)

    assert is_right(language, kind, body)
    assert not is_right(language, kind, body[: len(body) // 2])
    assert not is_right(language, kind, body.replace(b" word30", b"").replace(b"aaaa", b"a"))
    assert not any(is_right(other, kind, body) for other in Language if other is not language)


def test_every_pair_has_a_name_and_a_model_of_its_own() -> None:
    assert len({pair.model for pair in PAIRS.values()}) == len(PAIRS) == len(TRANSLATED) + len(PROVIDERS)


async def test_the_refusing_provider_tells_no_time_to_come_again() -> None:
    async with serving(UpstreamProtocol) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"POST {REFUSING_PATH}/v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\n\r\n{{}}".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    assert head.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after" not in head.lower()
