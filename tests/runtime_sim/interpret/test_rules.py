"""The interpreter: arrays by name, observers, lifetimes, and rules that give something else than they should."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import runtime_sim.interpret.llm  # noqa: F401  (registers the rules)
from compiler.ir.types import F32, TensorType
from compiler.ir.verify import verify
from dialects import llm
from runtime_sim.interpret.rules import RULES, Data, Run, interpret, interpret_parts
from tests.helpers import parse_ir
from tests.runtime_sim.interpret.single import f64, run


def test_codes_that_nobody_supplies_are_named():
    w = "tensor<4x4xbf16, #weights.scheme<bits = 4, group = 4, zeros = false, scale = bf16>>"
    text = f"""
        %w = "llm.weight"() <{{name = "w"}}> : () -> {w}
        %y = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}>
           : (tensor<4x4xbf16>, {w}) -> tensor<4x4xbf16>
    """
    with pytest.raises(ValueError, match="nothing says what codes w is stored as"):
        interpret(parse_ir(text)[0].functions()[0], [np.eye(4, dtype=ml_dtypes.bfloat16)], {}.__getitem__)


def test_named_data_comes_by_name_in_the_type_of_the_op():
    text = """
    %w = "llm.weight"() <{name = "w"}> : () -> tensor<2xbf16>
    %t = "llm.table"() <{name = "t"}> : () -> tensor<3x2xf32>
    %r = "llm.gather_rows"(%t, %ids) : (tensor<3x2xf32>, tensor<1x2xi32>) -> tensor<1x2x2xf32>
    %y = "llm.mul"(%w, %r) : (tensor<2xbf16>, tensor<1x2x2xf32>) -> tensor<1x2x2xbf16>
    """
    table = np.arange(6, dtype=np.float32).reshape(3, 2)
    y = run(text, np.array([[2, 1]], np.int32), w=np.array([1.0, 0.5], np.float32), t=table)
    np.testing.assert_array_equal(f64(y), [[[4, 2.5], [2, 1.5]]])


def test_rule_that_gives_another_shape_than_the_op_is_found_out():
    module, _ = parse_ir('%y = "llm.neg"(%x) : (tensor<2xf32>) -> tensor<2xf32>')
    function = module.function("test")
    next(iter(function.block.ops)).results[0].type = TensorType((3,), F32)
    with pytest.raises(ValueError, match=r"rule of llm.neg .* float32\[2\], expected tensor<3xf32>"):
        interpret(function, [np.zeros(2, np.float32)], {}.__getitem__)


CHAIN = """
    %a = "llm.neg"(%x) : (tensor<2xf32>) -> tensor<2xf32>
    %b = "llm.neg"(%a) : (tensor<2xf32>) -> tensor<2xf32>
    %c = "llm.add"(%b, %x) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
"""


def test_observer_sees_each_op_in_order():
    module, _ = parse_ir(CHAIN)
    seen = []
    observer = lambda op, results: seen.append((op.opname, results[0].tolist()))  # noqa: E731
    interpret(module.function("test"), [np.array([1, 2], np.float32)], {}.__getitem__, observer=observer)
    assert seen == [("llm.neg", [-1, -2]), ("llm.neg", [1, 2]), ("llm.add", [2, 4])]


def test_values_are_dropped_after_their_last_use():
    module, _ = parse_ir(CHAIN)
    function = module.function("test")
    live = []
    run = Run(Data({}.__getitem__), lambda op, results: live.append(len(run.values)))
    run.begin(function, [np.zeros(2, np.float32)])
    assert live == [2, 3, 3]  # before the operands of the op at hand go
    assert len(run.values) == 1


def test_arguments_of_another_type_are_named():
    function = parse_ir(CHAIN)[0].function("test")
    for array in (np.zeros(3, np.float32), np.zeros(2, np.float64)):
        with pytest.raises(ValueError, match=r"argument x of test gives float\d\d\[\d\], expected tensor<2xf32>"):
            interpret(function, [array], {}.__getitem__)


def test_an_op_without_a_rule_is_named(monkeypatch):
    monkeypatch.delitem(RULES, llm.AddOp)
    with pytest.raises(NotImplementedError, match=r"no simulation rule for llm\.add"):
        interpret(parse_ir(CHAIN)[0].function("test"), [np.zeros(2, np.float32)], {}.__getitem__)


# ---- parts in lockstep ----


def part(number: int, body: str, count: int = 2):
    """A function of one argument x, two numbers, that says which core it is."""
    x = "tensor<2xf32>"
    net = (
        '#bm.net<name = "f", inputs = [#bm.input<name = "x">], outputs = [#bm.output<name = "y">], '
        f"part = #bm.part<core = {number}, cores = {count}>>"
    )
    module, _ = parse_ir(f"""
      "func.func"() <{{sym_name = "f{number}", function_type = ({x}) -> {x}}}> ({{
      ^bb0(%x: {x}):
        {body}
        "func.return"(%y) : ({x}) -> ()
      }}) {{bm.net = {net}}} : () -> ()
    """)
    verify(module)
    return module.functions()[0]


REDUCE = '%y = "llm.all_reduce"(%x) <{over = "core"}> : (tensor<2xf32>) -> tensor<2xf32>'


def gather(*sizes: int) -> str:
    """Of the first numbers of x."""
    own = "tensor<{}xf32>"
    listed = f"sizes = array<i64: {', '.join(map(str, sizes))}>"
    return f"""
        %s = "llm.slice"(%x) <{{axis = 0 : i64, start = 0 : i64, stop = 1 : i64}}> : (tensor<2xf32>) -> {own.format(1)}
        %y = "llm.all_gather"(%s) <{{over = "core", axis = 0 : i64, {listed}}}> : ({own.format(1)}) -> tensor<2xf32>
    """


def together(*functions, inputs=((1, 2), (30, 40))):
    arrays = [[np.array(each, np.float32)] for each in inputs]
    return [result.tolist() for (result,) in interpret_parts(functions, arrays, {}.__getitem__)]


def test_parts_add_up_what_each_has_and_all_get_the_sum():
    assert together(part(0, REDUCE), part(1, REDUCE)) == [[31, 42], [31, 42]]


def test_sums_are_added_in_the_order_of_the_parts():
    one, large = np.float32(1), np.float32(1 << 24)
    bodies = [part(number, REDUCE, 3) for number in range(3)]
    assert together(*bodies, inputs=((one, 0), (large, 0), (-large, 0)))[0] == [0, 0]
    assert together(*bodies, inputs=((large, 0), (-large, 0), (one, 0)))[2] == [1, 0]


def test_parts_join_what_each_has():
    assert together(part(0, gather(1, 1)), part(1, gather(1, 1))) == [[1, 30], [1, 30]]


def test_a_part_with_nothing_does_not_meet_the_others():
    bodies = [gather(1, 0, 1), REDUCE.replace("all_reduce", "neg").replace(' <{over = "core"}>', ""), gather(1, 0, 1)]
    found = together(*(part(i, body, 3) for i, body in enumerate(bodies)), inputs=((1, 2), (3, 4), (5, 6)))
    assert found == [[1, 5], [-3, -4], [1, 5]]


def test_parts_that_do_not_meet_are_an_error():
    with pytest.raises(ValueError, match=r"do not meet: they are at llm.all_reduce, llm.all_gather"):
        together(part(0, REDUCE), part(1, gather(1, 1)))
    with pytest.raises(ValueError, match=r"do not meet: they are at llm.all_reduce, its end"):
        together(part(0, REDUCE), part(1, REDUCE.replace("all_reduce", "neg").replace(' <{over = "core"}>', "")))
    with pytest.raises(ValueError, match=r"do not meet: they are at llm.all_reduce"):
        together(part(0, REDUCE), inputs=((1, 2),))


def test_the_lowest_index_of_equals_is_that_of_the_first_part():
    def body(offset: int) -> str:
        return f"""
        %v, %i = "llm.largest"(%x) <{{offset = {offset} : i64}}> : (tensor<2xf32>) -> (tensor<1xf32>, tensor<1xi32>)
        %m = "llm.all_reduce_argmax"(%v, %i) <{{over = "core"}}> : (tensor<1xf32>, tensor<1xi32>) -> tensor<1xi32>
        %f = "llm.multi_hot"(%m) <{{size = 2 : i64}}> : (tensor<1xi32>) -> tensor<2xf32>
        %g = "llm.multi_hot"(%i) <{{size = 2 : i64}}> : (tensor<1xi32>) -> tensor<2xf32>
        %y = "llm.add"(%f, %g) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
        """

    functions = [part(0, body(0)), part(1, body(0))]
    assert together(*functions, inputs=((5, 7), (7, 5))) == [[0, 2], [1, 1]]
    assert together(*functions, inputs=((5, 7), (7.5, 5))) == [[1, 1], [2, 0]]
