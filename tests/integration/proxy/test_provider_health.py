"""What proxies report of their providers is what the controller reads: both halves, over one real store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pydantic import SecretStr

from llm_operator.reconcile.objects import Key
from llm_operator.reconcile.report_reader import RedisReports
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import Upstream, document, error, provider

Serve = Callable[..., Awaitable[Upstream]]


async def test_the_controller_reads_what_two_proxies_saw(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    well, ill = await serve(), await serve(error(500))
    config = document(
        provider("well", well.base_url, priority=1, retry={"maxAttempts": 1}),
        provider("ill", ill.base_url, retry={"maxAttempts": 1}, circuitBreaker={"failureThreshold": 1000}),
        store_url=store_url,
    )
    proxies = [await start_proxy(config) for _ in range(2)]
    for proxy in proxies:
        for _ in range(3):
            assert (await proxy.chat()).status == 200
        await proxy.sidecar._reports.flush()

    reports = RedisReports(SecretStr(store_url))
    try:
        read = await reports.read([Key("llm-system", "well"), Key("llm-system", "ill"), Key("llm-system", "nobody")])
    finally:
        await reports.close()

    assert read is not None
    well_seen, ill_seen, nobody = (read[Key("llm-system", name)] for name in ("well", "ill", "nobody"))
    assert (well_seen.reporters, well_seen.failing, well_seen.error_share) == (2, 0, 0.0)
    assert well_seen.milliseconds is not None
    assert (ill_seen.reporters, ill_seen.failing, ill_seen.failures) == (2, 2, 6)
    assert (ill_seen.error_share, ill_seen.worst) == (1.0, "server")
    assert nobody.reporters == 0
