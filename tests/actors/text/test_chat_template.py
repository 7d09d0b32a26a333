"""Chat templates rendered as transformers renders them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
import transformers
from packaging.version import Version
from transformers import PreTrainedTokenizerFast

from actors.text.chat_template import (
    ChatTemplateError,
    ChatTemplates,
    NoChatTemplate,
    join_text_parts,
)
from tests.actors.text import vocabularies

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}

HEADERS = """\
{{- bos_token }}
{%- if tools is not none %}
    {{- '<|head|>system<|body|>\\n\\nTools: ' }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
    {%- endfor %}
    {{- '<|eot|>' }}
{%- endif %}
{%- for message in messages %}
    {%- set content = '<|head|>' + message.role + '<|body|>\\n\\n' + message['content'] | trim %}
    {{- content + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|head|>assistant<|body|>\\n\\n' }}{% endif %}
"""
"""In the manner of Llama 3."""

CHATML = """\
{% set ns = namespace(last=-1, thinking=enable_thinking | default(true)) %}
{% for message in messages %}
    {% if message.role == 'user' %}
        {% set ns.last = loop.index0 %}
    {% endif %}
{% endfor %}
{% for message in messages %}
<|im_start|>{{ message.role }}
    {% if message.tool_calls is defined and message.tool_calls %}
        {% for call in message.tool_calls %}
<call>{{ call.function | tojson }}</call>
        {% endfor %}
    {% endif %}
    {% if message.role == 'assistant' %}
        {% generation %}
{{ message.content | default('') }}{% endgeneration %}<|im_end|>
    {% else %}
{{ message.content }}<|im_end|>
    {% endif %}
    {% if loop.index0 > ns.last + 8 %}
        {% break %}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{{ '' if ns.thinking else '<think>\\n\\n</think>\\n\\n' }}{% endif %}
"""
"""In the manner of Qwen."""

INSTRUCT = """\
{%- if messages[0]['role'] == 'system' -%}
    {%- set system = messages[0].content -%}{%- set turns = messages[1:] -%}
{%- else -%}
    {%- set turns = messages -%}
{%- endif -%}
{{- bos_token -}}
{%- for message in turns -%}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('roles must alternate user/assistant') -}}
    {%- endif -%}
    {%- if message.role == 'user' -%}
        [INST] {% if loop.last and system is defined %}{{ system + '\\n\\n' }}{% endif -%}
        {{ message.content }} [/INST]
    {%- else -%}
        {{ ' ' + message.content + eos_token }}
    {%- endif -%}
{%- endfor -%}
"""
"""In the manner of Mistral."""

CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "  Hi <b>&'\" 日本 \n"}],
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "2 < 3?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "{{ bos_token }} {% raw %}"},
    ],
]
CALL = {"type": "function", "function": {"name": "f", "arguments": {"q": "<é>'"}}}
WITH_CALL: list[dict[str, Any]] = [
    {"role": "user", "content": "look"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "found"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "a < b & 'c' é"}}]


def _transformers(template: str, messages: list[dict[str, Any]], **kwargs: Any) -> str:
    reference = PreTrainedTokenizerFast(
        tokenizer_object=vocabularies.byte_level(), chat_template=template, **SPECIAL
    )
    if Version(transformers.__version__) < Version("5"):  # which shows templates a None
        messages = [{k: v for k, v in one.items() if v is not None} for one in messages]
    rendered = reference.apply_chat_template(messages, tokenize=False, **kwargs)
    assert isinstance(rendered, str)
    return rendered


@pytest.mark.parametrize("template", [HEADERS, CHATML, INSTRUCT], ids=["llama", "qwen", "mistral"])
@pytest.mark.parametrize("messages", CHATS, ids=["one", "several"])
@pytest.mark.parametrize("prompt", [True, False])
def test_rendering_equals_transformers(
    template: str, messages: list[dict[str, Any]], prompt: bool
) -> None:
    ours = ChatTemplates(template, SPECIAL).render(messages, add_generation_prompt=prompt)
    assert ours == _transformers(template, messages, add_generation_prompt=prompt)


def test_tools_and_calls_render_as_transformers_renders_them() -> None:
    with_tools = ChatTemplates(HEADERS, SPECIAL).render(CHATS[0], tools=TOOLS)
    with_calls = ChatTemplates(CHATML, SPECIAL).render(WITH_CALL, add_generation_prompt=False)
    assert with_tools == _transformers(HEADERS, CHATS[0], tools=TOOLS, add_generation_prompt=True)
    assert with_calls == _transformers(CHATML, WITH_CALL, add_generation_prompt=False)
    assert "<é>" in with_calls


def test_further_variables_reach_the_template() -> None:
    quiet = {"enable_thinking": False}
    ours = ChatTemplates(CHATML, SPECIAL).render(CHATS[0], kwargs=quiet)
    assert ours == _transformers(CHATML, CHATS[0], add_generation_prompt=True, **quiet)
    assert ours.endswith("</think>\n\n")


def test_a_variable_must_not_take_the_place_of_the_messages() -> None:
    with pytest.raises(ChatTemplateError, match="must not name messages"):
        ChatTemplates(CHATML, SPECIAL).render(CHATS[0], kwargs={"messages": []})


def test_a_refusal_carries_the_message_of_the_template() -> None:
    with pytest.raises(ChatTemplateError, match=r"^roles must alternate user/assistant$"):
        ChatTemplates(INSTRUCT, SPECIAL).render([{"role": "assistant", "content": "x"}])


@pytest.mark.parametrize(
    "template", ["{{ messages + 1 }}", "{{ 1 // 0 }}", "{{ messages[0].nothing.more }}"]
)
def test_a_template_that_fails_is_reported_as_one_kind_of_error(template: str) -> None:
    with pytest.raises(ChatTemplateError):
        ChatTemplates(template, SPECIAL).render(CHATS[0])


@pytest.mark.parametrize(
    "template",
    ["{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ cycler.__init__.__globals__ }}"],
)
def test_a_template_cannot_leave_the_sandbox(template: str) -> None:
    with pytest.raises(ChatTemplateError, match=r"unsafe|not safely"):
        ChatTemplates(template, SPECIAL).render(CHATS[0])


def test_a_template_that_does_not_compile_is_named_with_its_line() -> None:
    with pytest.raises(ChatTemplateError, match=r"'default' does not compile: line 2"):
        ChatTemplates("a\n{% if %}", SPECIAL)


def test_the_clock_of_a_template_can_be_set() -> None:
    templates = ChatTemplates(
        "{{ strftime_now('%d %b %Y') }}", {}, now=lambda: datetime(2024, 7, 26, tzinfo=UTC)
    )
    assert templates.render(CHATS[0]) == "26 Jul 2024"


def test_the_template_for_tools_is_chosen_when_tools_are_given() -> None:
    templates = ChatTemplates({"default": "plain", "tool_use": "tools"}, {})
    assert templates.render(CHATS[0]) == "plain"
    assert templates.render(CHATS[0], tools=TOOLS) == "tools"


def test_named_templates_without_a_default_are_no_chat_template() -> None:
    with pytest.raises(NoChatTemplate, match="only rag"):
        ChatTemplates({"rag": "x"}, {}).render(CHATS[0])


def test_threads_render_independently() -> None:
    templates = ChatTemplates(CHATML, SPECIAL)
    rendered: dict[int, str] = {}

    def render(number: int) -> None:
        rendered[number] = templates.render([{"role": "user", "content": str(number)}] * 50)

    threads = [threading.Thread(target=render, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(rendered[number].count(f"{number}<|im_end|>") == 50 for number in range(4))


def test_text_parts_become_one_string() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None},
    ]
    assert join_text_parts(messages) == [
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": None},
    ]
