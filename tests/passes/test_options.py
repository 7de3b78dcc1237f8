"""Options that differ from function to function."""

from __future__ import annotations

import pytest

from compiler.diagnostics import UserError
from passes import load_all
from passes.manager import parse_pipeline, pipeline_text
from passes.options import ByFunction

load_all()
VALUES = ByFunction(256, (("block_cache", 0),))


def test_each_function_has_its_own_value_or_the_usual_one():
    assert [VALUES[name] for name in ("block", "block_cache", "lm_head")] == [256, 0, 256]
    assert ByFunction.of({"block": 256, "block_cache": 0, "other": 256}) == VALUES


def test_values_that_become_equal_are_said_once():
    assert VALUES.map(bool) == ByFunction(True, (("block_cache", False),))
    assert VALUES.map(lambda value: value * 0) == ByFunction(0)


@pytest.mark.parametrize("text", ["tokens=256,block_cache=0", "tokens=64 tail=1,a=0,b=2"])
def test_pipelines_say_them_behind_the_usual_one(text):
    (found,) = parse_pipeline(f"llm-to-tensor{{{text}}}")
    assert pipeline_text([found]) == f"llm-to-tensor{{{text}}}"
    assert parse_pipeline("llm-to-tensor{tokens=256,block_cache=0}")[0].tokens == VALUES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("256,", "is '256,', expected VALUE,FUNCTION=VALUE"),
        ("256,block_cache", "expected VALUE,FUNCTION=VALUE"),
        ("256,a=1,a=2", "expected VALUE,FUNCTION=VALUE"),
        ("256,a=many", "is 'many', expected a whole number"),
        ("256,a=-1", "expected a number from 0 on"),
        ("a=256", "is 'a=256', expected a whole number"),
    ],
)
def test_what_is_no_such_option_is_the_users_mistake(text, message):
    with pytest.raises(UserError, match=message):
        parse_pipeline(f"llm-to-tensor{{tokens={text}}}")
