"""parse(print(ir)) is ir, for random modules over all registered ops, types and attributes."""

import math
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.ir.core import Op, Value
from compiler.ir.module import walk
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from compiler.ir.syntax import parse_attribute
from compiler.ir.text import attribute_text
from tests.compiler.ir.random_ir import attributes, modules

relaxed = settings(max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))


def same(a: object, b: object) -> bool:
    """Equal and of the same kinds; NaN equals NaN, and zeros have signs."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        assert isinstance(b, float)
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(same, a.values(), b.values()))
    return repr(a) == repr(b)


def assert_same_ir(a: Op, b: Op) -> None:
    values: dict[Value, Value] = {}
    for x, y in zip(walk(a), walk(b), strict=True):
        assert x.opname == y.opname
        assert same(x.attributes, y.attributes)
        assert [values[v] for v in x.operands] == list(y.operands)
        assert (x.segments, x.loc) == (y.segments, y.loc)
        assert len(x.regions) == len(y.regions)
        pairs = [(x.results, y.results)]
        pairs += [(p.block.args, q.block.args) for p, q in zip(x.regions, y.regions, strict=True)]
        for left, right in pairs:
            values |= dict(zip(left, right, strict=True))
            assert all(same(v.type, w.type) for v, w in zip(left, right, strict=True))


@relaxed
@given(modules())
def test_parse_of_print_is_the_module(module):
    text = print_module(module)
    parsed = parse_module(text)
    assert_same_ir(module, parsed)
    assert print_module(parsed) == text


@relaxed
@given(attributes)
def test_parse_of_print_is_the_attribute(value):
    assert same(parse_attribute(attribute_text(value)), value)


@settings(relaxed, max_examples=20)
@given(modules())
def test_numbered_values_read_back_the_same(module):
    text = print_module(module, names=False, locations=False)
    assert print_module(parse_module(text), names=False, locations=False) == text


@settings(relaxed, max_examples=20)
@given(modules(), st.sampled_from(["<{", "}>", ": (", "({"]))
def test_a_comment_anywhere_changes_nothing(module, where):
    """Comments inside a property list or signature force the fine rules of the grammar."""
    text = print_module(module)
    string_or_mark = rf'"(?:[^"\\]|\\.)*"|({re.escape(where)})'
    commented = re.sub(string_or_mark, lambda m: m[0] + ("// note\n" if m[1] else ""), text)
    assert print_module(parse_module(commented)) == text
