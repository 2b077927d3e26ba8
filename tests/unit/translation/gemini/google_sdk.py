"""Google's own SDK, which reads what was written for it. One client serves all tests: making one takes long."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

import httpx2
from google import genai
from google.genai import types

_NEXT: Final[list[bytes]] = []


def reads_answer(document: Any) -> types.GenerateContentResponse:
    """What an application gets for this answer."""
    _NEXT.append(json.dumps(document).encode())
    return _client().models.generate_content(model="m", contents="Hello")


def reads_stream(stream: bytes) -> list[types.GenerateContentResponse]:
    """What an application gets that reads this stream."""
    _NEXT.append(stream)
    return list(_client().models.generate_content_stream(model="m", contents="Hello"))


@cache
def _client() -> genai.Client:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=_NEXT.pop()))
    options = types.HttpOptions(base_url="http://127.0.0.1:1", httpx_client=httpx2.Client(transport=transport))
    return genai.Client(api_key="k", http_options=options)
