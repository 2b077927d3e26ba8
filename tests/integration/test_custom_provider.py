"""A provider type from somebody else's package, installed as any package is, in a running proxy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from openai import OpenAI

from llm_sidecar.providers.base import Provider, ProviderSettings, SecretText
from llm_sidecar.providers.factory import LLMProviderFactory
from llm_sidecar.upstream import Egress, PooledTransport
from tests.integration.conftest import SimulatedProvider, StartSidecar
from tests.integration.processes import Sidecar

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom-provider"
SIMULATOR = "http://127.0.0.1:9900"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the example's package is installed, apart from everything else."""
    target = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "package")
    uv = str(Path(sys.executable).with_name("uv"))
    options = ("--quiet", "--offline", "--no-build-isolation", "--no-deps", "--python", sys.executable)
    subprocess.run([uv, "pip", "install", *options, "--target", str(target), str(source)], check=True)
    return target


@pytest.fixture
def acme(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Provider]]:
    """The example's class, found in this process by its entry point."""
    monkeypatch.syspath_prepend(installed)
    monkeypatch.setattr(LLMProviderFactory, "_registered", {})
    yield LLMProviderFactory.provider_class("Acme")
    sys.modules.pop("acme_llm_sidecar", None)


def _manifest(base_url: str) -> str:
    text = (EXAMPLE / "acme.yaml").read_text(encoding="utf-8")
    assert SIMULATOR in text
    return text.replace(SIMULATOR, base_url)


def _environment(installed: Path, key: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": _path(installed), "ACME_API_KEY": key}


def _path(installed: Path) -> str:
    """With where this checkout's own packages may be found, if that is told so."""
    return os.pathsep.join(filter(None, (str(installed), os.environ.get("PYTHONPATH"))))


def _ask(sidecar: Sidecar, model: str) -> tuple[str, str]:
    """The answer of an OpenAI SDK, and the provider that gave it."""
    with OpenAI(base_url=f"{sidecar.base_url}/v1", api_key=sidecar.token, max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": "Hello"}]
        )
        return raw.parse().choices[0].message.content or "", raw.headers["x-llm-sidecar-provider"]


def test_a_request_goes_through_a_provider_of_an_outside_package(
    installed: Path, simulator: SimulatedProvider, start_sidecar: StartSidecar
) -> None:
    sidecar = start_sidecar(_manifest(simulator.base_url), environment=_environment(installed, simulator.key))

    text, provider = _ask(sidecar, "large")

    assert "Hello" in text
    assert provider == "acme"
    assert f"api-key: {simulator.key}".encode() in simulator.tap.heard
    assert b"authorization" not in simulator.tap.heard.lower()


def test_its_own_reading_of_a_status_leads_to_the_next_provider(
    installed: Path, simulator: SimulatedProvider, start_sidecar: StartSidecar
) -> None:
    """Acme's 402 means that its allotment is spent, where others mean our account."""
    spent = _manifest(f"{simulator.base_url}/fault/status=402")
    standby = (
        spent.split("---\n")[1]
        .replace("{name: acme, namespace", "{name: standby, namespace")
        .replace("/fault/status=402", "")
    )
    sidecar = start_sidecar(f"{spent}---\n{standby}  priority: 1\n", environment=_environment(installed, simulator.key))

    assert _ask(sidecar, "large")[1] == "standby"
    refused = sidecar.stdout.wait_for(lambda line: '"provider":"standby"' in line)
    assert '"provider":"acme","model":"acme-large","outcome":"rate_limited","status":402' in refused


def test_check_knows_the_type_only_where_its_package_is_installed(installed: Path) -> None:
    command = [sys.executable, "-m", "llm_sidecar", "check", "-f", str(EXAMPLE / "acme.yaml")]
    environment = {**os.environ, "ACME_API_KEY": "any"}

    without = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    with_it = subprocess.run(
        command, env=environment | {"PYTHONPATH": str(installed)}, check=False, capture_output=True, text=True
    )

    assert (without.returncode, with_it.returncode) == (1, 0)
    assert "no provider of this type is registered" in without.stderr
    assert "install the package with it" in without.stderr


@pytest.mark.parametrize(("key", "accepted"), [("right", True), ("wrong", False)])
async def test_its_key_check_asks_its_own_path(acme: type[Provider], key: str, accepted: bool) -> None:
    async with _account_server("right") as base_url:
        transport = PooledTransport(Egress())
        provider = acme(ProviderSettings("acme", base_url=base_url, key=SecretText(key)), transport)

        check = await provider.validate_key()
        await transport.close()

    assert check.accepted is accepted


@asynccontextmanager
async def _account_server(key: str) -> AsyncIterator[str]:
    """Knows nothing but `GET /v1/account`."""

    async def account(request: web.Request) -> web.Response:
        return web.json_response({}, status=200 if request.headers.get("api-key") == key else 401)

    application = web.Application()
    application.router.add_get("/v1/account", account)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
