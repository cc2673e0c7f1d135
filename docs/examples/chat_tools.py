"""Lets the model call a function, runs it, and asks for the answer, with OpenAI's client."""

import json
import os
import sys

from openai import OpenAI
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageParam

URL = os.environ.get("URL", "http://127.0.0.1:8000")
WEATHER: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 40}},
            "required": ["city"],
        },
    },
}


def get_weather(city: str) -> str:
    """Return what the model can't know."""
    return f"It is sunny in {city}."


client = OpenAI(base_url=f"{URL}/v1", api_key="none")
messages: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the weather in Paris?"}
]
asked = client.chat.completions.create(
    model="smollm2", messages=messages, tools=[WEATHER], tool_choice="required", temperature=0
)
for call in asked.choices[0].message.tool_calls or ():
    if call.type != "function":
        continue
    result = get_weather(**json.loads(call.function.arguments))
    sys.stdout.write(f"{call.function.name}({call.function.arguments}): {result}\n")
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},  # type: ignore[list-item]  # as it came
        {"role": "tool", "tool_call_id": call.id, "content": result},
    ]
answer = client.chat.completions.create(
    model="smollm2", messages=messages, max_tokens=64, temperature=0
)
sys.stdout.write(f"{answer.choices[0].message.content}\n")
