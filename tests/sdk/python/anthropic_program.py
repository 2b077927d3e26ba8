"""An application on the official Anthropic SDK, any major. It reads its base URL and key where the SDK looks."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

import anthropic
from pydantic import BaseModel

from tests.sdk.python.scenarios import (
    PIXEL,
    NotAvailable,
    cut_stream_headers,
    ended_stream_headers,
    expect,
    expect_error,
    run,
    transport_errors,
)

MODEL = "claude-haiku-4-5"
QUESTION: Any = {
    "model": MODEL,
    "max_tokens": 1024,
    "messages": [{"role": "user", "content": "Say what a sidecar is, in one sentence. Grüße, 世界 🌍"}],
}
TWO_CITIES = "What is the weather in Paris, and what time is it in Rome?"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


class City(BaseModel):
    """What structured output is parsed into."""

    name: str
    inhabitants: int
    districts: list[str]


@cache
def application_client() -> anthropic.Anthropic:
    """One client for the whole program, as applications do: each new one reads all trusted certificates anew."""
    return anthropic.Anthropic()


def declared(*names: str) -> list[Any]:
    """Tool declarations."""
    return [{"name": name, "description": f"Tells the {name}", "input_schema": SCHEMA} for name in names]


def plain() -> str:
    """One question, one answer with its usage."""
    return check_message(application_client().messages.create(**QUESTION))


async def async_plain() -> str:
    """The same on the asynchronous client."""
    async with anthropic.AsyncAnthropic() as client:
        return check_message(await client.messages.create(**QUESTION))


def beta() -> str:
    """The beta resource calls `/v1/messages?beta=true` with an `anthropic-beta` header."""
    message = application_client().beta.messages.create(**QUESTION, betas=["context-management-2025-06-27"])
    return check_message(message)


def check_message(message: Any) -> str:
    """An answer that ended by itself and told its usage."""
    text = "".join(block.text for block in message.content if block.type == "text")
    expect(message.stop_reason == "end_turn" and text, "some text and stop_reason end_turn", message)
    expect(message.usage.input_tokens > 0 and message.usage.output_tokens > 0, "usage", message.usage)
    return text


def streaming() -> str:
    """The raw events, from message_start to message_stop."""
    with application_client().messages.create(**QUESTION, stream=True) as stream:
        return check_events(list(stream))


async def async_streaming() -> str:
    """The same on the asynchronous client."""
    async with anthropic.AsyncAnthropic() as client:
        stream = await client.messages.create(**QUESTION, stream=True)
        return check_events([event async for event in stream])


def check_events(events: list[Any]) -> str:
    """All lifecycle events in order, and text in several pieces."""
    kinds = [event.type for event in events]
    expect(kinds[0] == "message_start" and kinds[-1] == "message_stop", "the first and the last event", kinds)
    expect(kinds[-2] == "message_delta" and "content_block_stop" in kinds, "the lifecycle", kinds)
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    pieces = [delta.text for delta in deltas if delta.type == "text_delta"]
    expect(len(pieces) > 1, "text in more than one piece", pieces)
    expect(events[-2].usage.output_tokens > 0, "usage", events[-2])
    return "".join(pieces)


def stream_helper() -> str:
    """The SDK's assembler: the text stream and the final message agree."""
    with application_client().messages.stream(**QUESTION) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    expect(check_message(final) == text, "a final message of the streamed text", text)
    return text


async def async_stream_helper() -> str:
    """The same on the asynchronous client."""
    async with anthropic.AsyncAnthropic() as client, client.messages.stream(**QUESTION) as stream:
        return check_message(await stream.get_final_message())


def tools() -> str:
    """The model uses a tool, gets the result, and answers in words."""
    request = QUESTION | {"messages": [{"role": "user", "content": "What is the weather in Paris?"}]}
    client = application_client()
    return finish_tools(client, request, client.messages.create(**request, tools=declared("weather")), ["weather"])


def streamed_tools() -> str:
    """The same, with the tool's input assembled from JSON deltas."""
    request = QUESTION | {"messages": [{"role": "user", "content": "What is the weather in Paris?"}]}
    client = application_client()
    with client.messages.stream(**request, tools=declared("weather")) as stream:
        first = stream.get_final_message()
    return finish_tools(client, request, first, ["weather"])


def parallel_tools() -> str:
    """Two uses in one turn, both answered in the next."""
    request = QUESTION | {"messages": [{"role": "user", "content": TWO_CITIES}]}
    client = application_client()
    names = ["weather", "local_time"]
    return finish_tools(client, request, client.messages.create(**request, tools=declared(*names)), names)


def finish_tools(client: anthropic.Anthropic, request: Any, first: Any, names: list[str]) -> str:
    """Answer every use and ask for the final words."""
    expect(first.stop_reason == "tool_use", "stop_reason tool_use", first)
    uses = [block for block in first.content if block.type == "tool_use"]
    expect([use.name for use in uses] == names, f"uses of {names}", first)
    expect(all("city" in use.input for use in uses), "input by the schema", uses)
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": "fine"} for use in uses]
    turn = [block.model_dump(exclude_none=True) for block in first.content]
    messages = [*request["messages"], {"role": "assistant", "content": turn}, {"role": "user", "content": results}]
    return check_message(client.messages.create(**request | {"messages": messages}, tools=declared(*names)))


def structured_output() -> str:
    """The `parse` helper turns the answer into a model."""
    parsed = application_client().messages.parse(**QUESTION, output_format=City).parsed_output
    expect(isinstance(parsed, City), "a City", parsed)
    return repr(parsed)


def image_input() -> str:
    """An image inside the request, as base64."""
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PIXEL).decode()}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is in this picture?"}]
    request = QUESTION | {"messages": [{"role": "user", "content": content}]}
    return check_message(application_client().messages.create(**request))


def embeddings() -> str:
    """Anthropic sells none."""
    raise NotAvailable("the Anthropic API has no embeddings")


def responses() -> str:
    """That API is OpenAI's."""
    raise NotAvailable("the Responses API is OpenAI's")


def token_counting() -> str:
    """Input tokens of a request that is not made."""
    count = application_client().messages.count_tokens(model=MODEL, messages=QUESTION["messages"])
    expect(count.input_tokens > 0, "a count", count)
    return str(count.input_tokens)


def models() -> str:
    """The list names the models, and one can be asked for by name."""
    client = application_client()
    listed = [model.id for model in client.models.list()]
    expect(MODEL in listed, "the model of this test", listed)
    expect(client.models.retrieve(MODEL).id == MODEL, "the model", MODEL)
    return ", ".join(listed)


def unknown_model() -> str:
    """The SDK's own error for a model that nobody serves."""
    client = application_client()
    request = QUESTION | {"model": "missing-model"}
    error = expect_error(anthropic.NotFoundError, lambda: client.messages.create(**request))
    expect(error.body["error"]["type"] == "not_found_error", "type not_found_error", error.body)
    return str(error)


def wrong_key() -> str:
    """The SDK's own error for a key that is not accepted."""
    client = anthropic.Anthropic(api_key="sk-ant-not-the-key")
    error = expect_error(anthropic.AuthenticationError, lambda: client.messages.create(**QUESTION))
    expect("sk-ant-not-the-key" not in str(error), "an error that does not repeat the key", error)
    return str(error)


def cut_stream() -> str:
    """A stream that is cut after some content raises instead of looking complete."""
    return stream_raises(cut_stream_headers())


def ended_stream() -> str:
    """So does one that ends in good form but lacks its terminal marker."""
    return stream_raises(ended_stream_headers())


def stream_raises(headers: dict[str, str]) -> str:
    """What the application gets in place of the rest."""
    stream = application_client().messages.create(**QUESTION, stream=True, extra_headers=headers)
    return repr(expect_error((anthropic.APIError, *transport_errors()), lambda: list(stream)))


def cut_stream_helper() -> str:
    """The assembler raises too: no final message is made of half an answer."""
    return stream_helper_raises(cut_stream_headers())


def ended_stream_helper() -> str:
    """The same without the terminal marker."""
    return stream_helper_raises(ended_stream_headers())


def stream_helper_raises(headers: dict[str, str]) -> str:
    """What the application gets in place of the final message."""

    def assemble() -> object:
        with application_client().messages.stream(**QUESTION, extra_headers=headers) as stream:
            return stream.get_final_message()

    return repr(expect_error((anthropic.APIError, *transport_errors()), assemble))


if __name__ == "__main__":
    run(
        {
            "plain": plain,
            "async_plain": async_plain,
            "beta": beta,
            "streaming": streaming,
            "async_streaming": async_streaming,
            "stream_helper": stream_helper,
            "async_stream_helper": async_stream_helper,
            "tools": tools,
            "streamed_tools": streamed_tools,
            "parallel_tools": parallel_tools,
            "structured_output": structured_output,
            "image_input": image_input,
            "embeddings": embeddings,
            "token_counting": token_counting,
            "models": models,
            "responses": responses,
            "unknown_model": unknown_model,
            "wrong_key": wrong_key,
            "cut_stream": cut_stream,
            "cut_stream_helper": cut_stream_helper,
            "ended_stream": ended_stream,
            "ended_stream_helper": ended_stream_helper,
        }
    )
