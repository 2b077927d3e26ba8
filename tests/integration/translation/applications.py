"""Applications of the four wire languages: the same conversation, each through the SDK that its users have.

An application keeps its conversation in its SDK's own words, as real ones do: what an answer held goes back as it came.
"""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anthropic
import httpx2
import openai
from google import genai
from google.genai import types

from llm_sidecar.contract.names import API
from tests.integration.translation.world import World

PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
SYSTEM: Final = "Be brief."
MAX_TOKENS: Final = 4096
BUDGET: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an application asks for beside its text."""

    stream: bool = False
    tools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """JSON Schema of the arguments, by name."""
    image: bool = False
    schema: Mapping[str, Any] | None = None
    thinking: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What an application reads out of an answer."""

    text: str
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    thoughts: str = ""
    finish: str | None = None
    output_tokens: int | None = None


class Application(ABC):
    """One conversation."""

    api: API
    errors: Mapping[str, type[Exception]]
    """What the SDK raises, by the fault."""

    def __init__(self, world: World, model: str) -> None:
        self.model = model
        self.dropped: list[str] = []
        """What the sidecar named, by answer."""
        self._history: list[Any] = []
        self._results: list[Any] = []
        self._wish = Wish()
        self._calls: list[tuple[str, str]] = []
        transport = httpx2.Client(event_hooks={"response": [self._hear]}, timeout=30)
        self._transport = transport
        self._open(world, transport)

    def ask(self, text: str, wish: Wish) -> Said:
        """The first turn."""
        self._wish = wish
        self._history.append(self._question(text, image=wish.image))
        return self._told()

    def give_results(self, result: str) -> Said:
        """The turn after a call: the same result for each tool."""
        self._give(result)
        return self._told()

    def close(self) -> None:
        """Let go of the connections."""
        self._transport.close()

    def _told(self) -> Said:
        return self._stream() if self._wish.stream else self._plain()

    def _hear(self, response: httpx2.Response) -> None:
        self.dropped.append(response.headers.get("x-llm-sidecar-dropped", ""))

    @abstractmethod
    def _open(self, world: World, transport: httpx2.Client) -> None: ...

    @abstractmethod
    def _question(self, text: str, *, image: bool) -> Any: ...

    @abstractmethod
    def _give(self, result: str) -> None: ...

    @abstractmethod
    def _plain(self) -> Said: ...

    @abstractmethod
    def _stream(self) -> Said: ...


class ChatApplication(Application):
    """OpenAI's SDK, chat completions."""

    api = API.OPENAI_CHAT
    errors: Mapping[str, type[Exception]] = {
        "rate-limited": openai.RateLimitError,
        "bad-request": openai.BadRequestError,
        "overloaded": openai.InternalServerError,
        "breaks-off": openai.APIError,
    }

    def _open(self, world: World, transport: httpx2.Client) -> None:
        self._client = openai.OpenAI(
            base_url=f"{world.base_url}/v1", api_key=world.token, max_retries=0, http_client=transport
        )
        self._history.append({"role": "system", "content": SYSTEM})

    def _question(self, text: str, *, image: bool) -> Any:
        if not image:
            return {"role": "user", "content": text}
        url = {"url": f"data:image/png;base64,{PIXEL}"}
        content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": url}]
        return {"role": "user", "content": content}

    def _give(self, result: str) -> None:
        for call_id, _ in self._calls:
            self._history.append({"role": "tool", "tool_call_id": call_id, "content": result})

    def _request(self) -> dict[str, Any]:
        wish = self._wish
        request: dict[str, Any] = {"model": self.model, "messages": self._history}
        request["max_completion_tokens"] = MAX_TOKENS
        if wish.tools:
            request["tools"] = [
                {"type": "function", "function": {"name": name, "description": f"The {name}.", "parameters": schema}}
                for name, schema in wish.tools.items()
            ]
        if wish.schema is not None:
            named = {"name": "answer", "schema": wish.schema, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": named}
        return request | ({"reasoning_effort": "low"} if wish.thinking else {})

    def _plain(self) -> Said:
        answer = self._client.chat.completions.create(**self._request())
        choice = answer.choices[0]
        message = choice.message.to_dict()
        return self._heard(message, choice.finish_reason, answer.usage)

    def _stream(self) -> Said:
        message: dict[str, Any] = {"role": "assistant", "content": None}
        finish, usage = None, None
        options: Any = {"include_usage": True}
        for chunk in self._client.chat.completions.create(stream=True, stream_options=options, **self._request()):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                _grow(message, choice.delta.to_dict())
        return self._heard(message, finish, usage)

    def _heard(self, message: dict[str, Any], finish: str | None, usage: Any) -> Said:
        self._history.append(message)
        calls = message.get("tool_calls") or []
        self._calls = [(call["id"], call["function"]["name"]) for call in calls]
        return Said(
            text=message.get("content") or "",
            calls=tuple((call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls),
            thoughts=message.get("reasoning_content") or "",
            finish=finish,
            output_tokens=usage.completion_tokens if usage else None,
        )


def _grow(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for name in ("content", "reasoning_content"):
        if delta.get(name):
            message[name] = (message.get(name) or "") + delta[name]
    for piece in delta.get("tool_calls") or ():
        calls = message.setdefault("tool_calls", [])
        if piece["index"] == len(calls):
            calls.append({name: value for name, value in piece.items() if name != "index"})
        else:
            calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]


class ResponsesApplication(Application):
    """OpenAI's SDK, responses, which keeps its own conversation."""

    api = API.OPENAI_RESPONSES
    errors = ChatApplication.errors

    def _open(self, world: World, transport: httpx2.Client) -> None:
        self._client = openai.OpenAI(
            base_url=f"{world.base_url}/v1", api_key=world.token, max_retries=0, http_client=transport
        )

    def _question(self, text: str, *, image: bool) -> Any:
        content: list[dict[str, Any]] = [{"type": "input_text", "text": text}]
        if image:
            content.append({"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"})
        return {"role": "user", "content": content}

    def _give(self, result: str) -> None:
        for call_id, _ in self._calls:
            self._history.append({"type": "function_call_output", "call_id": call_id, "output": result})

    def _request(self) -> dict[str, Any]:
        wish = self._wish
        request: dict[str, Any] = {"model": self.model, "input": self._history, "instructions": SYSTEM, "store": False}
        request["max_output_tokens"] = MAX_TOKENS
        if wish.tools:
            request["tools"] = [
                {"type": "function", "name": name, "description": f"The {name}.", "parameters": schema, "strict": False}
                for name, schema in wish.tools.items()
            ]
        if wish.schema is not None:
            named = {"type": "json_schema", "name": "answer", "schema": wish.schema, "strict": True}
            request["text"] = {"format": named}
        if wish.thinking:
            request |= {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}
        return request

    def _plain(self) -> Said:
        return self._heard(self._client.responses.create(**self._request()))

    def _stream(self) -> Said:
        whole = None
        for event in self._client.responses.create(stream=True, **self._request()):
            if event.type in ("response.completed", "response.incomplete"):
                whole = event.response
        assert whole is not None
        return self._heard(whole)

    def _heard(self, answer: Any) -> Said:
        self._history += [item.to_dict() for item in answer.output]
        calls = [item for item in answer.output if item.type == "function_call"]
        self._calls = [(call.call_id, call.name) for call in calls]
        reasoning = [item for item in answer.output if item.type == "reasoning"]
        return Said(
            text=answer.output_text,
            calls=tuple((call.name, json.loads(call.arguments)) for call in calls),
            thoughts="".join(summary.text for item in reasoning for summary in item.summary),
            finish=answer.status,
            output_tokens=answer.usage.output_tokens if answer.usage else None,
        )


class AnthropicApplication(Application):
    """Anthropic's SDK."""

    api = API.ANTHROPIC_MESSAGES
    errors: Mapping[str, type[Exception]] = {
        "rate-limited": anthropic.RateLimitError,
        "bad-request": anthropic.BadRequestError,
        "overloaded": anthropic.InternalServerError,
        "breaks-off": anthropic.APIStatusError,
    }

    def _open(self, world: World, transport: httpx2.Client) -> None:
        self._client = anthropic.Anthropic(
            base_url=world.base_url, api_key=world.token, max_retries=0, http_client=transport
        )

    def _question(self, text: str, *, image: bool) -> Any:
        if not image:
            return {"role": "user", "content": text}
        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        return {"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": text}]}

    def _give(self, result: str) -> None:
        blocks = [{"type": "tool_result", "tool_use_id": call_id, "content": result} for call_id, _ in self._calls]
        self._history.append({"role": "user", "content": blocks})

    def _request(self) -> dict[str, Any]:
        wish = self._wish
        request: dict[str, Any] = {"model": self.model, "messages": self._history, "system": SYSTEM}
        request["max_tokens"] = MAX_TOKENS
        if wish.tools:
            request["tools"] = [
                {"name": name, "description": f"The {name}.", "input_schema": schema}
                for name, schema in wish.tools.items()
            ]
        if wish.schema is not None:
            request["output_config"] = {"format": {"type": "json_schema", "schema": wish.schema}}
        return request | ({"thinking": {"type": "enabled", "budget_tokens": BUDGET}} if wish.thinking else {})

    def _plain(self) -> Said:
        return self._heard(self._client.messages.create(**self._request()))

    def _stream(self) -> Said:
        with self._client.messages.stream(**self._request()) as stream:
            return self._heard(stream.get_final_message())

    def _heard(self, message: Any) -> Said:
        self._history.append({"role": "assistant", "content": [block.to_dict() for block in message.content]})
        calls = [block for block in message.content if block.type == "tool_use"]
        self._calls = [(call.id, call.name) for call in calls]
        return Said(
            text="".join(block.text for block in message.content if block.type == "text"),
            calls=tuple((call.name, call.input) for call in calls),
            thoughts="".join(block.thinking for block in message.content if block.type == "thinking"),
            finish=message.stop_reason,
            output_tokens=message.usage.output_tokens,
        )


class GeminiApplication(Application):
    """Google's SDK."""

    api = API.GEMINI
    errors: Mapping[str, type[Exception]] = {
        "rate-limited": genai.errors.ClientError,
        "bad-request": genai.errors.ClientError,
        "overloaded": genai.errors.ServerError,
        "breaks-off": genai.errors.APIError,
    }

    def _open(self, world: World, transport: httpx2.Client) -> None:
        options = types.HttpOptions(base_url=world.base_url, httpx_client=transport)
        self._client = genai.Client(api_key=world.token, http_options=options)

    def _question(self, text: str, *, image: bool) -> Any:
        parts = [types.Part.from_text(text=text)]
        if image:
            parts.append(types.Part.from_bytes(data=base64.b64decode(PIXEL), mime_type="image/png"))
        return types.Content(role="user", parts=parts)

    def _give(self, result: str) -> None:
        parts = [
            types.Part(
                function_response=types.FunctionResponse(id=call_id or None, name=name, response={"output": result})
            )
            for call_id, name in self._calls
        ]
        self._history.append(types.Content(role="user", parts=parts))

    def _config(self) -> types.GenerateContentConfig:
        wish = self._wish
        config: dict[str, Any] = {"system_instruction": SYSTEM, "max_output_tokens": MAX_TOKENS}
        if wish.tools:
            declared = [
                types.FunctionDeclaration(name=name, description=f"The {name}.", parameters_json_schema=schema)
                for name, schema in wish.tools.items()
            ]
            config["tools"] = [types.Tool(function_declarations=declared)]
            config["automatic_function_calling"] = types.AutomaticFunctionCallingConfig(disable=True)
        if wish.schema is not None:
            config |= {"response_mime_type": "application/json", "response_json_schema": wish.schema}
        if wish.thinking:
            config["thinking_config"] = types.ThinkingConfig(include_thoughts=True, thinking_budget=BUDGET)
        return types.GenerateContentConfig(**config)

    def _plain(self) -> Said:
        answer = self._client.models.generate_content(model=self.model, contents=self._history, config=self._config())
        return self._heard([answer])

    def _stream(self) -> Said:
        return self._heard(
            list(
                self._client.models.generate_content_stream(
                    model=self.model, contents=self._history, config=self._config()
                )
            )
        )

    def _heard(self, chunks: list[Any]) -> Said:
        candidates = [candidate for chunk in chunks for candidate in chunk.candidates or ()]
        parts = [part for each in candidates if each.content for part in each.content.parts or ()]
        self._history.append(types.Content(role="model", parts=parts))
        calls = [part.function_call for part in parts if part.function_call]
        self._calls = [(call.id or "", call.name) for call in calls]
        usage = chunks[-1].usage_metadata
        return Said(
            text="".join(part.text for part in parts if part.text and not part.thought),
            calls=tuple((call.name, call.args) for call in calls),
            thoughts="".join(part.text for part in parts if part.text and part.thought),
            finish=candidates[-1].finish_reason.value if candidates[-1].finish_reason else None,
            output_tokens=(usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0) if usage else None,
        )


APPLICATIONS: Final[Mapping[API, type[Application]]] = {
    each.api: each for each in (ChatApplication, ResponsesApplication, AnthropicApplication, GeminiApplication)
}
