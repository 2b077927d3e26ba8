"""The demo's story: what the application does, one step after another, and what must come of it.

Each step holds what happened against what should have; `DemoFailed` says where they differ. What a row shows is what the
proxy itself told: in the answer's headers, and in its audit line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
from google.genai import errors as google_errors
from openai import OpenAI

from examples.demo.application import Application, Reply, stream
from examples.demo.services import PROVIDER_KEY, DemoFailed, Services

LIMIT_OF_CALLS = 10
"""The hourly limit in the demo's TeamQuota."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table, and the sentence below it."""

    step: str
    sdk: str
    asked: str
    answered_by: str
    status: int
    cache: str
    attempts: int
    tokens: int
    quota_left: str
    milliseconds: float
    note: str
    request_id: str


class Story:
    """Runs the steps."""

    def __init__(self, services: Services, application: Application) -> None:
        self._services = services
        self._application = application

    def rows(self) -> Iterator[Row]:
        """Each row as soon as it has happened. Raises `DemoFailed`."""
        yield self._call("a call", "openai", self._application.ask_openai)
        yield self._call("a call", "anthropic", self._application.ask_anthropic)
        yield self._call("a call", "google", self._application.ask_google)
        yield self._stream()
        yield self._again()
        yield self._failover()
        yield self._cut()
        yield from self._over_quota()
        yield self._raised_limit()

    def _call(self, step: str, sdk: str, ask: Callable[[str], Reply]) -> Row:
        reply = ask("small")
        _expect(bool(reply.text), f"the {sdk} SDK got an empty answer")
        row = self._row(step, sdk, "small", reply.headers, "")
        note = f"The team's alias `small` stands for {row.answered_by.partition('/')[2]} here."
        _expect(row.cache == "miss" and row.attempts == 1, f"the first call of {sdk} should have asked the provider")
        return _with_note(row, note)

    def _stream(self) -> Row:
        received: list[str] = []
        headers = self._application.stream_openai("gpt-5-mini", received)
        _expect(len(received) > 1, "the stream came in one piece")
        note = (
            f"{len(received)} pieces. The proxy asked for the usage that streams tell only on request, counted it, and "
            "passed on the rest."
        )
        return self._row("a stream", "openai", "gpt-5-mini", headers, note)

    def _again(self) -> Row:
        headers = self._application.ask_openai("small").headers
        row = self._row("the first call again", "openai", "small", headers, "From the cache: no provider, no tokens.")
        _expect(row.cache == "hit" and row.tokens == 0, "the repeated call should have come from the cache, for nothing")
        return row

    def _failover(self) -> Row:
        headers = self._application.ask_openai("gpt-5").headers
        row = self._row("a provider is down", "openai", "gpt-5", headers, "")
        _expect(row.attempts == 2 and row.answered_by == "openai/gpt-5", "the second provider should have answered")
        failed = self._services.audit_line(row.request_id)["attempts"][0]
        return _with_note(
            row, f"{failed['provider']} answered {failed['status']}, so the call went on. The SDK noticed nothing."
        )

    def _cut(self) -> Row:
        pieces: list[str] = []
        with OpenAI(
            base_url=f"{self._services.simulator_url}/fault/end_after=3/v1", api_key=PROVIDER_KEY
        ) as without_proxy:
            stream(without_proxy, "gpt-5-nano", pieces)  # ends as if all were well
        try:
            self._application.stream_openai("gpt-5-nano", [])
        except openai.APIError as error:
            told, raised = error, type(error).__name__
        else:
            raise DemoFailed("a stream that a provider cut should have raised an error in the SDK")
        row = self._row("a stream is cut", "openai", "gpt-5-nano", self._last_headers(), "")
        return _with_note(
            row,
            f"Without the proxy the SDK ends after {len(pieces)} pieces as if that were all. Here it raises "
            f"{raised}: {told}",
        )

    def _over_quota(self) -> Iterator[Row]:
        for number in range(2 * LIMIT_OF_CALLS):
            try:
                self._application.ask_openai("small", f"Question {number}")
            except openai.RateLimitError as refused:
                note = f"The SDK raises RateLimitError: {_message(refused.body)} {_reset(refused.response.headers)}"
                yield self._row("over quota", "openai", "small", refused.response.headers, note)
                break
        else:
            raise DemoFailed("the team's quota let every call through")
        try:
            self._application.ask_anthropic("small", "One more")
        except anthropic.RateLimitError as error:
            note = "RateLimitError, in Anthropic's own shape."
            yield self._row("over quota", "anthropic", "small", error.response.headers, note)
        try:
            self._application.ask_google("small", "One more")
        except google_errors.ClientError as error:
            headers = {} if error.response is None else error.response.headers
            yield self._row("over quota", "google", "small", headers, f"ClientError {error.code} {error.status}.")

    def _raised_limit(self) -> Row:
        self._services.edit("team-quota.yaml", f"requests: {LIMIT_OF_CALLS}}}", "requests: 1000}")
        began = time.monotonic()
        headers = self._application.ask_openai("small", "And now?").headers
        _expect(time.monotonic() - began < 30, "the call took too long")
        note = "The manifest was edited; the proxy took it without a restart, and what was spent stays spent."
        return self._row("the limit is raised", "openai", "small", headers, note)

    def _row(self, step: str, sdk: str, asked: str, headers: Mapping[str, str], note: str) -> Row:
        told = {name.lower(): value for name, value in headers.items()}
        request_id = told.get("x-llm-sidecar-request-id")
        if request_id is None:
            raise DemoFailed(f"{step}: the answer did not come through the proxy")
        audit: dict[str, Any] = self._services.audit_line(request_id)
        provider, model = told.get("x-llm-sidecar-provider"), told.get("x-llm-sidecar-model")
        return Row(
            step=step,
            sdk=sdk,
            asked=asked,
            answered_by=f"{provider}/{model}" if provider else f"refused: {audit['status']} {audit['error']}",
            status=audit["status"],
            cache=told.get("x-llm-sidecar-cache", "-"),
            attempts=int(told.get("x-llm-sidecar-attempts", "0")),
            tokens=audit["charged_tokens"],
            quota_left=told.get("x-llm-sidecar-quota-remaining", "-"),
            milliseconds=audit["duration_ms"],
            note=note,
            request_id=request_id,
        )
