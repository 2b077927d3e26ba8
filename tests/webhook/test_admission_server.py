"""The listener, over real HTTPS on loopback."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from llm_operator.admin_server import serve_admin
from llm_operator.admission_server import MOST_BODY_BYTES, serve_admission
from llm_operator.certificate_reader import CertificateReader
from llm_operator.webhook_metrics import WebhookMetrics
from tests.golden.injection import CASES, compact, read_pod
from tests.webhook.conftest import MountedSecret
from tests.webhook.reviews import UID, make_admission, patch_of, pod, wire_review

Clients = Callable[..., aiohttp.ClientSession]
_HEADERS = {"content-type": "application/json", "accept": "application/json, */*"}


async def _post(client: aiohttp.ClientSession, url: str, body: bytes) -> tuple[int, dict[str, Any]]:
    # The API server adds its patience to the path.
    async with client.post(f"{url}?timeout=5s", data=io.BytesIO(body), headers=_HEADERS) as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def test_a_review_gets_the_golden_patch_over_https(url: str, api_server: Clients) -> None:
    status, document = await _post(api_server(), f"{url}/inject", wire_review(read_pod(CASES / "smallest")))
    assert status == 200
    assert patch_of(document["response"]) == compact((CASES / "smallest" / "patch.json").read_text(encoding="utf-8"))


async def test_a_review_of_five_megabytes_is_answered(url: str, api_server: Clients) -> None:
    """Kopf's own server stops at one."""
    submitted = pod()
    submitted["spec"]["containers"][0]["env"] = [{"name": "BLOB", "value": "x" * 5_000_000}]
    status, document = await _post(api_server(), f"{url}/inject", wire_review(submitted))
    assert (status, document["response"]["allowed"]) == (200, True)


async def test_ten_large_reviews_at_once_wait_for_each_other(url: str, api_server: Clients) -> None:
    submitted = pod()
    submitted["metadata"]["annotations"]["blob"] = "x" * 1_500_000
    body, client = wire_review(submitted), api_server()
    answers = await asyncio.gather(*(_post(client, f"{url}/inject", body) for _ in range(10)))
    assert {document["response"]["allowed"] for _, document in answers} == {True}


async def test_a_review_beyond_the_limit_is_refused_in_words(url: str, api_server: Clients) -> None:
    status, document = await _post(api_server(), f"{url}/inject", b"x" * (MOST_BODY_BYTES + 1))
    assert (status, document["kind"], document["code"]) == (413, "Status", 413)
    assert "8 MiB" in document["message"]


async def test_a_wrong_path_never_allows(url: str, api_server: Clients) -> None:
    status, document = await _post(api_server(), f"{url}/mutate", wire_review(pod()))
    assert (status, document["response"]["uid"], document["response"]["allowed"]) == (200, UID, False)


@pytest.mark.parametrize("path", ["/inject", "/warn", "/"])
async def test_other_methods_are_told_what_this_is(url: str, api_server: Clients, path: str) -> None:
    async with api_server().get(url + path) as response:
        assert response.status == 405
        assert "AdmissionReviews" in (await response.json())["message"]


async def test_a_defect_outside_of_the_decision_is_an_answer_too(
    url: str, api_server: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("sk-a-key")

    monkeypatch.setattr("llm_operator.admission._document", fail)
    status, document = await _post(api_server(), f"{url}/inject", wire_review(pod()))
    assert (status, document["kind"]) == (500, "Status")
    assert "sk-a-key" not in json.dumps(document)


async def test_a_hundred_reviews_at_once_each_get_their_own_answer(url: str, api_server: Clients) -> None:
    client = api_server()
    bodies = [wire_review(pod(), uid=f"uid-{number}") for number in range(100)]
    answers = await asyncio.gather(*(_post(client, f"{url}/inject", body) for body in bodies))
    assert [document["response"]["uid"] for _, document in answers] == [f"uid-{number}" for number in range(100)]
    assert all(document["response"]["allowed"] for _, document in answers)


async def test_certificates_change_under_load_without_a_failed_handshake(
    url: str, api_server: Clients, mounted: MountedSecret, reader: CertificateReader
) -> None:
    """Each call is a new handshake; the certificate changes again and again meanwhile."""
    client, shown, done = api_server(force_close=True), set[str](), asyncio.Event()

    async def call_until_done() -> int:
        calls = 0
        while not done.is_set():
            async with client.post(f"{url}/inject", data=wire_review(pod()), headers=_HEADERS) as response:
                assert response.status == 200
                assert (await response.json())["response"]["allowed"]
                calls += 1
        return calls

    callers = [asyncio.create_task(call_until_done()) for _ in range(8)]
    for _ in range(20):
        mounted.show()
        reader.refresh()
        shown.add(await _serial(url, mounted))
    done.set()
    assert sum(await asyncio.gather(*callers)) >= len(callers)
    assert len(shown) == 20


async def _serial(url: str, mounted: MountedSecret) -> str:
    port = int(url.rsplit(":", 1)[1])
    _, writer = await asyncio.open_connection("localhost", port, ssl=mounted.client_context())
    serial: str = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    await writer.wait_closed()
    return serial


async def test_an_open_connection_survives_the_change(
    url: str, api_server: Clients, mounted: MountedSecret, reader: CertificateReader
) -> None:
    client = api_server()
    for _ in range(3):
        status, _ = await _post(client, f"{url}/inject", wire_review(pod()))
        assert status == 200
        mounted.show()
        reader.refresh()


async def test_a_broken_pair_on_disk_does_not_disturb_the_listener(
    url: str, api_server: Clients, mounted: MountedSecret, reader: CertificateReader
) -> None:
    """Loaded into the live context, a certificate without its key would fail every handshake."""
    before = await _serial(url, mounted)
    mounted.write((mounted.directory / "tls.crt").read_bytes(), b"garbage")
    reader.refresh()
    assert await _serial(url, mounted) == before
    assert (await _post(api_server(force_close=True), f"{url}/inject", wire_review(pod())))[0] == 200


async def test_a_client_that_does_not_speak_tls_disturbs_nobody(url: str, api_server: Clients) -> None:
    port = int(url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("localhost", port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await reader.read()
    writer.close()
    assert (await _post(api_server(), f"{url}/inject", wire_review(pod())))[0] == 200


async def test_probes_and_metrics_have_a_listener_of_their_own() -> None:
    ready = {"certificate": False, "teams": True}
    async with (
        serve_admin(WebhookMetrics().exposition, lambda: ready, host="127.0.0.1", port=0) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        async with client.get("/readyz") as response:
            assert (response.status, await response.json()) == (503, ready)
        ready["certificate"] = True
        async with client.get("/readyz") as response:
            assert response.status == 200
        async with client.get("/healthz") as response:
            assert response.status == 200
        async with client.get("/metrics") as response:
            assert "llm_operator_webhook_certificate_expiry_timestamp_seconds 0.0" in await response.text()


async def test_a_request_under_way_is_answered_when_the_listener_closes(
    mounted: MountedSecret, reader: CertificateReader, api_server: Clients
) -> None:
    mounted.show()
    reader.refresh()
    async with serve_admission(make_admission(), context=reader.context, host="127.0.0.1", port=0) as port:
        arrived, body = asyncio.Event(), wire_review(pod())

        async def slowly() -> Any:
            yield body[:10]
            arrived.set()
            yield body[10:]

        call = asyncio.create_task(_send(api_server(), f"https://localhost:{port}/inject", slowly()))
        await arrived.wait()
    assert await call == 200


async def _send(client: aiohttp.ClientSession, url: str, data: Any) -> int:
    async with client.post(url, data=data, headers=_HEADERS) as response:
        return response.status
