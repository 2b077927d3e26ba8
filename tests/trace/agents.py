"""An agent's run: one system prompt, the same tools, and a conversation that grows by every turn.

Each turn sends all that was said before. Turns alternate: the user names a tool and the model calls it, then the
tool's result comes and the model speaks of it. What the model said is written here beforehand, so that the requests
of a trace depend on its seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from tests.trace.requests import MAX_OUTPUT_TOKENS, MODELS, Family, Kind, Request

TOOLS: Final = ("search_orders", "read_document", "list_tickets", "write_note")
_PARAMETERS: Final = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "description": "What to look for, in the words of the customer."},
        "limit": {"type": "integer", "description": "At most so many results."},
    },
    "required": ["query"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A program that is run again and again on different tasks."""

    family: Family
    system: str
    stream: bool
    deterministic: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One task under way."""

    agent: Agent
    mark: str
    task: str
    turns: int

    def turn(self, number: int) -> Request:
        """The request of a turn, from 0."""
        calls_tool = number % 2 == 0
        tool = TOOLS[number // 2 % len(TOOLS)]
        model = MODELS[self.agent.family]
        answer_begin = f"{model} (simulated) read the tool's result: {self.mark}"
        openai = self.agent.family is Family.OPENAI
        body = self._openai(number) if openai else self._anthropic(number)
        return Request(
            kind=Kind.AGENT,
            family=self.agent.family,
            path="/v1/chat/completions" if openai else "/v1/messages",
            body=orjson.dumps(body),
            meanings=(f"agent {self.mark} {number}",),
            stream=self.agent.stream,
            deterministic=self.agent.deterministic,
            text="" if calls_tool else f"{answer_begin}-{number} ",
            tool=tool if calls_tool else "",
        )

    def _said(self, number: int) -> str:
        """What the user says in a turn, or the tool answers."""
        tool = TOOLS[number // 2 % len(TOOLS)]
        if number % 2:
            return f"{self.mark}-{number} " + self.task[: 400 + 100 * (number % 5)]
        return f"{self.mark}-{number} Next, use {tool} for this: {self.task[:300]}"

    def _openai(self, last: int) -> dict[str, Any]:
        messages: list[dict[str, Any]] = [{"role": "system", "content": self.agent.system}]
        for number in range(last + 1):
            if number % 2 == 0:
                messages.append({"role": "user", "content": self._said(number)})
                continue
            name, identity = TOOLS[number // 2 % len(TOOLS)], f"call_{self.mark}-{number}"
            call = {"id": identity, "function": {"name": name, "arguments": '{"query":"it"}'}, "type": "function"}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": identity, "content": self._said(number)})
            if number < last:
                messages.append({"role": "assistant", "content": f"Done with {name}."})
        body: dict[str, Any] = {"messages": messages, "model": MODELS[Family.OPENAI], "tools": _openai_tools()}
        body |= {"temperature": 0} if self.agent.deterministic else {}
        return body | ({"stream": True, "stream_options": {"include_usage": True}} if self.agent.stream else {})

    def _anthropic(self, last: int) -> dict[str, Any]:
        messages: list[dict[str, Any]] = []
        for number in range(last + 1):
            if number % 2 == 0:
                messages.append({"role": "user", "content": self._said(number)})
                continue
            name, identity = TOOLS[number // 2 % len(TOOLS)], f"toolu_{self.mark}-{number}"
            call = {"type": "tool_use", "id": identity, "name": name, "input": {"query": "it"}}
            result = {"type": "tool_result", "tool_use_id": identity, "content": self._said(number)}
            messages.append({"role": "assistant", "content": [call]})
            messages.append({"role": "user", "content": [result]})
            if number < last:
                messages.append({"role": "assistant", "content": f"Done with {name}."})
        body = {"max_tokens": MAX_OUTPUT_TOKENS, "messages": messages, "model": MODELS[Family.ANTHROPIC]}
        body |= {"system": self.agent.system, "tools": _anthropic_tools()}
        body |= {"temperature": 0.0} if self.agent.deterministic else {}
        return body | ({"stream": True} if self.agent.stream else {})


def _description(name: str) -> str:
    words = name.replace("_", " ")
    return f"Use it to {words}. Tell what is looked for in full sentences, and never more than one thing at once. " * 2


@lru_cache(maxsize=1)
def _openai_tools() -> list[dict[str, Any]]:
    functions = ({"name": name, "description": _description(name), "parameters": _PARAMETERS} for name in TOOLS)
    return [{"type": "function", "function": function} for function in functions]


@lru_cache(maxsize=1)
def _anthropic_tools() -> list[dict[str, Any]]:
    return [{"name": name, "description": _description(name), "input_schema": _PARAMETERS} for name in TOOLS]
