"""What is no HTTP is answered like any other refusal: with an id, an audit line and a count."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import Upstream, document, provider

Serve = Callable[..., Awaitable[Upstream]]


async def test_what_is_no_http_has_an_id_an_audit_line_and_a_count(start_proxy: StartProxy, serve: Serve) -> None:
    proxy = await start_proxy(document(provider("p", (await serve()).base_url)))

    answer = await proxy.raw(b"GET / HTTP/1.1\r\nBad Header: secret\r\n\r\n")

    head, _, body = answer.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert head.startswith(b"HTTP/1.0 400 ")  # the version that every client understands, and that closes
    assert headers[b"x-llm-sidecar-refused-by"] == b"llm-sidecar"
    assert json.loads(body)["error"]["code"] == "malformed_http"
    line = await proxy.audit_line(headers[b"x-llm-sidecar-request-id"].decode())
    assert (line["status"], line["error"], line["provider"]) == (400, "malformed_http", "none")
    assert proxy.metric("llm_requests_total", status="400") == 1
    assert "secret" not in json.dumps(line)
