// An application on the official Anthropic SDK. It reads its base URL and key where the SDK looks for them.

import Anthropic from "@anthropic-ai/sdk";

import {
  CITY_SCHEMA,
  NotAvailable,
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

const MODEL = "claude-haiku-4-5";
const client = new Anthropic();
const asking = (content) => ({ model: MODEL, max_tokens: 1024, messages: [{ role: "user", content }] });
const declared = (...names) =>
  names.map((name) => ({ name, description: `Tells the ${name}`, input_schema: TOOL_SCHEMA }));

function checkMessage(message) {
  const text = message.content.map((block) => (block.type === "text" ? block.text : "")).join("");
  expect(message.stop_reason === "end_turn" && text, "some text and stop_reason end_turn", message);
  expect(message.usage.input_tokens > 0 && message.usage.output_tokens > 0, "usage", message.usage);
  return text;
}

async function finishTools(request, first, names) {
  expect(first.stop_reason === "tool_use", "stop_reason tool_use", first);
  const uses = first.content.filter((block) => block.type === "tool_use");
  expect(uses.map((use) => use.name).join() === names.join(), `uses of ${names}`, first);
  expect(uses.every((use) => "city" in use.input), "input by the schema", uses);
  const results = uses.map((use) => ({ type: "tool_result", tool_use_id: use.id, content: "fine" }));
  const turns = [
    { role: "assistant", content: first.content },
    { role: "user", content: results },
  ];
  return checkMessage(await client.messages.create({ ...request, messages: [...request.messages, ...turns] }));
}

async function streamRaises(headers) {
  const stream = await client.messages.create({ ...asking(QUESTION), stream: true }, { headers });
  return String(await expectError(Error, () => collect(stream)));
}

async function streamHelperRaises(headers) {
  return String(await expectError(Error, () => client.messages.stream(asking(QUESTION), { headers }).finalMessage()));
}

await run({
  plain: async () => checkMessage(await client.messages.create(asking(QUESTION))),
  beta: async () => {
    const betas = ["context-management-2025-06-27"];
    return checkMessage(await client.beta.messages.create({ ...asking(QUESTION), betas }));
  },
  streaming: async () => {
    const events = await collect(await client.messages.create({ ...asking(QUESTION), stream: true }));
    expect(events[0].type === "message_start" && events.at(-1).type === "message_stop", "the lifecycle", events);
    const deltas = events.filter((event) => event.type === "content_block_delta");
    expect(deltas.length > 1, "text in more than one piece", deltas);
    return deltas.map((event) => event.delta.text).join("");
  },
  stream_helper: async () => checkMessage(await client.messages.stream(asking(QUESTION)).finalMessage()),
  tools: async () => {
    const request = { ...asking(ONE_CITY), tools: declared("weather") };
    return finishTools(request, await client.messages.create(request), ["weather"]);
  },
  streamed_tools: async () => {
    const request = { ...asking(ONE_CITY), tools: declared("weather") };
    return finishTools(request, await client.messages.stream(request).finalMessage(), ["weather"]);
  },
  parallel_tools: async () => {
    const request = { ...asking(TWO_CITIES), tools: declared("weather", "local_time") };
    return finishTools(request, await client.messages.create(request), ["weather", "local_time"]);
  },
  structured_output: async () => {
    const format = { type: "json_schema", schema: CITY_SCHEMA };
    const message = await client.messages.parse({ ...asking("A city, please."), output_config: { format } });
    expect(looksLikeACity(message.parsed_output ?? message.content[0].text), "a city", message);
    return message.content[0].text;
  },
  image_input: async () => {
    const source = { type: "base64", media_type: "image/png", data: PIXEL };
    const content = [
      { type: "image", source },
      { type: "text", text: "What is in this picture?" },
    ];
    return checkMessage(await client.messages.create(asking(content)));
  },
  embeddings: async () => {
    throw new NotAvailable("the Anthropic API has no embeddings");
  },
  responses: async () => {
    throw new NotAvailable("the Responses API is OpenAI's");
  },
  token_counting: async () => {
    const count = await client.messages.countTokens({ model: MODEL, messages: asking(QUESTION).messages });
    expect(count.input_tokens > 0, "a count", count);
    return String(count.input_tokens);
  },
  models: async () => {
    const listed = (await collect(client.models.list())).map((model) => model.id);
    expect(listed.includes(MODEL), "the model of this test", listed);
    expect((await client.models.retrieve(MODEL)).id === MODEL, "the model", MODEL);
    return listed.join(", ");
  },
  unknown_model: async () => {
    const request = { ...asking(QUESTION), model: "missing-model" };
    return (await expectError(Anthropic.NotFoundError, () => client.messages.create(request))).message;
  },
  wrong_key: async () => {
    const stranger = new Anthropic({ apiKey: "sk-ant-not-the-key" });
    const call = () => stranger.messages.create(asking(QUESTION));
    return (await expectError(Anthropic.AuthenticationError, call)).message;
  },
  cut_stream: () => streamRaises(cutStreamHeaders()),
  cut_stream_helper: () => streamHelperRaises(cutStreamHeaders()),
  ended_stream: async () => streamRaises(endedStreamHeaders()),
  ended_stream_helper: async () => streamHelperRaises(endedStreamHeaders()),
});
