"""A running simulator, clients of the official SDKs, and a bare client for what no SDK shows."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from llm_sidecar.simulate import SimulatorHandle, SimulatorSettings, running


@pytest.fixture
async def simulator() -> AsyncIterator[SimulatorHandle]:
    async with running(SimulatorSettings(port=0)) as handle:
        yield handle


@pytest.fixture
async def http(simulator: SimulatorHandle) -> AsyncIterator[aiohttp.ClientSession]:
    """A client without retries, redirects or opinions."""
    async with aiohttp.ClientSession(simulator.base_url) as session:
        yield session


@pytest.fixture
async def openai_client(simulator: SimulatorHandle) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{simulator.base_url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
async def anthropic_client(simulator: SimulatorHandle) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=simulator.base_url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
async def gemini_client(simulator: SimulatorHandle) -> AsyncIterator[genai.Client]:
    client = genai.Client(api_key="any", http_options=types.HttpOptions(base_url=simulator.base_url))
    yield client
    await client.aio.aclose()
    client.close()
