"""Every call of the three APIs with every fault of the simulator, through one real sidecar, gathered in one go.

The faults are many and a sidecar's start is slow: all traffic runs at once, then the sidecar is stopped, so that its
audit log is complete, and tests look at what was told.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp
import orjson
import redis
from multidict import CIMultiDict
from prometheus_client.parser import text_string_to_metric_families

from llm_sidecar.simulate import SimulatorSettings, running
from tests.integration.background import in_background
from tests.integration.booked import booked
from tests.integration.processes import Sidecar, running_sidecar
from tests.integration.proxy.harness import PATIENCE_SECONDS, Reply

KEY: Final = "provider-key-of-the-simulator"
WRONG_KEY: Final = "another-key-than-the-simulators"
AT_ONCE: Final = 32
HASTY_SECONDS: Final = 2
"""Every timeout of the providers that meet silence."""
PROMPT: Final = "one two three four five six seven eight"
FAULT_HEADER: Final = "x-llm-simulate"

Family = Literal["openai", "anthropic", "gemini"]
Shape = Literal["plain", "events", "array"]
FAMILIES: Final[Mapping[str, Family]] = {"OpenAI": "openai", "Anthropic": "anthropic", "Google": "gemini"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One way to ask; `MODEL` stands for the model's name."""

    family: Family
    path: str
    body: Mapping[str, Any]
    shape: Shape = "plain"
    spends: bool = True
    """False where tokens are only counted."""

    def request(self, model: str) -> tuple[str, bytes]:
        """Path and body for a model."""
        return self.path.replace("MODEL", model), orjson.dumps(self.body).replace(b"MODEL", model.encode())


_MESSAGES: Final = [{"role": "user", "content": PROMPT}]
_CONTENT: Final = {"parts": [{"text": PROMPT}]}
_CHAT: Final = {"model": "MODEL", "messages": _MESSAGES}
_RESPONSE: Final = {"model": "MODEL", "input": PROMPT}
_MESSAGE: Final = {"model": "MODEL", "max_tokens": 64, "messages": _MESSAGES}
_GEMINI: Final = {"contents": [{"role": "user", **_CONTENT}]}
_USAGE: Final = {"stream": True, "stream_options": {"include_usage": True}}
_EMBED: Final = {"model": "models/MODEL", "content": _CONTENT}

CALLS: Final[Mapping[str, Call]] = {
    "chat": Call(family="openai", path="/v1/chat/completions", body=_CHAT),
    "chat-stream": Call(family="openai", path="/v1/chat/completions", body=_CHAT | _USAGE, shape="events"),
    "responses": Call(family="openai", path="/v1/responses", body=_RESPONSE),
    "responses-stream": Call(family="openai", path="/v1/responses", body={**_RESPONSE, "stream": True}, shape="events"),
    "input-tokens": Call(family="openai", path="/v1/responses/input_tokens", body=_RESPONSE, spends=False),
    "embeddings": Call(family="openai", path="/v1/embeddings", body=_RESPONSE),
    "messages": Call(family="anthropic", path="/v1/messages", body=_MESSAGE),
    "messages-stream": Call(family="anthropic", path="/v1/messages", body={**_MESSAGE, "stream": True}, shape="events"),
    "count-tokens": Call(
        family="anthropic",
        path="/v1/messages/count_tokens",
        body={"model": "MODEL", "messages": _MESSAGES},
        spends=False,
    ),
    "generate": Call(family="gemini", path="/v1beta/models/MODEL:generateContent", body=_GEMINI),
    "generate-stream": Call(
        family="gemini", path="/v1beta/models/MODEL:streamGenerateContent?alt=sse", body=_GEMINI, shape="events"
    ),
    "generate-array": Call(
        family="gemini", path="/v1beta/models/MODEL:streamGenerateContent", body=_GEMINI, shape="array"
    ),
    "gemini-count": Call(family="gemini", path="/v1beta/models/MODEL:countTokens", body=_GEMINI, spends=False),
    "embed": Call(family="gemini", path="/v1/models/MODEL:embedContent", body={"content": _CONTENT}),
    "batch-embed": Call(family="gemini", path="/v1beta/models/MODEL:batchEmbedContents", body={"requests": [_EMBED]}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one request led to."""

    reply: Reply
    line: dict[str, Any]
    """Of the audit log."""

    @property
    def charge(self) -> tuple[str | None, int]:
        """How sure the sidecar is of what was spent, and how much that is."""
        return self.line["usage_source"], self.line["charged_tokens"]

    @property
    def outcomes(self) -> list[str]:
        """Of the attempts, in order."""
        return [attempt["outcome"] for attempt in self.line["attempts"]]


Asked = tuple[str, str, str]
"""Model, call and fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    """What the provider itself answers."""

    reply: Reply
    tokens: int
    """Spent, by its own count; 0 where it counts none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """All that was asked and told."""

    told: Mapping[Asked, Told]
    direct: Mapping[tuple[str, str], Direct]
    """By call and fault."""
    booked: Mapping[str, int]
    """The team's counters after all of it."""
    exposition: str
    """The sidecar's metrics after all of it."""
    log: Sequence[str]
    """Everything that the sidecar wrote, to either stream."""


def gather(manifests: Path, store_url: str, *, asked: Sequence[Asked], direct: Sequence[tuple[str, str]]) -> Traffic:
    """Start everything, ask everything, stop everything."""
    with redis.Redis.from_url(store_url) as client:
        client.flushall()
    with in_background(running(SimulatorSettings(port=0, required_keys=(KEY,)))) as simulator:
        manifests.write_text(_manifests(simulator.base_url))
        with running_sidecar(manifests, arguments=("--redis", store_url)) as sidecar:
            replies, exposition = asyncio.run(_ask_through(sidecar, asked))
        answers = asyncio.run(_ask_directly(simulator.base_url, direct))
    written = sidecar.stdout.all()
    lines = {line["request_id"]: line for line in map(json.loads, written)}
    return Traffic(
        told={key: Told(reply=reply, line=lines[reply.request_id]) for key, reply in replies.items()},
        direct=answers,
        booked=booked(store_url),
        exposition=exposition,
        log=[*written, *sidecar.stderr.all()],
    )


async def _ask_through(sidecar: Sidecar, asked: Sequence[Asked]) -> tuple[dict[Asked, Reply], str]:
    """What has little time comes last, when nothing else is under way."""
    replies: dict[Asked, Reply] = {}
    async with _session(sidecar.base_url, sidecar.token) as session:
        for is_hasty in (False, True):
            keys = [key for key in asked if (key[0] == "hasty") is is_hasty]
            answers = await asyncio.gather(*(_ask(session, CALLS[call], model, fault) for model, call, fault in keys))
            replies |= dict(zip(keys, answers, strict=True))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:  # a request is counted a moment after its last byte
                async with session.get(f"{sidecar.admin_url}/metrics") as answer:
                    exposition = await answer.text()
                if sum(samples(exposition, "llm_requests_total", "status").values()) >= len(asked):
                    return replies, exposition


def samples(exposition: str, name: str, *labels: str) -> Counter[tuple[str, ...]]:
    """The values of a metric, by these of its labels."""
    totals: Counter[tuple[str, ...]] = Counter()
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name == name:
                totals[tuple(sample.labels[label] for label in labels)] += int(sample.value)
    return totals


async def _ask_directly(base_url: str, asked: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Direct]:
    """One after the other, so that the simulator's own record of them is in this order."""
    async with _session(base_url, KEY) as session:
        async with session.delete("/_simulate/requests") as answer:
            assert answer.status == 204
        replies = [await _ask(session, CALLS[call], "obedient", fault) for call, fault in asked]
        async with session.get("/_simulate/requests") as answer:
            ledger: list[dict[str, Any]] = await answer.json()
    return {
        key: Direct(reply=reply, tokens=_tokens(entry["usage_true"]))
        for key, reply, entry in zip(asked, replies, ledger, strict=True)
    }


def _tokens(usage: dict[str, int] | None) -> int:
    return usage["input_tokens"] + usage["output_tokens"] if usage else 0


def _session(base_url: str, key: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        base_url,
        connector=aiohttp.TCPConnector(limit=AT_ONCE),
        headers={"authorization": f"Bearer {key}", "anthropic-version": "2023-06-01"},
    )


async def _ask(session: aiohttp.ClientSession, call: Call, model: str, fault: str) -> Reply:
    path, body = call.request(f"{model}-{call.family}")
    headers = {FAULT_HEADER: fault} if fault else {}
    async with session.post(path, data=body, headers=headers, allow_redirects=False) as answer:
        pieces: list[bytes] = []
        # Directly from the simulator, an answer may be cut; through the sidecar none of these may, so it is told.
        try:
            pieces.extend([piece async for piece in answer.content.iter_any()])
        except aiohttp.ClientPayloadError:
            if answer.headers.get("x-llm-sidecar-request-id"):
                raise
        return Reply(status=answer.status, headers=CIMultiDict(answer.headers), body=b"".join(pieces))


_Place = tuple[str, list[str], str, str, dict[str, Any]]
"""Name, models, key in the Secret, path before the API's own, and what else its spec says."""


def _manifests(base_url: str) -> str:
    documents: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "keys", "labels": {"llm-sidecar.io/credentials": "true"}},
            "stringData": {"right": KEY, "wrong": WRONG_KEY},
        },
        {
            "apiVersion": "llm-sidecar.io/v1alpha1",
            "kind": "TeamQuota",
            "metadata": {"name": "testers"},
            "spec": {
                "limits": [
                    {"name": "calls", "per": "Month", "requests": 10**6},
                    {"name": "tokens", "per": "Month", "tokens": 10**9},
                ]
            },
        },
    ]
    hasty = {"timeouts": {f"{name}Seconds": HASTY_SECONDS for name in ("response", "firstToken", "idle")}}
    # What its spec tells goes before what the application sends: this one is always well.
    well = {"headers": [{"name": FAULT_HEADER, "value": "seed=1"}], "priority": 200}
    places: list[_Place] = [
        ("obedient", ["obedient", "twice"], "right", "", {}),
        ("well", ["twice"], "right", "", well),
        ("hasty", ["hasty"], "right", "", hasty),
        ("locked", ["locked"], "wrong", "", {}),
        ("doomed", ["doomed"], "right", "/fault/status=529", {}),
    ]
    documents += [
        {
            "apiVersion": "llm-sidecar.io/v1alpha1",
            "kind": "LLMProvider",
            "metadata": {"name": f"{name}-{kind.lower()}"},
            "spec": {
                "type": kind,
                "baseURL": base_url + prefix + ("/v1" if kind == "OpenAI" else ""),
                "credentials": {"secretKeyRef": {"name": "keys", "key": key}},
                # Of its own: others could serve it as well, by translation.
                "models": [{"name": f"{model}-{family}"} for model in models],
                # One attempt each, whatever came before: here it matters what one fault leads to.
                "retry": {"maxAttempts": 1},
                "circuitBreaker": {"failureThreshold": 1000},
                "cache": {"ttlSeconds": {"generation": 0, "embeddings": 0, "tokenCount": 0}},
                "priority": 100,
                **spec,
            },
        }
        for (name, models, key, prefix, spec), (kind, family) in itertools.product(places, FAMILIES.items())
    ]
    return "\n---\n".join(map(json.dumps, documents))
