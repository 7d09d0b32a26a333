"""LangChain's ChatOpenAI: an answer, a stream, a bound tool, structured output, a batch, async."""

import asyncio
import sys
from typing import Literal

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel, ConfigDict

url, model = sys.argv[1:3]
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


class Weather(BaseModel):
    """The weather of a city."""

    model_config = ConfigDict(extra="forbid")
    city: Literal["Oslo", "Rome"]


chat = ChatOpenAI(base_url=f"{url}/v1", api_key="unused", model=model, temperature=0, max_retries=0)
answer = chat.invoke([SystemMessage("You are helpful."), HumanMessage(QUESTION)])
print("invoke", answer.content, answer.usage_metadata)
assert answer.response_metadata["finish_reason"] == "stop"
assert answer.usage_metadata["output_tokens"] > 1
streamed = list(chat.stream(QUESTION, stream_usage=True))
text = "".join(chunk.text for chunk in streamed)
print("stream", text)
assert text == ANSWER
assert sum(1 for chunk in streamed if chunk.usage_metadata) == 1
called = chat.bind_tools([Weather], tool_choice="Weather").invoke("Oslo?")
print("tool", called.tool_calls[0]["name"], called.tool_calls[0]["args"])
assert called.tool_calls[0]["name"] == "Weather"
for method in ("json_schema", "function_calling"):
    found = chat.with_structured_output(Weather, method=method).invoke("Where?")
    print("structured", method, type(found).__name__)
    assert isinstance(found, Weather)
chain = ChatPromptTemplate.from_messages([("human", "What is the capital of {country}?")]) | chat
answers = [one.content for one in chain.batch([{"country": "Chad"}, {"country": "Germany"}])]
print("batch", answers)
assert answers == ["The capital of Chad is N'Djamena.", "The capital of Germany is Berlin."]
assert asyncio.run(chat.ainvoke(QUESTION)).content == ANSWER
plain = OpenAI(base_url=f"{url}/v1", api_key="unused", model=model, temperature=0, max_tokens=4)
text = plain.invoke("The capital of France is")
print("completion", repr(text))
assert text.startswith(" Paris")
