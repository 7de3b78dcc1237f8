"""Views of arrays in DDR: the items that numpy finds under other axes, loaded by tokens or copied into order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.ir.core import Value
from compiler.ir.module import Builder
from compiler.ir.types import BF16, F32
from dialects import tensor
from passes.llm_to_tensor.moved import Joined, Moved, Spread
from passes.llm_to_tensor.steps import CannotMove, finer, split_strides
from passes.ranges import Range
from passes.tensor.build import Build
from runtime_sim.interpret.rules import interpret
from tests.helpers import TARGET, parse_ir


def computed(x: np.ndarray, of: Callable[[Build, Value], Value]) -> np.ndarray:
    """What a function gives of x in DDR, stored from local memory."""
    type_ = f"tensor<{'x'.join(map(str, x.shape))}xf32>"
    module, _ = parse_ir(f'"func.return"(%x) : ({type_}) -> ()')
    (function,) = module.functions()
    build = Build(Builder.before(function.terminator), TARGET)
    found = build.add(tensor.StoreOp(of(build, function.args[0])))
    function.terminator.set_operands([found])
    function.update_type()
    (y,) = interpret(function, [x], {}.__getitem__, {})
    return y


def patches(build: Build, x: Value) -> Moved:
    """[3, 20, 20] in patches of 5, [16, 75]."""
    return Moved.of(build, x).reshape((3, 4, 5, 4, 5)).permute((1, 3, 0, 2, 4)).reshape((16, 75))


PICTURE = np.arange(1200, dtype=np.float32).reshape(3, 20, 20)
PATCHES = PICTURE.reshape(3, 4, 5, 4, 5).transpose(1, 3, 0, 2, 4).reshape(16, 75)


@given(start=st.integers(0, 15), count=st.integers(1, 16))
def test_any_tokens_of_several_axes_are_loaded(start, count):
    stop = min(16, start + count)
    found = computed(PICTURE, lambda build, x: patches(build, x).load(0, Range(start, stop)))
    np.testing.assert_array_equal(found, PATCHES[start:stop])


@pytest.mark.parametrize("element", [F32, BF16])
def test_pieces_that_are_too_short_are_copied_into_order(element):
    def copied(build: Build, x: Value) -> Value:
        view = patches(build, x)
        assert view.is_scattered  # in pieces of 20 bytes
        copy = view.collected(0, element)
        assert not copy.is_scattered
        return build.cast(copy.load(0, Range(3, 14)), F32, tensor.Lanes(0))

    np.testing.assert_array_equal(computed(PICTURE, copied), PATCHES[3:14].astype(element.numpy).astype(np.float32))


LANES = TARGET.lanes


def spread(build: Build, x: Value) -> Moved:
    """[3, 128, 64] in 32 x 16 patches of 4, of which 2 x 4 neighbours are in each of 16 x 4 lanes."""
    split = Moved.of(build, x).reshape((3, 16, 2, 4, 4, 4, 4))
    return split.permute((2, 5, 4, 1, 0, 3, 6)).reshape((8 * LANES, 48))


WIDE = np.arange(3 * 128 * 64, dtype=np.float32).reshape(3, 128, 64)
IN_LANES = WIDE.reshape(3, 16, 2, 4, 4, 4, 4).transpose(2, 5, 4, 1, 0, 3, 6).reshape(8 * LANES, 48)


@pytest.mark.parametrize("part", [(0, 8), (2, 5), (3, 4)])
@pytest.mark.parametrize("element", [F32, BF16])
def test_lanes_put_pieces_into_order(part, element):
    tokens = Range(*(row * LANES for row in part))

    def loaded(build: Build, x: Value) -> Value:
        view = spread(build, x)
        assert view.is_scattered
        return build.cast(Spread(view, element).load(0, tokens), F32, tensor.Lanes(0))

    wanted = IN_LANES[tokens.start : tokens.stop].astype(element.numpy).astype(np.float32)
    np.testing.assert_array_equal(computed(WIDE, loaded), wanted)


def test_a_lane_loads_long_pieces_once():
    """Of 2 x 4 patches, which are two rows of four."""
    commands: list[tuple[int, ...]] = []

    def loaded(build: Build, x: Value) -> Value:
        y = Spread(spread(build, x), BF16).load(0, Range(0, 8 * LANES))
        ops = build.builder.block.ops
        commands.extend(op.results[0].type.shape for op in ops if isinstance(op, tensor.LoadOp))
        return build.cast(y, F32, tensor.Lanes(0))

    computed(WIDE, loaded)
    assert commands == [(3, 16, 1, 4, 1, 4, 4)] * 8  # two for each column of lanes


def test_single_tokens_are_loaded_in_short_pieces():
    found = computed(WIDE, lambda build, x: Spread(spread(build, x), F32).load(0, Range(LANES, LANES + 3)))
    np.testing.assert_array_equal(found, IN_LANES[LANES : LANES + 3])


def test_long_pieces_are_read_where_they_are():
    def turned(build: Build, x: Value) -> Value:
        view = Moved.of(build, x).permute((1, 0, 2)).reshape((8, 128))
        assert not view.is_scattered  # in pieces of 256 bytes
        return view.load(0, Range(0, 8))

    x = np.arange(1024, dtype=np.float32).reshape(2, 8, 64)
    np.testing.assert_array_equal(computed(x, turned), x.transpose(1, 0, 2).reshape(8, 128))


def test_arrays_are_joined_by_tokens():
    def joined(build: Build, x: Value) -> Value:
        parts = [Moved.of(build, x).slice(0, part) for part in (Range(4, 5), Range(0, 4))]
        return Joined(tuple(parts)).load(0, Range(0, 3))

    x = np.arange(40, dtype=np.float32).reshape(5, 8)
    np.testing.assert_array_equal(computed(x, joined), x[[4, 0, 1]])


@pytest.mark.parametrize(
    ("sizes", "shape", "found", "groups"),
    [
        ((6, 8), (1, 6, 8), (6, 8), (0, 1, 1)),
        ((6, 8), (3, 16), (3, 2, 8), (1, 2)),
        ((3, 2, 8), (48,), (3, 2, 8), (3,)),
        ((1,), (1, 1), (1,), (0, 1)),
    ],
)
def test_axes_are_split_as_a_shape_needs_it(sizes, shape, found, groups):
    assert finer(sizes, shape) == (found, groups)
    assert len([*split_strides(sizes, [1] * len(sizes), found)]) == len(found) * (sizes != (1,))


def test_what_no_stride_leads_to_is_refused():
    with pytest.raises(CannotMove, match="takes axes of 6 items in steps of 4"):
        finer((6, 8), (4, 12))
