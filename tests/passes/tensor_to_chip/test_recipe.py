"""What is emitted again for arrays that lie alike is what would be emitted for them anew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compiler.ir.core import Block
from compiler.ir.location import NameLoc
from compiler.ir.module import Builder
from compiler.ir.types import BF16, F32
from compiler.target.chips.bm1684x import BM1684X
from dialects import chip
from dialects.tensor import Lanes
from passes.tensor_to_chip.arithmetic import sigmoid_of
from passes.tensor_to_chip.emitter import Emitter
from passes.tensor_to_chip.placed import Placed
from passes.tensor_to_chip.recipe import pattern_of


def emitter() -> Emitter:
    return Emitter(Builder(Block()), BM1684X)


def text_of(emit: Emitter) -> list[str]:
    return [str(op) for op in emit.builder.block.ops]


def arrays(emit: Emitter, *shapes: tuple[int, ...]) -> list[Placed]:
    return [emit.new(shape, F32, Lanes(0)) for shape in shapes]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_body_emits_the_same_again_on_other_buffers(times):
    copied, anew = emitter(), emitter()
    for emit in (copied, anew):
        for _ in range(times):
            (x, table) = arrays(emit, (64, 32), (64, 5))
            if emit is copied:
                made = emit.repeat(sigmoid_of, x, table)
            else:
                made = sigmoid_of(emit, x, table)
            emit.cast(emit.like(x, BF16), made)
    assert text_of(copied) == text_of(anew)


def test_copies_share_their_attributes():
    emit = emitter()
    for _ in range(2):
        emit.ar("add", *arrays(emit, (64, 8), (64, 8), (64, 8)))
    first, second = (op for op in emit.builder.block.ops if isinstance(op, chip.ArOp))
    assert first.attributes is second.attributes
    assert first.operands != second.operands


def test_copies_have_the_location_of_what_is_lowered_now():
    emit = emitter()
    for name in ("first", "second"):
        emit.loc = NameLoc(name)
        emit.ar("add", *arrays(emit, (64, 8), (64, 8), (64, 8)))
    assert [str(op.loc) for op in emit.builder.block.ops] == ["first"] * 4 + ["second"] * 4


def patterns(emit: Emitter) -> dict[str, list[Placed | float | None]]:
    """Arrays of which no two lie alike, by what sets them apart from the first."""
    x, y = arrays(emit, (64, 8), (64, 8))
    (part,) = arrays(emit, (64, 16))
    return {
        "nothing": [x, y, y],
        "which are one": [x, y, x],
        "all are one": [x, x, x],
        "the shape": [x, y, y.slice((0, 0), (64, 4))],
        "the strides": [x, y, part.slice((0, 0), (64, 8))],
        "the offset": [x, y, part.slice((0, 8), (64, 8))],
        "the lane": [x, y, replace(y, lane=1)],
        "the axis": [x, y, replace(y, axis=None)],
        "the type": [x, y, replace(y, dtype=BF16)],
        "a number": [x, y, 0.0],
        "its sign": [x, y, -0.0],
        "nothing there": [x, y, None],
    }


def test_arrays_that_lie_in_another_way_have_another_recipe():
    found = [pattern_of(given) for given in patterns(emitter()).values()]
    assert len(set(found)) == len(found)


def test_arrays_in_ddr_have_another_recipe():
    emit = emitter()
    (x,) = arrays(emit, (64, 8))
    region = chip.GlobalOp(space="scratch", types=[chip.GlobalType(x.buffer.type.bytes)]).results[0]
    assert pattern_of([x]) != pattern_of([replace(x, buffer=region)])


def test_a_body_that_takes_what_it_is_not_given_is_refused():
    emit = emitter()
    x, other = arrays(emit, (64, 8), (64, 8))
    with pytest.raises(KeyError):
        emit.repeat(lambda emit, x: emit.ar("add", emit.like(x), x, other), x)


def test_a_body_that_makes_a_region_of_ddr_is_refused():
    def body(emit: Emitter, x: Placed) -> Placed:
        emit.add(chip.GlobalOp(space="scratch", types=[chip.GlobalType(64)]))
        return x

    emit = emitter()
    with pytest.raises(AssertionError, match=r"chip\.global is not to be repeated"):
        emit.repeat(body, *arrays(emit, (64, 8)))
