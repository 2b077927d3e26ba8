"""An application whose calls all fail, each for another reason, and which prints all that the SDK tells about it."""

from __future__ import annotations

import os
from collections.abc import Mapping

import openai

REFUSED: Mapping[str, Mapping[str, object]] = {
    "a provider that refuses its key": {"model": "wrong"},
    "a model that nobody has": {"model": "no-such-model"},
    "a parameter that the provider does not know": {"model": "small", "temperature": "hot"},
    "no messages": {"model": "small", "messages": None},
}


def say(what: str, client: openai.OpenAI, body: Mapping[str, object]) -> None:
    """Call, and print status, headers and body of the refusal."""
    request = {"messages": [{"role": "user", "content": "hello"}], **body}
    try:
        print(f"{what}: answered", client.post("/chat/completions", body=request, cast_to=object), flush=True)
    except openai.APIStatusError as error:
        headers = dict(error.response.headers)
        print(f"{what}: status {error.status_code}: {error}\n{headers}\n{error.response.text}", flush=True)
    except openai.APIError as error:
        print(f"{what}: {error!r}", flush=True)


if __name__ == "__main__":
    ours = openai.OpenAI(max_retries=0, timeout=20)
    for name, difference in REFUSED.items():
        say(name, ours, difference)
    say("a wrong token", ours.with_options(api_key="wrong"), {"model": "small"})
    files = os.environ["OPENAI_BASE_URL"].removesuffix("/v1") + "/v1/files/"
    say("a path that is not allowed", ours.with_options(base_url=files), {"model": "small"})
