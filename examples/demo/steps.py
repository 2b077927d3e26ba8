"""The demo's story: what the application does, one step after another, and what must come of it.

Each step holds what happened against what should have; `DemoFailed` says where they differ. What a row shows is what
the proxy itself told: in the answer's headers, and in its audit line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import anthropic
import openai
from google.genai import errors as google_errors
from openai import OpenAI

from examples.demo.application import Application, Reply, stream
from examples.demo.services import PROVIDER_KEY, DemoFailed, Services

LIMIT_OF_CALLS = 10
"""The limit of calls in the demo's TeamQuota."""


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
        yield self._call("a call", "openai", self._application.ask_openai, "small")
        yield self._call("a call", "anthropic", self._application.ask_anthropic, "claude-small")
        yield self._call("a call", "google", self._application.ask_google, "gemini-small")
        yield self._another_language()
        yield self._stream()
        yield self._again()
        yield self._failover()
        yield self._cut()
        yield from self._over_quota()
        yield self._raised_limit()

    def _call(self, step: str, sdk: str, ask: Callable[[str], Reply], alias: str) -> Row:
        reply = ask(alias)
        _expect(bool(reply.text), f"the {sdk} SDK got an empty answer")
        row = self._row(step, sdk, alias, reply.headers, "")
        note = f"The alias `{alias}` stands for {row.answered_by.partition('/')[2]} here."
        _expect(row.cache != "hit" and row.attempts == 1, f"the first call of {sdk} should have asked the provider")
        return replace(row, note=note)

    def _another_language(self) -> Row:
        reply = self._application.ask_openai("claude-small")
        _expect(bool(reply.text), "the OpenAI SDK got an empty answer from Claude")
        row = self._row("another provider's", "openai", "claude-small", reply.headers, "")
        _expect(row.answered_by.startswith("anthropic/"), "Claude should have answered the OpenAI SDK")
        return replace(row, note="Claude, behind the OpenAI SDK: the proxy translated the call, and its answer back.")

    def _stream(self) -> Row:
        headers, pieces = self._application.stream_openai("gpt-5-mini")
        count = len(list(pieces))
        _expect(count > 1, "the stream came in one piece")
        note = f"{count} pieces. The proxy asked for the usage that streams tell only on request, and counted it."
        return self._row("a stream", "openai", "gpt-5-mini", headers, note)

    def _again(self) -> Row:
        headers = self._application.ask_openai("small").headers
        row = self._row("the first call again", "openai", "small", headers, "From the cache: no provider, no tokens.")
        _expect(
            row.cache == "hit" and row.tokens == 0, "the repeated call should have come from the cache, for nothing"
        )
        return row

    def _failover(self) -> Row:
        headers = self._application.ask_openai("gpt-5").headers
        row = self._row("a provider is down", "openai", "gpt-5", headers, "")
        _expect(row.attempts == 2 and row.answered_by == "openai/gpt-5", "the second provider should have answered")
        failed = self._services.audit_line(row.request_id)["attempts"][0]
        note = (
            f"{failed['provider']} answered {failed['status']}, so the proxy asked the next. The SDK noticed nothing."
        )
        return replace(row, note=note)

    def _cut(self) -> Row:
        broken_provider = f"{self._services.simulator_url}/fault/end_after=3/v1"
        with OpenAI(base_url=broken_provider, api_key=PROVIDER_KEY) as without_proxy:
            silent = len(list(stream(without_proxy, "gpt-5-nano")[1]))
        headers, pieces = self._application.stream_openai("gpt-5-nano")
        try:
            count = len(list(pieces))
        except openai.APIError as error:
            note = (
                f"Asked directly, the SDK gives {silent} pieces and ends as if that were all. Through the proxy it "
                f'raises {type(error).__name__}: "{error}"'
            )
            return self._row("a stream breaks off", "openai", "gpt-5-nano", headers, note)
        raise DemoFailed(f"the stream was cut, but the SDK took its {count} pieces for the whole")

    def _over_quota(self) -> Iterator[Row]:
        for number in range(LIMIT_OF_CALLS):
            try:
                self._application.ask_openai("small", f"Question {number}")
            except openai.RateLimitError as error:
                yield self._refusal("openai", error, f"{_own_words(error.body)} {_reset(error.response.headers)}")
                break
        else:
            raise DemoFailed("the team's quota let every call through")
        try:
            self._application.ask_anthropic("claude-small", "One more")
        except anthropic.RateLimitError as error:
            yield self._refusal("anthropic", error, "the same, in Anthropic's shape.")
        else:
            raise DemoFailed("the quota refused one SDK and not the next")
        try:
            self._application.ask_google("gemini-small", "One more")
        except google_errors.ClientError as error:
            yield self._refusal("google", error, f"code {error.code}, status {error.status}: Google's shape.")
        else:
            raise DemoFailed("the quota refused two SDKs and not the third")

    def _refusal(
        self, sdk: str, error: openai.APIStatusError | anthropic.APIStatusError | google_errors.APIError, told: str
    ) -> Row:
        asked = {"openai": "small", "anthropic": "claude-small", "google": "gemini-small"}[sdk]
        row = self._row("over quota", sdk, asked, error.response.headers, f"{type(error).__name__}: {told}")
        _expect(row.status == 429, f"the {sdk} SDK should have been refused with 429, and got {row.status}")
        return row

    def _raised_limit(self) -> Row:
        self._services.edit("team-quota.yaml", f"requests: {LIMIT_OF_CALLS}}}", "requests: 1000}")
        headers = self._application.ask_openai("small", "And now?").headers
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
            answered_by=f"{provider}/{model}" if provider else f"{audit['status']} {audit['error']}",
            status=audit["status"],
            cache=told.get("x-llm-sidecar-cache", "-"),
            attempts=int(told.get("x-llm-sidecar-attempts", "0")),
            tokens=audit["charged_tokens"],
            quota_left=told.get("x-llm-sidecar-quota-remaining", "-"),
            milliseconds=audit["duration_ms"],
            note=note,
            request_id=request_id,
        )


def _expect(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - as in an assertion
    if not holds:
        raise DemoFailed(otherwise)


def _own_words(body: object) -> str:
    """The message of an OpenAI error, whose body the SDK has parsed."""
    return str(body.get("message", "")) if isinstance(body, dict) else ""


def _reset(headers: Mapping[str, str]) -> str:
    return f"(retry-after: {headers.get('retry-after')} s, x-should-retry: {headers.get('x-should-retry')})"
