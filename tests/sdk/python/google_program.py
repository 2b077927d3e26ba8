"""An application on the official Google SDK (google-genai), any major. Base URL and key come from the environment."""

from functools import cache
from typing import Any

from google import genai
from google.genai import errors, types
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

MODEL = "gemini-2.5-flash"
EMBEDDING_MODEL = "gemini-embedding-001"
QUESTION = "Say what a sidecar is, in one sentence. Grüße, 世界 🌍"
TWO_CITIES = "What is the weather in Paris, and what time is it in Rome?"
WRONG_KEY_STATUSES = (400, 401)  # Google itself answers 400; a proxy in front may say 401


class City(BaseModel):
    """What structured output is parsed into."""

    name: str
    inhabitants: int
    districts: list[str]


@cache
def application_client() -> genai.Client:
    """Kept for the life of the process: a client that nothing refers to closes itself in the middle of a call."""
    return genai.Client()


def declared(*names: str) -> types.GenerateContentConfig:
    """A configuration that declares functions by schema."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    functions = [
        types.FunctionDeclaration(name=name, description=f"Tells the {name}", parameters_json_schema=schema)
        for name in names
    ]
    return types.GenerateContentConfig(tools=[types.Tool(function_declarations=functions)])


def plain() -> str:
    """One question, one answer with its usage."""
    return check_answer(application_client().models.generate_content(model=MODEL, contents=QUESTION))


async def async_plain() -> str:
    """The same on the asynchronous client."""
    owner = genai.Client()
    async with owner.aio as client:
        return check_answer(await client.models.generate_content(model=MODEL, contents=QUESTION))


def check_answer(answer: Any) -> str:
    """An answer that ended by itself and told its usage."""
    expect(answer.candidates[0].finish_reason == types.FinishReason.STOP, "finish_reason STOP", answer)
    expect(answer.text, "some text", answer)
    usage = answer.usage_metadata
    expect(usage.prompt_token_count > 0 and usage.candidates_token_count > 0, "usage", usage)
    return str(answer.text)


def streaming() -> str:
    """The same as a stream."""
    return check_chunks(list(application_client().models.generate_content_stream(model=MODEL, contents=QUESTION)))


async def async_streaming() -> str:
    """The same on the asynchronous client."""
    owner = genai.Client()
    async with owner.aio as client:
        stream = await client.models.generate_content_stream(model=MODEL, contents=QUESTION)
        return check_chunks([chunk async for chunk in stream])


def check_chunks(chunks: list[Any]) -> str:
    """Text in several pieces; the last chunk says why it ended and what it took."""
    pieces = [chunk.text for chunk in chunks if chunk.text]
    expect(len(pieces) > 1, "text in more than one piece", pieces)
    expect(chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP, "finish_reason STOP", chunks[-1])
    expect(chunks[-1].usage_metadata.candidates_token_count > 0, "usage", chunks[-1])
    return "".join(pieces)


def chat() -> str:
    """Two turns of the SDK's chat helper, which keeps the history."""
    conversation = application_client().chats.create(model=MODEL)
    conversation.send_message("Remember the number seven.")
    return check_answer(conversation.send_message("Which number was it?"))


def tools() -> str:
    """The model calls a function, gets the result, and answers in words."""
    return use_functions("What is the weather in Paris?", ["weather"])


def parallel_tools() -> str:
    """Two calls in one turn, both answered in the next."""
    return use_functions(TWO_CITIES, ["weather", "local_time"])


def use_functions(question: str, names: list[str]) -> str:
    """Declare, receive the calls, send every result back, and ask for the final words."""
    client = application_client()
    asked = types.Content(role="user", parts=[types.Part.from_text(text=question)])
    first = client.models.generate_content(model=MODEL, contents=[asked], config=declared(*names))
    calls = first.function_calls or []
    expect([call.name for call in calls] == names, f"calls of {names}", first)
    expect(all("city" in (call.args or {}) for call in calls), "arguments by the schema", calls)
    results = [types.Part.from_function_response(name=name, response={"result": "fine"}) for name in names]
    turn = (first.candidates or [])[0].content
    contents: Any = [asked, turn, types.Content(role="user", parts=results)]
    return check_answer(client.models.generate_content(model=MODEL, contents=contents, config=declared(*names)))


def automatic_tools() -> str:
    """A Python function as a tool: the SDK itself calls it and sends the result back."""
    asked_for: list[str] = []

    # The SDK of major 1 reads these annotations at run time: no `from __future__ import annotations` in this file.
    def weather(city: str) -> str:
        """Tell the weather in a city."""
        asked_for.append(city)
        return "sunny"

    config = types.GenerateContentConfig(tools=[weather])
    answer = application_client().models.generate_content(model=MODEL, contents="The weather in Paris?", config=config)
    expect(len(asked_for) == 1, "one call of the function", asked_for)
    return check_answer(answer)


def structured_output() -> str:
    """A schema in the request; the SDK parses the answer into a model."""
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=City)
    answer = application_client().models.generate_content(model=MODEL, contents="A city, please.", config=config)
    expect(isinstance(answer.parsed, City), "a City", answer)
    return repr(answer.parsed)


def image_input() -> str:
    """An image inside the request, as base64."""
    contents: Any = [types.Part.from_bytes(data=PIXEL, mime_type="image/png"), "What is in this picture?"]
    return check_answer(application_client().models.generate_content(model=MODEL, contents=contents))


def embeddings() -> str:
    """One vector per text."""
    contents: Any = ["one", "two"]
    answer = application_client().models.embed_content(model=EMBEDDING_MODEL, contents=contents)
    vectors = [item.values or [] for item in answer.embeddings or []]
    expect(len(vectors) == 2 and len(vectors[0]) == len(vectors[1]) > 0, "two vectors of equal size", answer)
    return f"{len(vectors[0])} dimensions"


def token_counting() -> str:
    """Input tokens of a request that is not made."""
    count = application_client().models.count_tokens(model=MODEL, contents=QUESTION)
    expect((count.total_tokens or 0) > 0, "a count", count)
    return str(count.total_tokens)


def models() -> str:
    """The list names the models, and one can be asked for by name."""
    client = application_client()
    listed = [str(model.name) for model in client.models.list()]
    expect(f"models/{MODEL}" in listed, "the model of this test", listed)
    expect(client.models.get(model=MODEL).name == f"models/{MODEL}", "the model", MODEL)
    return ", ".join(listed)


def responses() -> str:
    """That API is OpenAI's."""
    raise NotAvailable("the Responses API is OpenAI's")


def unknown_model() -> str:
    """The SDK's own error for a model that nobody serves."""
    client = application_client()
    error = expect_error(
        errors.ClientError, lambda: client.models.generate_content(model="missing-model", contents=QUESTION)
    )
    expect(error.code == 404 and error.status == "NOT_FOUND", "404 NOT_FOUND", error)
    return str(error)


def wrong_key() -> str:
    """The SDK's own error for a key that is not accepted."""
    client = genai.Client(api_key="AIza-not-the-key")
    error = expect_error(errors.ClientError, lambda: client.models.generate_content(model=MODEL, contents=QUESTION))
    expect(error.code in WRONG_KEY_STATUSES, f"a status of {WRONG_KEY_STATUSES}", error)
    expect("AIza-not-the-key" not in str(error), "an error that does not repeat the key", error)
    return str(error)


def cut_stream() -> str:
    """A stream that is cut after some content raises instead of looking complete."""
    return stream_raises(cut_stream_headers())


def ended_stream() -> str:
    """So does one that ends in good form but without a finish reason."""
    return stream_raises(ended_stream_headers())


def stream_raises(headers: dict[str, str]) -> str:
    """What the application gets in place of the rest."""
    config = types.GenerateContentConfig(http_options=types.HttpOptions(headers=headers))
    stream = application_client().models.generate_content_stream(model=MODEL, contents=QUESTION, config=config)
    return repr(expect_error((errors.APIError, *transport_errors()), lambda: list(stream)))


if __name__ == "__main__":
    run(
        {
            "plain": plain,
            "async_plain": async_plain,
            "streaming": streaming,
            "async_streaming": async_streaming,
            "chat": chat,
            "tools": tools,
            "parallel_tools": parallel_tools,
            "automatic_tools": automatic_tools,
            "structured_output": structured_output,
            "image_input": image_input,
            "embeddings": embeddings,
            "token_counting": token_counting,
            "models": models,
            "responses": responses,
            "unknown_model": unknown_model,
            "wrong_key": wrong_key,
            "cut_stream": cut_stream,
            "ended_stream": ended_stream,
        }
    )
