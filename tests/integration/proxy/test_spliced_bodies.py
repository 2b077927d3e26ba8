"""A body in which the model's name is replaced keeps every other byte, however it was written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import Upstream, document, provider

Serve = Callable[..., Awaitable[Upstream]]

MESSAGES = '"messages":[{"role":"user","content":"ping"}]'
SENT = '"a-model-of-another-length"'
BODIES = {
    "spaces": f' {{ "model" :\t<"small"> ,\n {MESSAGES} }} ',
    "model last": f'{{{MESSAGES},"model":<"small">}}',
    "escaped value": f'{{"model":<"\\u0073mall">,{MESSAGES}}}',
    "escaped name": f'{{"mod\\u0065l":<"small">,{MESSAGES}}}',
    "the word elsewhere": f'{{"metadata":{{"model":"small"}},{MESSAGES},"model":<"small">}}',
    "in a text": '{"messages":[{"role":"user","content":"\\"model\\":\\"small\\" }] \\\\"}],"model":<"small">}',
    "numbers of all kinds": f'{{"temperature":-1.50e+0,"seed":12345678901234567890,"model":<"small">,{MESSAGES}}}',
    "nested": '{"metadata":{"a":[[],{},[{"b":[null,true,false]}],""]},"model":<"small">,' + MESSAGES + "}",
    "beyond ASCII": '{"user":"\u00fc\U0001f600\u2028","model":<"small">,' + MESSAGES + "}",
}
"""What is to be replaced stands between < and >."""


@pytest.mark.parametrize("marked", BODIES.values(), ids=BODIES)
async def test_only_the_models_name_differs(start_proxy: StartProxy, serve: Serve, marked: str) -> None:
    upstream = await serve()
    models = [{"name": "a-model-of-another-length", "aliases": ["small"]}]
    proxy = await start_proxy(document(provider("p", upstream.base_url, models=models)))
    before, _, rest = marked.partition("<")
    name, _, after = rest.partition(">")

    reply = await proxy.ask("POST", "/v1/chat/completions", data=f"{before}{name}{after}".encode())

    assert reply.status == 200, reply.body
    assert upstream.seen[0].body == f"{before}{SENT}{after}".encode()


@pytest.mark.parametrize(
    "body",
    [
        '{"model":"small","model":"other",' + MESSAGES + "}",
        '{"model":"small","mod\\u0065l":"other",' + MESSAGES + "}",
        '{"model":"small",' + MESSAGES + "} x",
        '{"model":"small",' + MESSAGES,
        "[" * 2000,
    ],
)
async def test_a_body_that_can_be_read_in_two_ways_or_in_none_is_refused(
    start_proxy: StartProxy, serve: Serve, body: str
) -> None:
    upstream = await serve()
    proxy = await start_proxy(document(provider("p", upstream.base_url, models=[{"name": "m", "aliases": ["small"]}])))

    reply = await proxy.ask("POST", "/v1/chat/completions", data=body.encode())

    assert (reply.status, reply.code) == (400, "malformed_request")
    assert not upstream.seen
