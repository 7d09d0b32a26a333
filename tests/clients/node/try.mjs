import OpenAI from "openai";
import { generateText, streamText } from "ai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
// Clients of npm against a running service: node try.mjs http://127.0.0.1:8080
const base = `${process.argv[2] ?? "http://127.0.0.1:8080"}/v1`, model = "understudy/capitals";
const q = [{ role: "user", content: "What is the capital of France?" }];
const c = new OpenAI({ baseURL: base, apiKey: "x", maxRetries: 0 });
const a = await c.chat.completions.create({ model, messages: q, temperature: 0 });
console.log("openai-node", a.choices[0].message.content);
let t = ""; for await (const k of await c.chat.completions.create({ model, messages: q, temperature: 0, stream: true })) t += k.choices[0]?.delta?.content ?? "";
console.log("openai-node stream", t);
const tool = { type: "function", function: { name: "weather", parameters: { type: "object", properties: { city: { enum: ["Oslo"] } }, required: ["city"], additionalProperties: false } } };
const r = c.chat.completions.stream({ model, messages: q, tools: [tool], tool_choice: { type: "function", function: { name: "weather" } }, temperature: 0 });
console.log("openai-node tool", JSON.stringify((await r.finalChatCompletion()).choices[0].message.tool_calls));
const p = createOpenAICompatible({ name: "u", baseURL: base, apiKey: "x" });
console.log("ai-sdk", (await generateText({ model: p(model), prompt: q[0].content, temperature: 0 })).text);
t = ""; for await (const k of streamText({ model: p(model), prompt: q[0].content, temperature: 0 }).textStream) t += k;
console.log("ai-sdk stream", t);
