// Runs an application's scenarios and tells each outcome as one JSON line, as `python/scenarios.py` does.

export class NotAvailable extends Error {}

export const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

export const CITY_SCHEMA = {
  type: "object",
  properties: {
    name: { type: "string" },
    inhabitants: { type: "integer" },
    districts: { type: "array", items: { type: "string" } },
  },
  required: ["name", "inhabitants", "districts"],
  additionalProperties: false,
};

export const TOOL_SCHEMA = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

export const QUESTION = "Say what a sidecar is, in one sentence. Grüße, 世界 🌍";
export const ONE_CITY = "What is the weather in Paris?";
export const TWO_CITIES = "What is the weather in Paris, and what time is it in Rome?";

export function expect(condition, expectation, seen) {
  if (!condition) {
    throw new Error(`expected ${expectation}; saw ${JSON.stringify(seen)?.slice(0, 2000)}`);
  }
}

/** The error that `call` must raise; `kind` is its class. */
export async function expectError(kind, call) {
  let result;
  try {
    result = await call();
  } catch (error) {
    if (error instanceof kind) {
      return error;
    }
    throw error;
  }
  throw new Error(`expected ${kind.name}; the call returned ${JSON.stringify(result)?.slice(0, 2000)}`);
}

/** Headers that make the simulated provider cut its stream; the tests know them, an application would not. */
export function cutStreamHeaders() {
  return JSON.parse(process.env.CUT_STREAM_HEADERS);
}

/** Headers that make it end its stream in good form, but before it is complete. */
export function endedStreamHeaders() {
  if (process.env.ENDED_STREAM_HEADERS === undefined) {
    throw new NotAvailable("no SDK notices by itself that a stream ended early, and nothing stands before the provider");
  }
  return JSON.parse(process.env.ENDED_STREAM_HEADERS);
}

export async function collect(stream) {
  const items = [];
  for await (const item of stream) {
    items.push(item);
  }
  return items;
}

export function looksLikeACity(text) {
  const city = typeof text === "string" ? JSON.parse(text) : text;
  return typeof city?.name === "string" && Number.isInteger(city.inhabitants) && Array.isArray(city.districts);
}

async function outcome(name, scenario) {
  const line = { scenario: name, ok: true, detail: null, skipped_because: null };
  try {
    line.detail = await scenario();
  } catch (error) {
    if (error instanceof NotAvailable) {
      line.skipped_because = error.message;
    } else {
      line.ok = false;
      line.detail = error?.stack ?? String(error);
    }
  }
  console.log(JSON.stringify(line));
  return line.ok;
}

/** Run the scenarios named on the command line (default: all) and exit with 1 if any failed. */
export async function run(scenarios) {
  const named = process.argv.slice(2);
  let ok = true;
  for (const name of named.length ? named : Object.keys(scenarios)) {
    ok = (await outcome(name, scenarios[name])) && ok;
  }
  process.exitCode = ok ? 0 : 1;
}
