"""Values on both sides of a pass that are compared, and those that are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import runtime_sim.interpret.llm  # noqa: F401  (importing it registers its rules)
from compiler.ir.core import Op
from compiler.ir.module import Function
from dialects import llm, tensor
from driver.bisect.values import SAME, Made, Values, cuts_like, places
from runtime_sim.interpret.rules import interpret
from tests.driver.bisect.broken import LAYER, change_dump, check, ops
from tests.helpers import parse_ir

WHOLE = "tensor<1x4x8xf32>"
BEFORE = f"""
    %y = "llm.mul"(%x, %x) : ({WHOLE}, {WHOLE}) -> {WHOLE} loc("mlp")
    %down = "llm.neg"(%y) : ({WHOLE}) -> {WHOLE} loc("down")
"""


def tile(number: int, start: int, stop: int) -> str:
    """The same for some features, from an array of both factors, which has the size of the result if it is half."""
    part, both = f"tensor<1x4x{stop - start}xf32>", f"tensor<1x4x{2 * (stop - start)}xf32>"
    size = stop - start

    def piece(name: str, source: str, of: str, first: int, last: int) -> str:
        bounds = f"axis = 2 : i64, start = {first} : i64, stop = {last} : i64, step = 1 : i64"
        return f'%{name}{number} = "llm.slice"(%{source}) <{{{bounds}}}> : ({of}) -> {part} loc("mlp")\n'

    join = (
        f'%b{number} = "llm.concat"(%x{number}, %x{number}) <{{axis = 2 : i64}}> : ({part}, {part}) -> {both}'
    )
    return (
        piece("x", "x", WHOLE, start, stop)
        + f'{join} loc("mlp")\n'
        + piece("g", f"b{number}", both, 0, size)
        + piece("u", f"b{number}", both, size, 2 * size)
        + f'%p{number} = "llm.mul"(%g{number}, %u{number}) : ({part}, {part}) -> {part} loc("mlp")\n'
        + f'%n{number} = "llm.neg"(%p{number}) : ({part}) -> {part} loc("down")\n'
    )


def made(body: str) -> list[Made]:
    """What a list of ops makes of one %x."""
    found = Values()
    module, _ = parse_ir(body)
    given = np.random.default_rng(3).standard_normal((1, 4, 8)).astype(np.float32)
    interpret(module.functions()[0], [given], {"bias": given}.__getitem__, observer=found)
    return found.made


def compared(after: str) -> dict[str, bool]:
    """The places that are compared, and whether they are found to be the same."""
    return {pair.made.place: pair.cosine >= SAME for pair in places(made(BEFORE), made(after))}


def test_tiles_are_compared_part_by_part():
    assert compared(tile(0, 0, 4) + tile(1, 4, 8)) == {"mlp": True, "down": True}


@pytest.mark.parametrize("wrong", [tile(1, 2, 6), tile(1, 0, 4)])
def test_a_wrong_tile_is_found(wrong):
    assert compared(tile(0, 0, 4) + wrong) == {"mlp": False, "down": False}


def test_tiles_of_several_sizes_are_not_compared():
    """Although a step inside of the first one has the size of the whole."""
    after = tile(0, 0, 4) + tile(1, 4, 6) + tile(2, 6, 8)
    assert any(each.place == "mlp" and each.array.size == 32 for each in made(after))
    assert compared(after) == {}


def test_a_constant_of_the_size_of_the_result_is_not_compared():
    bias = f"""
        %w = "llm.weight"() <{{name = "bias"}}> : () -> {WHOLE}
        %b = "llm.neg"(%w) : ({WHOLE}) -> {WHOLE} loc("mlp")
        %c = "llm.neg"(%b) : ({WHOLE}) -> {WHOLE} loc("elsewhere")
    """
    assert compared(bias + tile(0, 0, 4) + tile(1, 4, 8)) == {"mlp": True, "down": True}


def test_only_results_of_like_ops_are_parts_of_one_value():
    part = "tensor<1x4x2xf32>"
    others = "".join(
        f'%e{i} = "llm.neg"(%p1) : ({part}) -> {part} loc("mlp")\n'
        f'%f{i} = "llm.neg"(%e{i}) : ({part}) -> {part} loc("elsewhere")\n'
        for i in (0, 1)
    )
    assert compared(tile(0, 0, 4) + tile(1, 4, 6) + others + tile(2, 6, 8)) == {}


def test_an_array_is_cut_along_several_axes():
    whole = np.arange(32).reshape(1, 4, 8)
    for shape in ((1, 2, 4), (2, 4), (1, 1, 2, 4)):
        found = cuts_like(whole, shape)
        assert [cut.ravel()[0] for cut in found] == [0, 4, 16, 20]
        assert {cut.size for cut in found} == {8}


@pytest.mark.parametrize("shape", [(1, 3, 4), (2, 2, 4), (32,), (1, 8, 4)])
def test_other_shapes_are_no_parts(shape):
    assert cuts_like(np.zeros((1, 4, 8)), shape) == []


# ---- in a whole net ----



def drop_gain(place: str) -> Callable[[Function], Op]:
    def change(function: Function) -> Op:
        (norm,) = ops(function, llm.RmsNormOp, place)
        norm.set_operands(norm.operands[:1], (1, 0))
        return norm

    return change


def drop_recorded_weight(place: str) -> Callable[[Function], Op]:
    """As it is recorded, a norm is arithmetic that ends with a product."""

    def change(function: Function) -> Op:
        products = ops(function, llm.MulOp, place)
        (product,) = (op for op in products if any(x.defining(llm.WeightOp) for x in op.operands))
        product.set_operands([x for x in product.operands if x.defining(llm.WeightOp) is None], (1, 0))
        product.value = 1.0
        return product

    return change


def swap_rope(function: Function) -> Op:
    """Rotate the keys in the other direction: their rows of the table negated."""
    rope = ops(function, tensor.RopeOp)[1]
    negated = tensor.MulOp(rope.rows, scalar=-1.0, loc=rope.loc)
    rope.parent.insert_before(rope, negated)
    rope.set_operand(1, negated.results[0])
    return rope


@pytest.mark.parametrize("place", ["input_layernorm", "self_attn.q_norm", "post_attention_layernorm"])
def test_a_norm_weight_lost_in_an_llm_pass(compiled, dumps, place):
    line = change_dump(dumps, "fuse-qkv", drop_gain(place))
    check(compiled.report("block_0", dumps), "fuse-qkv", f"{LAYER}.{place}", line)


@pytest.mark.parametrize("net", ["block_0", "block_1"])
def test_a_norm_weight_lost_in_the_import(compiled, dumps, net):
    """Layers 0 and 1 are made from one module."""
    change_dump(dumps, "input", drop_recorded_weight("self_attn.k_norm"))
    report = compiled.report(net, dumps)
    assert "before any pass" in report[-2]
    assert f"first module: {LAYER}.self_attn.k_norm, " in report[-1]


def test_a_wrong_rotation_in_the_import_shows_at_the_next_module(compiled, dumps):
    def change(function: Function) -> Op:
        negation = ops(function, llm.NegOp)[0]
        negation.y.replace_by(negation.x)
        return negation

    change_dump(dumps, "input", change)
    text = compiled.report("block_0", dumps)[-1]
    assert f"first module: {LAYER}.self_attn.o_proj, " in text
    assert f"{LAYER}.self_attn.v_proj before it agrees" in text


@pytest.mark.parametrize("name", ["llm-to-tensor", "tile-weights"])
def test_a_wrong_rotation_in_a_tensor_pass(compiled, dumps, name):
    line = change_dump(dumps, name, swap_rope)
    check(compiled.report("block_0", dumps), name, f"{LAYER}.self_attn", line)
