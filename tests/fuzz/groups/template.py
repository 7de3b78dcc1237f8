"""Chat templates: programs in jinja2 that come with a checkpoint."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz.case import Case, write_text
from tests.fuzz.checks import tokens_as_transformers
from tests.fuzz.mutate import spoil_text
from tests.fuzz.samples import CHAT, Samples

CHATML = """\
{%- if messages[0]['role'] != 'system' -%}
<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif -%}
{% for message in messages -%}
{% set content = message['content'] | trim -%}
{% if loop.first and message.role == 'tool' %}{{ raise_exception('a tool came first') }}{% endif -%}
{{ '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ bos_token }}assistant: {{ strftime_now('%Y')[:0] }}{% endif %}"""

MACROS = """\
{%- macro block(name, text) -%}[{{ name|upper }}]{{ text }}[/{{ name|upper }}]{%- endmacro -%}
{%- set ns = namespace(system=none, count=0) -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{%- set ns.system = message.content -%}{%- continue -%}{%- endif -%}
{%- set ns.count = ns.count + 1 -%}
{{- block(message.role, message.content) -}}
{%- if tools is defined and tools is not none -%}{{ tools | tojson(indent=2) }}{%- endif -%}
{%- generation -%}{{ eos_token }}{%- endgeneration -%}
{%- endfor -%}"""

BODIES = (
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{{ messages }}{% endfor %}{% endfor %}",
    "{{ 'x' * 10**10 }}",
    "{{ [0] * 10**10 }}",
    "{{ 10 ** 10 ** 8 }}",
    "{{ 2 ** 200000 }}",
    "{{ 'x' | center(10**10) }}",
    "{{ '%999999999999d' | format(1) }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ range(10**12) | list }}",
    "{{ (range(10**8) | list) | tojson }}",
    "{% set ns = namespace(x='x' * 1000) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(0) }}",
    "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(0) }}",
    "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
    "{{ " + "[" * 90 + "]" * 90 + " }}",
    "{% if 1 %}" * 200 + "{% endif %}" * 200,
    "{{ 1 / 0 }}",
    "{{ [][3] }}",
    "{{ messages[7].content }}",
    "{{ messages.content.more }}",
    "{{ missing() }}",
    "{{ missing.more }}",
    "{{ 'a' + 1 }}",
    "{{ 'a' | int + none }}",
    "{{ messages | map(attribute='content') | sum }}",
    "{{ raise_exception('no') }}",
    "{{ raise_exception(3) }}",
    "{{ raise_exception('a' * 99999) }}",
    "{{ raise_exception('\x1b[31mred') }}",
    "{{ raise_exception('a\\nb\\nc\\nd\\ne') }}",
    "{{ raise_exception() }}",
    "{{ strftime_now(3) }}",
    "{{ strftime_now('%') }}{{ strftime_now('\ud800') }}",
    "{{ messages | tojson(indent='x') }}",
    "{{ self | tojson }}",
    "{{ range | tojson }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ messages.append(1) }}",
    "{{ lipsum(n=0) }}",
    "{{ messages.__class__ }}",
    "{{ joiner()() }}{{ dict(a=1) }}{{ namespace(a=1).a }}",
    "{% include 'other' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends 'x' %}",
    "{% unknown %}",
    "{% for %}",
    "{{",
    "{#",
    "{% raw %}{{ x }}",
    "{% set messages = 3 %}{{ messages }}",
    "{{ none }}{{ true }}{{ 1e999 }}{{ -0.0 }}",
    "{{ '\\u0000' }}",
    "{{ messages[0].content }}" * 300,
    "",
    " ",
    "no tags at all",
)


def make(rng: Random, folder: Path, samples: Samples) -> Case:
    samples.copy_bmodel(folder, CHAT)
    template, what = draw(rng)
    prompt = rng.choice(("hello", "{{ 1 / 0 }}", "", "\u00e9\n"))
    if rng.random() < 0.5:
        write_text(folder / "config" / "chat_template.jinja", template)
    else:
        path = folder / "config" / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    flags = ["chat", "model.bmodel", "--max-tokens", "1", "--prompt", prompt]
    check = partial(tokens_as_transformers, prompt)
    return Case(f"template: {what}", "bmodel_tool", flags, check=check, free_text=True)


def draw(rng: Random) -> tuple[str, str]:
    """A template, and what is to see in it."""
    if rng.random() < 0.4:
        template, what = rng.choice(((CHATML, "chatml"), (MACROS, "macros")))
        for _ in range(rng.choice((0, 1, 1, 1, 2))):
            template, change = spoil_text(rng, template)
            what += f", {change}"
        return template, what
    body = rng.choice(BODIES)
    template, what = body, body[:70]
    if rng.random() < 0.3:
        template, what = CHATML.replace("{{ bos_token }}", body), f"chatml with {what}"
    if rng.random() < 0.2:
        template, change = spoil_text(rng, template)
        what += f", {change}"
    return template, what
