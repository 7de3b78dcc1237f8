"""Mixed precision as flags say it."""

from __future__ import annotations

import pytest

from compiler.diagnostics import UserError
from driver.rules import Rule, head_rule


def test_a_pattern_and_its_bits():
    rule = Rule.parse("model.layers.[0-3].mlp.*=8")
    assert (rule.pattern, rule.bits) == ("model.layers.[0-3].mlp.*", 8)
    assert rule.applies("model.layers.3.mlp.up_proj", in_layer=True)
    assert not rule.applies("model.layers.4.mlp.up_proj", in_layer=True)
    assert not rule.applies("model.layers.3.self_attn.q_proj", in_layer=True)


def test_the_flag_for_the_head_takes_what_is_in_no_layer():
    rule = head_rule(8)
    assert rule.applies("lm_head", in_layer=False)
    assert not rule.applies("model.layers.0.mlp.up_proj", in_layer=True)


@pytest.mark.parametrize("text", ["", "lm_head", "=8", "lm_head=", "lm_head=2", "lm_head=8.0", "a b=8", "a,b=8", "{a}=8"])
def test_other_texts_are_refused(text):
    with pytest.raises(UserError, match=r"--keep .*: expected PATTERN=BITS with 4, 8 or 16 bits, such as lm_head=8"):
        Rule.parse(text)
