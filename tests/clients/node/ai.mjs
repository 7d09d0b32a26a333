// Vercel's AI SDK against a running service: node ai.mjs URL MODEL
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, streamText, tool } from "ai";

const [url, name] = process.argv.slice(2);
const provider = createOpenAICompatible({ name: "understudy", baseURL: `${url}/v1`, apiKey: "unused" });
const model = provider(name), temperature = 0, prompt = "What is the capital of France?";
const answer = "The capital of France is Paris.";

const whole = await generateText({ model, prompt, temperature });
console.log("generateText", whole.text);
assert.deepEqual([whole.text, whole.finishReason], [answer, "stop"]);

let text = "";
for await (const piece of streamText({ model, prompt, temperature }).textStream) text += piece;
console.log("streamText", text);
assert.equal(text, answer);

const inputSchema = jsonSchema({
  type: "object", properties: { city: { enum: ["Oslo"] } },
  required: ["city"], additionalProperties: false,
});
const called = await generateText({
  model, prompt, temperature, tools: { weather: tool({ inputSchema }) }, toolChoice: "required",
});
console.log("tool", JSON.stringify(called.toolCalls[0].input));
assert.deepEqual(called.toolCalls[0].input, { city: "Oslo" });
