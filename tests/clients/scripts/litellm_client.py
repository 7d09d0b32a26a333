"""LiteLLM's `openai/` provider: an answer, a stream, a tool, text completion, async, an error."""

import asyncio
import sys

import litellm

url, model = sys.argv[1:3]
ANSWER = "The capital of France is Paris."
common = {
    "model": f"openai/{model}",
    "api_base": f"{url}/v1",
    "api_key": "unused",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "num_retries": 0,
}
answer = litellm.completion(**common)
print("completion", answer.choices[0].message.content, answer.usage.total_tokens)
assert answer.choices[0].message.content == ANSWER
stream = litellm.completion(**common, stream=True, stream_options={"include_usage": True})
chunks = list(stream)
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
print("stream", text)
assert text == ANSWER
assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
parameters = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
forced = {"type": "function", "function": {"name": "weather"}}
call = litellm.completion(**common, tools=[tool], tool_choice=forced).choices[0].message.tool_calls
print("tool", call[0].function.name, call[0].function.arguments)
assert call[0].function.name == "weather"
text = litellm.text_completion(
    model=f"text-completion-openai/{model}",
    prompt="The capital of France is",
    api_base=f"{url}/v1",
    api_key="unused",
    max_tokens=4,
    temperature=0,
)
print("text_completion", repr(text.choices[0].text))
assert text.choices[0].text.startswith(" Paris")
assert asyncio.run(litellm.acompletion(**common)).choices[0].message.content == ANSWER
try:
    litellm.completion(**{**common, "model": "openai/none"})
except litellm.NotFoundError as error:
    print("unknown model", type(error).__name__)
else:
    raise AssertionError("an unknown model was answered")
