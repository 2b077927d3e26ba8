"""Bodies of the trace beside those that the real SDKs send for the same call."""

import json
from collections.abc import Callable
from itertools import islice
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import types

from tests.trace.drawing import Trace
from tests.trace.requests import Family, Kind, Request


class Sent(Exception):
    """What an SDK was about to send."""

    def __init__(self, path: str, body: Any) -> None:
        super().__init__(path)
        self.path = path
        self.body = body


def capture(request: httpx2.Request) -> httpx2.Response:
    path = request.url.raw_path.decode()
    raise Sent(path, json.loads(request.content))


def asked_through_openai(request: Request) -> None:
    client = openai.OpenAI(
        api_key="any", max_retries=0, http_client=httpx2.Client(transport=httpx2.MockTransport(capture))
    )
    document: Any = json.loads(request.body)
    if request.kind is Kind.EMBEDDINGS:
        del document["encoding_format"]  # the SDK's own choice
        client.embeddings.create(**document)
    elif request.kind is Kind.COUNT:
        client.responses.input_tokens.count(**document)
    else:
        client.chat.completions.create(**document)


def asked_through_anthropic(request: Request) -> None:
    client = anthropic.Anthropic(
        api_key="any", max_retries=0, http_client=httpx2.Client(transport=httpx2.MockTransport(capture))
    )
    document: Any = json.loads(request.body)
    if request.kind is Kind.COUNT:
        client.messages.count_tokens(**document)
    else:
        # The newest SDK has no such parameter; who wants it says it like this.
        beside = {name: document.pop(name) for name in ("temperature",) if name in document}
        client.messages.create(**document, extra_body=beside)


def asked_through_google(request: Request) -> None:
    options = types.HttpOptions(httpx_client=httpx2.Client(transport=httpx2.MockTransport(capture)))
    client = genai.Client(api_key="any", http_options=options)
    document = json.loads(request.body)
    model, text = request.path.split("/")[-1].partition(":")[0], document["contents"][0]["parts"][0]["text"]
    if request.kind is Kind.COUNT:
        client.models.count_tokens(model=model, contents=text)
        return
    configuration = types.GenerateContentConfig(
        system_instruction=document["systemInstruction"]["parts"][0]["text"],
        max_output_tokens=document["generationConfig"]["maxOutputTokens"],
        temperature=document["generationConfig"].get("temperature"),
    )
    if request.stream:
        next(client.models.generate_content_stream(model=model, contents=text, config=configuration))
    else:
        client.models.generate_content(model=model, contents=text, config=configuration)


ASKED: dict[Family, Callable[[Request], None]] = {
    Family.OPENAI: asked_through_openai,
    Family.ANTHROPIC: asked_through_anthropic,
    Family.GEMINI: asked_through_google,
}


def examples() -> dict[str, Request]:
    drawn = islice(Trace(1, name="sdk"), 400)
    return {f"{one.family}-{one.kind}-{one.stream}-{one.deterministic}".replace(", ", "-"): one for one in drawn}


@pytest.mark.parametrize("request_drawn", examples().values(), ids=examples())
def test_an_sdk_sends_this_body_to_this_path(request_drawn: Request) -> None:
    with pytest.raises((Sent, openai.APIConnectionError, anthropic.APIConnectionError)) as caught:
        ASKED[request_drawn.family](request_drawn)
    error = caught.value
    sent = error if isinstance(error, Sent) else error.__cause__
    assert isinstance(sent, Sent)
    assert (sent.path, sent.body) == (request_drawn.path, json.loads(request_drawn.body))
