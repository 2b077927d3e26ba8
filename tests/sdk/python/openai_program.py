"""An application on the official OpenAI SDK, any major. It reads its base URL and key where the SDK looks for them."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

import openai
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

MODEL = "gpt-5-mini"
EMBEDDING_MODEL = "text-embedding-3-small"
QUESTION: list[Any] = [{"role": "user", "content": "Say what a sidecar is, in one sentence. Grüße, 世界 🌍"}]
TWO_CITIES = "What is the weather in Paris, and what time is it in Rome?"
PARAMETERS: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
PIXEL_URL = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"


class City(BaseModel):
    """What structured output is parsed into."""

    name: str
    inhabitants: int
    districts: list[str]


@cache
def application_client() -> openai.OpenAI:
    """One client for the whole program, as applications do: each new one reads all trusted certificates anew."""
    return openai.OpenAI()


def chat_tools(*names: str) -> list[Any]:
    """Function tools for chat completions."""
    return [
        {"type": "function", "function": {"name": name, "parameters": PARAMETERS, "strict": True}} for name in names
    ]


def response_tools(*names: str) -> list[Any]:
    """The same tools in the flat shape of the Responses API."""
    return [{"type": "function", "name": name, "parameters": PARAMETERS, "strict": True} for name in names]


def plain() -> str:
    """One question, one answer with its usage."""
    completion = application_client().chat.completions.create(model=MODEL, messages=QUESTION)
    return check_completion(completion)


async def async_plain() -> str:
    """The same on the asynchronous client."""
    async with openai.AsyncOpenAI() as client:
        return check_completion(await client.chat.completions.create(model=MODEL, messages=QUESTION))


def check_completion(completion: Any) -> str:
    """An answer that ended by itself and told its usage."""
    choice, usage = completion.choices[0], completion.usage
    expect(choice.finish_reason == "stop", "finish_reason stop", choice.finish_reason)
    expect(choice.message.content, "some text", choice)
    expect(usage.prompt_tokens > 0 and usage.completion_tokens > 0, "usage", usage)
    expect(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, "a usage that adds up", usage)
    return str(choice.message.content)


def streaming() -> str:
    """A stream that asks for its usage gets it, in a last chunk without choices."""
    with application_client().chat.completions.create(
        model=MODEL, messages=QUESTION, stream=True, stream_options={"include_usage": True}
    ) as stream:
        return check_chunks(list(stream), usage_asked=True)


def streaming_without_usage() -> str:
    """A stream that does not ask for usage sees none: no chunk is without choices."""
    with application_client().chat.completions.create(model=MODEL, messages=QUESTION, stream=True) as stream:
        return check_chunks(list(stream), usage_asked=False)


async def async_streaming() -> str:
    """The same on the asynchronous client."""
    async with openai.AsyncOpenAI() as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        return check_chunks([chunk async for chunk in stream], usage_asked=True)


def check_chunks(chunks: list[Any], *, usage_asked: bool) -> str:
    """Text in several pieces, one finish reason, and usage exactly where it was asked for."""
    choices = [choice for chunk in chunks for choice in chunk.choices]
    pieces = [choice.delta.content for choice in choices if choice.delta.content]
    expect(len(pieces) > 1, "text in more than one piece", pieces)
    expect([c.finish_reason for c in choices if c.finish_reason] == ["stop"], "one finish_reason", chunks[-2:])
    expect(all(chunk.choices for chunk in chunks) is not usage_asked, "a usage chunk exactly if asked", chunks[-1])
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    expect(bool(usages) is usage_asked, "usage exactly if asked", usages)
    expect(not usages or usages[-1].completion_tokens > 0, "usage", usages)
    return "".join(pieces)


def tools() -> str:
    """The model calls a tool, gets the result, and answers in words."""
    client = application_client()
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = client.chat.completions.create(model=MODEL, messages=messages, tools=chat_tools("weather"))
    expect(first.choices[0].finish_reason == "tool_calls", "finish_reason tool_calls", first)
    message = first.choices[0].message
    return finish_chat_tools(client, messages, message, ["weather"])


def streamed_tools() -> str:
    """The same through the SDK's stream helper, which assembles the call from its pieces."""
    client = application_client()
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    with client.chat.completions.stream(model=MODEL, messages=messages, tools=chat_tools("weather")) as stream:
        for _event in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    return finish_chat_tools(client, messages, message, ["weather"])


def parallel_tools() -> str:
    """Two calls in one turn, both answered in the next."""
    client = application_client()
    messages: list[Any] = [{"role": "user", "content": TWO_CITIES}]
    first = client.chat.completions.create(
        model=MODEL, messages=messages, tools=chat_tools("weather", "local_time"), parallel_tool_calls=True
    )
    return finish_chat_tools(client, messages, first.choices[0].message, ["weather", "local_time"])


def finish_chat_tools(client: openai.OpenAI, messages: list[Any], message: Any, names: list[str]) -> str:
    """Answer every call and ask for the final words."""
    calls = message.tool_calls or []
    expect([call.function.name for call in calls] == names, f"calls of {names}", message)
    expect(all("city" in json.loads(call.function.arguments) for call in calls), "arguments by the schema", calls)
    expect(len({call.id for call in calls}) == len(names), "an id for each call", calls)
    results: list[Any] = [{"role": "tool", "tool_call_id": call.id, "content": '{"answer": "fine"}'} for call in calls]
    final = client.chat.completions.create(
        model=MODEL,
        messages=[*messages, message.model_dump(exclude_none=True), *results],
        tools=chat_tools(*names),
    )
    return check_completion(final)


def structured_output() -> str:
    """The `parse` helper turns the answer into a model."""
    completion = application_client().chat.completions.parse(model=MODEL, messages=QUESTION, response_format=City)
    parsed = completion.choices[0].message.parsed
    expect(isinstance(parsed, City), "a City", completion)
    return repr(parsed)


def image_input() -> str:
    """An image inside the request, as base64."""
    content = [
        {"type": "text", "text": "What is in this picture?"},
        {"type": "image_url", "image_url": {"url": PIXEL_URL}},
    ]
    messages: list[Any] = [{"role": "user", "content": content}]
    return check_completion(application_client().chat.completions.create(model=MODEL, messages=messages))


def embeddings() -> str:
    """Vectors, in the base64 form that the SDK asks for unseen and as plain numbers."""
    client = application_client()
    packed = client.embeddings.create(model=EMBEDDING_MODEL, input=["one", "two"])
    plain = client.embeddings.create(model=EMBEDDING_MODEL, input="one", encoding_format="float")
    expect([item.index for item in packed.data] == [0, 1], "two vectors in order", packed)
    expect(all(isinstance(value, float) for value in packed.data[0].embedding), "numbers", packed)
    expect(len(plain.data[0].embedding) == len(packed.data[0].embedding), "equal dimensions", plain)
    expect(packed.usage.prompt_tokens > 0, "usage", packed.usage)
    return f"{len(packed.data[0].embedding)} dimensions"


def token_counting() -> str:
    """Input tokens of a request that is not made."""
    client = application_client()
    if not hasattr(client.responses, "input_tokens"):
        raise NotAvailable(f"openai {openai.__version__} has no responses.input_tokens")
    count = client.responses.input_tokens.count(model=MODEL, input="How many tokens are these?")
    expect(count.input_tokens > 0, "a count", count)
    return str(count.input_tokens)


def models() -> str:
    """The list names the models, and one can be asked for by name."""
    client = application_client()
    listed = [model.id for model in client.models.list()]
    expect(MODEL in listed and EMBEDDING_MODEL in listed, "the models of this test", listed)
    expect(client.models.retrieve(MODEL).id == MODEL, "the model", MODEL)
    return ", ".join(listed)


def responses() -> str:
    """The Responses API, plain."""
    return check_response(application_client().responses.create(model=MODEL, input="Say hello."))


async def async_responses() -> str:
    """The same on the asynchronous client."""
    async with openai.AsyncOpenAI() as client:
        return check_response(await client.responses.create(model=MODEL, input="Say hello."))


def check_response(response: Any) -> str:
    """A completed response with text and usage."""
    expect(response.status == "completed" and response.output_text, "a completed text", response)
    expect(response.usage.input_tokens > 0 and response.usage.output_tokens > 0, "usage", response.usage)
    return str(response.output_text)


def responses_streaming() -> str:
    """Its events, from created to completed."""
    with application_client().responses.create(model=MODEL, input="Say hello.", stream=True) as stream:
        events: list[Any] = list(stream)
    expect(events[0].type == "response.created", "response.created first", events[0])
    expect(events[-1].type == "response.completed", "response.completed last", events[-1])
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    expect(text == events[-1].response.output_text, "deltas that make up the text", text)
    return check_response(events[-1].response)


def responses_stream_helper() -> str:
    """The SDK's own assembler of those events, which is strict about their order."""
    with application_client().responses.stream(model=MODEL, input="Say hello.") as stream:
        for _event in stream:
            pass
        return check_response(stream.get_final_response())


def responses_tools() -> str:
    """A tool call and its result as items."""
    client = application_client()
    question: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = client.responses.create(model=MODEL, input=question, tools=response_tools("weather"), store=False)
    calls: list[Any] = [item for item in first.output if item.type == "function_call"]
    expect([call.name for call in calls] == ["weather"], "one call", first.output)
    results: list[Any] = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls
    ]
    turn: list[Any] = [item.model_dump(exclude_none=True) for item in first.output]
    return check_response(
        client.responses.create(
            model=MODEL, input=[*question, *turn, *results], tools=response_tools("weather"), store=False
        )
    )


def responses_structured_output() -> str:
    """The `parse` helper of the Responses API."""
    parsed = application_client().responses.parse(model=MODEL, input="A city, please.", text_format=City).output_parsed
    expect(isinstance(parsed, City), "a City", parsed)
    return repr(parsed)


def unknown_model() -> str:
    """The SDK's own error for a model that nobody serves."""
    client = application_client()
    error = expect_error(
        openai.NotFoundError, lambda: client.chat.completions.create(model="missing-model", messages=QUESTION)
    )
    expect(error.code == "model_not_found", "code model_not_found", error.body)
    return str(error)


def wrong_key() -> str:
    """The SDK's own error for a key that is not accepted."""
    client = openai.OpenAI(api_key="sk-not-the-key")
    error = expect_error(
        openai.AuthenticationError, lambda: client.chat.completions.create(model=MODEL, messages=QUESTION)
    )
    expect("sk-not-the-key" not in str(error), "an error that does not repeat the key", error)
    return str(error)


def cut_chat_stream() -> str:
    """A stream that is cut after some content raises instead of looking complete."""
    return chat_stream_raises(cut_stream_headers())


def ended_chat_stream() -> str:
    """So does one that ends in good form but lacks its terminal marker."""
    return chat_stream_raises(ended_stream_headers())


def chat_stream_raises(headers: dict[str, str]) -> str:
    """What the application gets in place of the rest."""
    stream = application_client().chat.completions.create(
        model=MODEL, messages=QUESTION, stream=True, extra_headers=headers
    )
    return repr(expect_error((openai.APIError, *transport_errors()), lambda: list(stream)))


def cut_responses_stream() -> str:
    """The same for the Responses API."""
    return responses_stream_raises(cut_stream_headers())


def ended_responses_stream() -> str:
    """The same without the terminal marker."""
    return responses_stream_raises(ended_stream_headers())


def responses_stream_raises(headers: dict[str, str]) -> str:
    """What the application gets in place of the rest."""
    stream = application_client().responses.create(model=MODEL, input="Say hello.", stream=True, extra_headers=headers)
    return repr(expect_error((openai.APIError, *transport_errors()), lambda: list(stream)))


if __name__ == "__main__":
    run(
        {
            "plain": plain,
            "async_plain": async_plain,
            "streaming": streaming,
            "streaming_without_usage": streaming_without_usage,
            "async_streaming": async_streaming,
            "tools": tools,
            "streamed_tools": streamed_tools,
            "parallel_tools": parallel_tools,
            "structured_output": structured_output,
            "image_input": image_input,
            "embeddings": embeddings,
            "token_counting": token_counting,
            "models": models,
            "responses": responses,
            "async_responses": async_responses,
            "responses_streaming": responses_streaming,
            "responses_stream_helper": responses_stream_helper,
            "responses_tools": responses_tools,
            "responses_structured_output": responses_structured_output,
            "unknown_model": unknown_model,
            "wrong_key": wrong_key,
            "cut_chat_stream": cut_chat_stream,
            "cut_responses_stream": cut_responses_stream,
            "ended_chat_stream": ended_chat_stream,
            "ended_responses_stream": ended_responses_stream,
        }
    )
