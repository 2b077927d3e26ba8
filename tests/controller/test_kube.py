"""The client, against an HTTP server that answers as the API server does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import kopf
import pytest
from aiohttp import web

from llm_operator.kube import LLM_PROVIDER, POD, SECRET, ApiError, KubeClient


class Server:
    """Answers from a list, and keeps what came."""

    def __init__(self) -> None:
        self.answers: list[web.Response] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        return self.answers.pop(0)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def kube(server: Server) -> AsyncIterator[KubeClient]:
    tokens = iter(["old", "new"])
    client = KubeClient(lambda: kopf.ConnectionInfo(server=server.url, token=next(tokens)))
    yield client
    await client.close()


def _refusal(status: int, reason: str) -> web.Response:
    return web.json_response({"kind": "Status", "reason": reason, "message": "quotes what was sent"}, status=status)


async def test_a_listing_is_read_page_by_page(server: Server, kube: KubeClient) -> None:
    first = {"metadata": {"continue": "more", "resourceVersion": "7"}, "items": [{"metadata": {"name": "a"}}]}
    second = {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "b"}}]}
    server.answers = [web.json_response(first), web.json_response(second)]

    listing = await kube.list(POD, labels="a=b")

    assert ([one["metadata"]["name"] for one in listing.items], listing.version) == (["a", "b"], "7")
    assert [path for _, path, _, _ in server.requests] == [
        "/api/v1/pods?limit=500&labelSelector=a%3Db",
        "/api/v1/pods?limit=500&labelSelector=a%3Db&continue=more",
    ]


async def test_an_expired_token_is_read_again(server: Server, kube: KubeClient) -> None:
    server.answers = [_refusal(401, "Unauthorized"), web.json_response({"metadata": {"name": "a"}})]

    assert await kube.get(LLM_PROVIDER, namespace="n", name="a") is not None
    assert [headers["Authorization"] for _, _, headers, _ in server.requests] == ["Bearer old", "Bearer new"]


async def test_an_error_tells_its_reason_and_quotes_nothing(server: Server, kube: KubeClient) -> None:
    server.answers = [_refusal(422, "Invalid")]

    with pytest.raises(ApiError) as caught:
        await kube.apply(SECRET, {"metadata": {"namespace": "n", "name": "s"}, "data": {"k": "c2VjcmV0"}})

    assert str(caught.value) == "the API server answered 422 Invalid"


async def test_the_server_says_how_long_to_wait(server: Server, kube: KubeClient) -> None:
    server.answers = [web.json_response({"reason": "TooManyRequests"}, status=429, headers={"Retry-After": "7"})]

    with pytest.raises(ApiError) as caught:
        await kube.get(POD, namespace="n", name="p")

    assert caught.value.retry_after_seconds == 7


async def test_what_is_missing_is_none_and_its_deletion_is_no_error(server: Server, kube: KubeClient) -> None:
    server.answers = [_refusal(404, "NotFound") for _ in range(3)]

    assert await kube.get(POD, namespace="n", name="p") is None
    assert not await kube.exists(SECRET, namespace="n", name="s")
    await kube.delete(SECRET, namespace="n", name="s")


async def test_whether_a_secret_exists_is_asked_without_its_data(server: Server, kube: KubeClient) -> None:
    server.answers = [web.json_response({"kind": "PartialObjectMetadata"})]

    assert await kube.exists(SECRET, namespace="n", name="s")
    assert "as=PartialObjectMetadata" in server.requests[0][2]["Accept"]


async def test_a_status_is_patched_by_itself(server: Server, kube: KubeClient) -> None:
    server.answers = [web.json_response({})]
    await kube.merge(LLM_PROVIDER, namespace="n", name="a", patch={"status": {}}, subresource="status")

    method, path, headers, body = server.requests[0]
    assert (method, headers["Content-Type"]) == ("PATCH", "application/merge-patch+json")
    assert path.startswith("/apis/llm-sidecar.io/v1alpha1/namespaces/n/llmproviders/a/status?")
    assert json.loads(body) == {"status": {}}


async def test_a_watch_reads_objects_of_any_length(server: Server, kube: KubeClient) -> None:
    long = {"metadata": {"name": "a"}, "data": {"k": "x" * 900_000}}
    lines = [json.dumps({"type": "ADDED", "object": long}), json.dumps({"type": "DELETED", "object": long})]
    server.answers = [web.Response(text="\n".join(lines) + "\n")]

    found = [event async for event in kube.watch(SECRET, namespace="n", labels="", version="1")]

    assert [event.type for event in found] == ["ADDED", "DELETED"]
    assert found[0].document == long


async def test_a_watch_that_is_too_old_says_so(server: Server, kube: KubeClient) -> None:
    gone = {"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}
    server.answers = [web.Response(text=json.dumps(gone) + "\n")]

    with pytest.raises(ApiError) as caught:
        [event async for event in kube.watch(SECRET, namespace="n", labels="", version="1")]

    assert caught.value.status == 410


async def test_an_api_server_that_is_away_is_an_api_error() -> None:
    client = KubeClient(lambda: kopf.ConnectionInfo(server="http://127.0.0.1:9"))

    with pytest.raises(ApiError) as caught:
        await client.list(POD)

    assert caught.value.status == 0
    await client.close()
