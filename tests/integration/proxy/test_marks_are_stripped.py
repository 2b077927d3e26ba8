"""What an application keeps for another provider never reaches its own: every recorded request, with some of it.

After a turn that another provider answered, an application sends back what it got. Its own provider would refuse that.
So such a request is read and written anew, and must come out as it was, but for what is not for that provider.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from llm_sidecar.contract.names import API
from llm_sidecar.translation.openai_responses.marks import seal
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import Upstream, document, plain, provider
from tests.unit.translation.recordings import recorded

Serve = Callable[..., Awaitable[Upstream]]

pytestmark = pytest.mark.needs("recordings")

ANSWERED = plain(b'{"error": {"message": "whatever", "type": "invalid_request_error"}}', status=400)
HEADERS = {"content-type": "application/json", "anthropic-version": "2023-06-01"}


async def sent_on(
    start_proxy: StartProxy, serve: Serve, api: API, requests: list[tuple[str, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """What the provider of this language got."""
    upstream = await serve(ANSWERED)
    kind = "Anthropic" if api is API.ANTHROPIC_MESSAGES else "OpenAI"
    proxy = await start_proxy(document(provider("home", upstream.base_url, type=kind, models=["*"])))
    for path, request in requests:
        reply = await proxy.ask("POST", path, headers=HEADERS, data=orjson.dumps(request))
        assert reply.status == 400, reply.body
        assert b"whatever" in reply.body, reply.body
    assert len(upstream.seen) == len(requests)
    return [orjson.loads(seen.body) for seen in upstream.seen]


async def test_thinking_of_another_provider_does_not_reach_anthropic(start_proxy: StartProxy, serve: Serve) -> None:
    said = {"type": "text", "text": "so be it"}
    foreign = {"type": "thinking", "thinking": "hm", "signature": f"llm-sidecar:{API.GEMINI}:thought:c2ln"}
    user = {"role": "user", "content": "go on"}

    def with_turn(request: dict[str, Any], *blocks: dict[str, Any]) -> dict[str, Any]:
        return {**request, "messages": [*request["messages"], {"role": "assistant", "content": [*blocks]}, user]}

    exchanges = recorded(API.ANTHROPIC_MESSAGES)
    asked = [(exchange.path, with_turn(exchange.request, foreign, said)) for exchange in exchanges]

    got = await sent_on(start_proxy, serve, API.ANTHROPIC_MESSAGES, asked)

    for exchange, request in zip(exchanges, got, strict=True):
        assert request == with_turn(exchange.request, said), exchange.id


async def test_reasoning_of_another_provider_does_not_reach_openai(start_proxy: StartProxy, serve: Serve) -> None:
    foreign = {
        "type": "reasoning",
        "id": "rs_llmsidecar_0123456789abcdef0123_0",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": seal(API.ANTHROPIC_MESSAGES, "signature", None),
    }
    user = {"role": "user", "content": "go on"}

    def with_items(request: dict[str, Any], *items: dict[str, Any]) -> dict[str, Any]:
        given = request["input"]
        before = [{"role": "user", "content": given}] if isinstance(given, str) else given
        return {**request, "input": [*before, *items]}

    exchanges = [each for each in recorded(API.OPENAI_RESPONSES) if "input" in each.request]
    asked = [(exchange.path, with_items(exchange.request, foreign, user)) for exchange in exchanges]

    got = await sent_on(start_proxy, serve, API.OPENAI_RESPONSES, asked)

    for exchange, request in zip(exchanges, got, strict=True):
        assert request == with_items(exchange.request, user), exchange.id
