"""What an application does: plain calls of the three official SDKs, as anybody writes them.

Nothing here knows of the proxy. Base URLs and keys come from the environment, where each SDK looks by itself. The raw
responses are asked for only because the demo shows their headers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from anthropic import Anthropic
from google import genai
from openai import OpenAI

PROMPT = "In one sentence: what does a sidecar do for an application?"


@dataclass(frozen=True, slots=True)
class Reply:
    """A text, and the headers that came with it."""

    text: str
    headers: Mapping[str, str]


class Application:
    """Three clients, made without arguments."""

    def __init__(self) -> None:
        self.openai = OpenAI()
        self.anthropic = Anthropic()
        self.google = genai.Client()

    def ask_openai(self, model: str, prompt: str = PROMPT) -> Reply:
        """A chat completion."""
        raw = self.openai.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": prompt}], temperature=0
        )
        return Reply(raw.parse().choices[0].message.content or "", raw.headers)

    def ask_anthropic(self, model: str, prompt: str = PROMPT) -> Reply:
        """A message."""
        raw = self.anthropic.messages.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": prompt}], max_tokens=200
        )
        return Reply("".join(block.text for block in raw.parse().content if block.type == "text"), raw.headers)

    def ask_google(self, model: str, prompt: str = PROMPT) -> Reply:
        """Generated content."""
        response = self.google.models.generate_content(model=model, contents=prompt, config={"temperature": 0})
        return Reply(response.text or "", (response.sdk_http_response and response.sdk_http_response.headers) or {})

    def stream_openai(self, model: str) -> tuple[Mapping[str, str], Iterator[str]]:
        """A streamed chat completion: its headers, and its pieces as they come."""
        return stream(self.openai, model)


def stream(client: OpenAI, model: str) -> tuple[Mapping[str, str], Iterator[str]]:
    """Stream a chat completion from wherever `client` points."""
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": PROMPT}], stream=True
    )
    return raw.headers, (
        choice.delta.content for chunk in raw.parse() for choice in chunk.choices if choice.delta.content
    )
