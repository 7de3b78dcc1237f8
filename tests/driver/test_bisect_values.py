"""Values on both sides of a pass that are compared, and those that are not."""

from __future__ import annotations

import numpy as np
import pytest

import runtime_sim.interpret.llm  # noqa: F401  (importing it registers its rules)
from driver.bisect.values import SAME, Made, Values, cuts_like, places
from runtime_sim.interpret.rules import interpret
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
