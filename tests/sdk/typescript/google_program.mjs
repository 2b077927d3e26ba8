// An application on the official Google SDK. Base URL and key come from the environment.

import { ApiError, GoogleGenAI } from "@google/genai";

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

const MODEL = "gemini-2.5-flash";
const EMBEDDING_MODEL = "gemini-embedding-001";
const client = new GoogleGenAI({});

const declared = (...names) => ({
  tools: [{ functionDeclarations: names.map((name) => ({ name, parametersJsonSchema: TOOL_SCHEMA })) }],
});

function checkAnswer(answer) {
  expect(answer.candidates[0].finishReason === "STOP" && answer.text, "some text and finishReason STOP", answer);
  const usage = answer.usageMetadata;
  expect(usage.promptTokenCount > 0 && usage.candidatesTokenCount > 0, "usage", usage);
  return answer.text;
}

async function useFunctions(question, names) {
  const asked = { role: "user", parts: [{ text: question }] };
  const config = declared(...names);
  const first = await client.models.generateContent({ model: MODEL, contents: [asked], config });
  const calls = first.functionCalls ?? [];
  expect(calls.map((call) => call.name).join() === names.join(), `calls of ${names}`, first);
  expect(calls.every((call) => "city" in call.args), "arguments by the schema", calls);
  const results = names.map((name) => ({ functionResponse: { name, response: { result: "fine" } } }));
  const contents = [asked, first.candidates[0].content, { role: "user", parts: results }];
  return checkAnswer(await client.models.generateContent({ model: MODEL, contents, config }));
}

async function streamRaises(headers) {
  const config = { httpOptions: { headers } };
  const stream = await client.models.generateContentStream({ model: MODEL, contents: QUESTION, config });
  return String(await expectError(Error, () => collect(stream)));
}

await run({
  plain: async () => checkAnswer(await client.models.generateContent({ model: MODEL, contents: QUESTION })),
  streaming: async () => {
    const chunks = await collect(await client.models.generateContentStream({ model: MODEL, contents: QUESTION }));
    const pieces = chunks.map((chunk) => chunk.text).filter(Boolean);
    expect(pieces.length > 1, "text in more than one piece", pieces);
    expect(chunks.at(-1).candidates[0].finishReason === "STOP", "finishReason STOP", chunks.at(-1));
    return pieces.join("");
  },
  chat: async () => {
    const conversation = client.chats.create({ model: MODEL });
    await conversation.sendMessage({ message: "Remember the number seven." });
    return checkAnswer(await conversation.sendMessage({ message: "Which number was it?" }));
  },
  tools: () => useFunctions(ONE_CITY, ["weather"]),
  parallel_tools: () => useFunctions(TWO_CITIES, ["weather", "local_time"]),
  structured_output: async () => {
    const config = { responseMimeType: "application/json", responseJsonSchema: CITY_SCHEMA };
    const answer = await client.models.generateContent({ model: MODEL, contents: "A city, please.", config });
    expect(looksLikeACity(answer.text), "a city", answer);
    return answer.text;
  },
  image_input: async () => {
    const contents = [{ inlineData: { mimeType: "image/png", data: PIXEL } }, { text: "What is in this picture?" }];
    return checkAnswer(await client.models.generateContent({ model: MODEL, contents }));
  },
  embeddings: async () => {
    const answer = await client.models.embedContent({ model: EMBEDDING_MODEL, contents: ["one", "two"] });
    const sizes = answer.embeddings.map((item) => item.values.length);
    expect(sizes.length === 2 && sizes[0] === sizes[1] && sizes[0] > 0, "two vectors of equal size", answer);
    return `${sizes[0]} dimensions`;
  },
  token_counting: async () => {
    const count = await client.models.countTokens({ model: MODEL, contents: QUESTION });
    expect(count.totalTokens > 0, "a count", count);
    return String(count.totalTokens);
  },
  models: async () => {
    const listed = (await collect(await client.models.list())).map((model) => model.name);
    expect(listed.includes(`models/${MODEL}`), "the model of this test", listed);
    expect((await client.models.get({ model: MODEL })).name === `models/${MODEL}`, "the model", MODEL);
    return listed.join(", ");
  },
  responses: async () => {
    throw new NotAvailable("the Responses API is OpenAI's");
  },
  unknown_model: async () => {
    const call = () => client.models.generateContent({ model: "missing-model", contents: QUESTION });
    const error = await expectError(ApiError, call);
    expect(error.status === 404, "status 404", error);
    return error.message;
  },
  wrong_key: async () => {
    const stranger = new GoogleGenAI({ apiKey: "AIza-not-the-key" });
    const call = () => stranger.models.generateContent({ model: MODEL, contents: QUESTION });
    const error = await expectError(ApiError, call);
    // Google itself answers 400; a proxy in front may say 401.
    expect([400, 401].includes(error.status), "status 400 or 401", error);
    return error.message;
  },
  cut_stream: () => streamRaises(cutStreamHeaders()),
  ended_stream: async () => streamRaises(endedStreamHeaders()),
});
