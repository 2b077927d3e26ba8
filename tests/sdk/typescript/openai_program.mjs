// An application on the official OpenAI SDK. It reads its base URL and key where the SDK looks for them.

import OpenAI from "openai";

import {
  CITY_SCHEMA,
  ONE_CITY,
  PIXEL,
  QUESTION,
  TOOL_SCHEMA,
  TWO_CITIES,
  collect,
  cutStreamHeaders,
  endedStreamHeaders,
  expect,
  expectError,
  looksLikeACity,
  run,
} from "./scenarios.mjs";

const MODEL = "gpt-5-mini";
const EMBEDDING_MODEL = "text-embedding-3-small";
const client = new OpenAI();
const messages = [{ role: "user", content: QUESTION }];

const chatTools = (...names) =>
  names.map((name) => ({ type: "function", function: { name, parameters: TOOL_SCHEMA, strict: true } }));
const responseTools = (...names) =>
  names.map((name) => ({ type: "function", name, parameters: TOOL_SCHEMA, strict: true }));

function checkCompletion(completion) {
  const [choice] = completion.choices;
  expect(choice.finish_reason === "stop" && choice.message.content, "some text, ended by itself", completion);
  expect(completion.usage.prompt_tokens > 0 && completion.usage.completion_tokens > 0, "usage", completion.usage);
  return choice.message.content;
}

function checkChunks(chunks, { usageAsked }) {
  const choices = chunks.flatMap((chunk) => chunk.choices);
  const pieces = choices.map((choice) => choice.delta.content).filter(Boolean);
  expect(pieces.length > 1, "text in more than one piece", pieces);
  expect(choices.filter((choice) => choice.finish_reason === "stop").length === 1, "one finish_reason", chunks);
  expect(chunks.some((chunk) => chunk.choices.length === 0) === usageAsked, "a usage chunk exactly if asked", chunks);
  expect(chunks.some((chunk) => chunk.usage) === usageAsked, "usage exactly if asked", chunks);
  return pieces.join("");
}

async function finishChatTools(history, message, names) {
  const calls = message.tool_calls ?? [];
  expect(calls.map((call) => call.function.name).join() === names.join(), `calls of ${names}`, message);
  expect(calls.every((call) => "city" in JSON.parse(call.function.arguments)), "arguments by the schema", calls);
  const results = calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "fine" }));
  return checkCompletion(
    await client.chat.completions.create({
      model: MODEL,
      messages: [...history, message, ...results],
      tools: chatTools(...names),
    }),
  );
}

function checkResponse(response) {
  expect(response.status === "completed" && response.output_text, "a completed text", response);
  expect(response.usage.input_tokens > 0 && response.usage.output_tokens > 0, "usage", response.usage);
  return response.output_text;
}

async function chatStreamRaises(headers) {
  const stream = await client.chat.completions.create({ model: MODEL, messages, stream: true }, { headers });
  return String(await expectError(Error, () => collect(stream)));
}

async function responsesStreamRaises(headers) {
  const stream = await client.responses.create({ model: MODEL, input: "Say hello.", stream: true }, { headers });
  return String(await expectError(Error, () => collect(stream)));
}

await run({
  plain: async () => checkCompletion(await client.chat.completions.create({ model: MODEL, messages })),
  streaming: async () => {
    const request = { model: MODEL, messages, stream: true, stream_options: { include_usage: true } };
    return checkChunks(await collect(await client.chat.completions.create(request)), { usageAsked: true });
  },
  streaming_without_usage: async () => {
    const request = { model: MODEL, messages, stream: true };
    return checkChunks(await collect(await client.chat.completions.create(request)), { usageAsked: false });
  },
  stream_helper: async () => {
    const stream = client.chat.completions.stream({ model: MODEL, messages });
    const content = await stream.finalContent();
    expect(content, "some text", content);
    return content;
  },
  tools: async () => {
    const history = [{ role: "user", content: ONE_CITY }];
    const request = { model: MODEL, messages: history, tools: chatTools("weather") };
    const first = await client.chat.completions.create(request);
    return finishChatTools(history, first.choices[0].message, ["weather"]);
  },
  parallel_tools: async () => {
    const history = [{ role: "user", content: TWO_CITIES }];
    const request = { model: MODEL, messages: history, tools: chatTools("weather", "local_time") };
    const first = await client.chat.completions.create({ ...request, parallel_tool_calls: true });
    return finishChatTools(history, first.choices[0].message, ["weather", "local_time"]);
  },
  structured_output: async () => {
    const format = { type: "json_schema", json_schema: { name: "City", schema: CITY_SCHEMA, strict: true } };
    const completion = await client.chat.completions.parse({ model: MODEL, messages, response_format: format });
    const { parsed, content } = completion.choices[0].message;
    expect(looksLikeACity(parsed ?? content), "a city", completion);
    return content;
  },
  image_input: async () => {
    const content = [
      { type: "text", text: "What is in this picture?" },
      { type: "image_url", image_url: { url: `data:image/png;base64,${PIXEL}` } },
    ];
    return checkCompletion(
      await client.chat.completions.create({ model: MODEL, messages: [{ role: "user", content }] }),
    );
  },
  embeddings: async () => {
    const answer = await client.embeddings.create({ model: EMBEDDING_MODEL, input: ["one", "two"] });
    const sizes = answer.data.map((item) => item.embedding.length);
    expect(sizes.length === 2 && sizes[0] === sizes[1] && sizes[0] > 0, "two vectors of equal size", answer);
    return `${sizes[0]} dimensions`;
  },
  token_counting: async () => {
    const count = await client.responses.inputTokens.count({ model: MODEL, input: "How many tokens are these?" });
    expect(count.input_tokens > 0, "a count", count);
    return String(count.input_tokens);
  },
  models: async () => {
    const listed = (await collect(client.models.list())).map((model) => model.id);
    expect(listed.includes(MODEL), "the model of this test", listed);
    expect((await client.models.retrieve(MODEL)).id === MODEL, "the model", MODEL);
    return listed.join(", ");
  },
  responses: async () => checkResponse(await client.responses.create({ model: MODEL, input: "Say hello." })),
  responses_streaming: async () => {
    const events = await collect(await client.responses.create({ model: MODEL, input: "Say hello.", stream: true }));
    expect(events[0].type === "response.created", "response.created first", events[0]);
    expect(events.at(-1).type === "response.completed", "response.completed last", events.at(-1));
    const deltas = events.filter((event) => event.type === "response.output_text.delta");
    expect(deltas.length > 1, "text in more than one piece", deltas);
    return deltas.map((event) => event.delta).join("");
  },
  responses_stream_helper: async () =>
    checkResponse(await client.responses.stream({ model: MODEL, input: "Say hello." }).finalResponse()),
  responses_tools: async () => {
    const question = [{ role: "user", content: ONE_CITY }];
    const request = { model: MODEL, tools: responseTools("weather"), store: false };
    const first = await client.responses.create({ ...request, input: question });
    const calls = first.output.filter((item) => item.type === "function_call");
    expect(calls.length === 1 && calls[0].name === "weather", "one call", first.output);
    const results = calls.map(({ call_id }) => ({ type: "function_call_output", call_id, output: "sunny" }));
    return checkResponse(
      await client.responses.create({ ...request, input: [...question, ...first.output, ...results] }),
    );
  },
  unknown_model: async () => {
    const request = { model: "missing-model", messages };
    const error = await expectError(OpenAI.NotFoundError, () => client.chat.completions.create(request));
    expect(error.code === "model_not_found", "code model_not_found", error);
    return error.message;
  },
  wrong_key: async () => {
    const stranger = new OpenAI({ apiKey: "sk-not-the-key" });
    const call = () => stranger.chat.completions.create({ model: MODEL, messages });
    return (await expectError(OpenAI.AuthenticationError, call)).message;
  },
  cut_chat_stream: () => chatStreamRaises(cutStreamHeaders()),
  cut_responses_stream: () => responsesStreamRaises(cutStreamHeaders()),
  ended_chat_stream: async () => chatStreamRaises(endedStreamHeaders()),
  ended_responses_stream: async () => responsesStreamRaises(endedStreamHeaders()),
});
