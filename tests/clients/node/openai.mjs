// OpenAI's client for Node against a running service: node openai.mjs URL MODEL
import assert from "node:assert/strict";
import OpenAI, { NotFoundError } from "openai";

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const answer = "The capital of France is Paris.";

const whole = await client.chat.completions.create({ model, messages, temperature: 0 });
console.log("chat", whole.choices[0].message.content);
assert.equal(whole.choices[0].message.content, answer);
assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);

let text = "", usage;
const stream = await client.chat.completions.create({
  model, messages, temperature: 0, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
console.log("stream", text);
assert.equal(text, answer);
assert.equal(usage.completion_tokens, whole.usage.completion_tokens);

const parameters = {
  type: "object", properties: { city: { enum: ["Oslo"] } },
  required: ["city"], additionalProperties: false,
};
const helper = client.chat.completions.stream({
  model, messages, temperature: 0,
  tools: [{ type: "function", function: { name: "weather", parameters } }],
  tool_choice: { type: "function", function: { name: "weather" } },
});
const [call] = (await helper.finalChatCompletion()).choices[0].message.tool_calls;
console.log("tool", call.function.name, call.function.arguments);
assert.deepEqual([call.function.name, JSON.parse(call.function.arguments)], ["weather", { city: "Oslo" }]);

const plain = await client.completions.create({
  model, prompt: "The capital of France is", temperature: 0, max_tokens: 4,
});
console.log("completion", JSON.stringify(plain.choices[0].text));
assert.match(plain.choices[0].text, /^ Paris/);

assert.ok((await client.models.list()).data.some(one => one.id === model));
await assert.rejects(
  client.chat.completions.create({ model: "none", messages }),
  error => error instanceof NotFoundError && error.code === "model_not_found",
);
