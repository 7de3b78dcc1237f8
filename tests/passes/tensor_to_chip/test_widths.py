"""Vectors, heads and matrices of any size: the chip computes what the tensor level says, whatever the lanes."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.ir.core import Value
from compiler.ir.types import BF16, F32
from compiler.weights.scheme import Scheme
from dialects import tensor
from dialects.tensor import Lanes, PackedType
from tests.passes.programs import EVERYWHERE, Program, array, packed, slots
from tests.passes.tensor_to_chip.lowered import BF, check, normal

LENGTHS = st.one_of(st.integers(1, 200), st.sampled_from([256, 1000, 1030, 1100, 2562]))
HEADS = st.one_of(st.integers(1, 12), st.sampled_from([63, 64, 65, 71, 96, 130]))
EVEN = st.integers(1, 70).map(lambda half: 2 * half)


@given(LENGTHS, st.sampled_from([slots(1), packed(1)]), st.data())
@settings(max_examples=40)
def test_vectors(count, layout, data):
    """A norm of part of a vector; the parts around it, in f32 and rounded, joined again."""
    start = data.draw(st.integers(0, count - 1), "start")
    size = data.draw(st.integers(1, count - start), "size")
    program = Program([normal(1, count), normal(1, size)])
    x, gain = program.load(layout), program.load(packed(1))
    parts = [
        program.add(tensor.SliceOp(x, starts=(0, first), sizes=(1, stop - first)))
        for first, stop in ((0, start), (start, start + size), (start + size, count))
        if first < stop
    ]
    middle = parts[bool(start)]
    parts[bool(start)] = normed = norm(program, middle, gain)
    whole = program.add(tensor.ConcatOp(*(doubled(program, part) for part in parts), axis=1))
    half = program.make(tensor.CastOp, whole, type_=array(whole.type.shape, BF16, slots(1)))
    check(program.finish(whole, normed, half, program.add(tensor.ArgmaxOp(middle))), 5e-3)


def norm(program: Program, x: Value, gain: Value) -> Value:
    """x / sqrt(mean(x**2) + 1) * gain, packed."""

    def of(kind: type[tensor.Binary], *operands: Value, **number: float) -> Value:
        shape = operands[0].type.shape
        layout = packed(1) if shape == gain.type.shape and operands[0].type.layout != EVERYWHERE else EVERYWHERE
        return program.make(kind, *operands, type_=array(shape, F32, layout), **number)

    square = of(tensor.MulOp, x, x)
    mean = program.add(tensor.ReduceOp(square, kind="sum", axis=1, scale=1 / x.type.shape[1]))
    root = program.add(tensor.RsqrtOp(of(tensor.AddOp, mean, scalar=1.0)))
    return of(tensor.MulOp, of(tensor.MulOp, x, root), gain)


def doubled(program: Program, x: Value) -> Value:
    return program.make(tensor.MulOp, x, type_=replace(x.type, layout=packed(1)), scalar=2.0)


@given(HEADS, EVEN, st.integers(1, 150), st.data())
@settings(max_examples=40)
def test_heads(heads, width, keys, data):
    """Rotated heads, their products with keys that some of them share, and what a softmax needs of these."""
    group = data.draw(st.sampled_from([d for d in range(1, heads + 1) if heads % d == 0]), "group")
    shared = heads // group
    program = Program([normal(heads, width), normal(1, 2 * width), normal(keys, shared, width, dtype=BF)])
    x, rows, history = program.load(slots(0)), program.load(EVERYWHERE), program.load(slots(0))
    rotated = program.add(tensor.RopeOp(x, rows))
    q = program.make(tensor.CastOp, rotated, type_=array(x.type.shape, BF16, slots(0)))
    found = []
    for head in range(shared):
        some = program.add(tensor.SliceOp(q, starts=(head * group, 0), sizes=(group, width)))
        k = program.add(tensor.SliceOp(history, starts=(0, head, 0), sizes=(keys, 1, width)))
        k = program.make(tensor.ReshapeOp, k, type_=array((keys, width), BF16, slots(0)))
        type_ = array((group, keys), F32, slots(0))
        found.append(program.make(tensor.MatmulOp, some, k, type_=type_, transpose_b=True))
    scores = program.add(tensor.ConcatOp(*found, axis=0)) if shared > 1 else found[0]
    highest = program.add(tensor.ReduceOp(scores, kind="max", axis=1))
    below = program.add(tensor.SubOp(scores, highest))
    check(program.finish(rotated, program.add(tensor.Exp2Op(below))), 1e-2)


@given(st.integers(1, 150), st.integers(1, 6), st.integers(1, 40), st.sampled_from([4, 8, 16]), st.booleans())
@settings(max_examples=40)
def test_products(rows, groups, half, bits, one):
    """A weight of rows x groups * 2 * half, with one vector or with seventy rows."""
    columns = groups * 2 * half
    scheme = None if bits == 16 else Scheme(bits, 2 * half, bits == 4, BF16)
    layout: Lanes = slots(2) if one else slots(1)
    program = Program([normal(1, 1 if one else 70, columns, dtype=BF)], {"w": normal(rows, columns, dtype=BF)})
    type_ = PackedType(rows, columns, BF16, scheme)
    weight = program.make(tensor.PackedWeightOp, type_=type_, sources=["w"], row=0, column=0)
    local = program.make(tensor.LoadOp, weight, type_=replace(type_, local=True))
    w, x = program.add(tensor.DequantizeOp(local)), program.load(layout)
    check(program.finish(program.make(tensor.LinearOp, x, w, type_=array((*x.type.shape[:2], rows), F32, layout))), 1e-5)


def test_parameters_of_any_length_come_in_one_record():
    """Two that fill no whole rows of lanes, and what lies behind them."""
    lengths = {"a": 100, "b": 1000, "c": 64, "d": 7}
    program = Program([], {name: normal(count) for name, count in lengths.items()})
    rows = []
    for name, count in lengths.items():
        weight = program.make(tensor.WeightOp, type_=array((count,), F32), sources=[name])
        row = program.make(tensor.ReshapeOp, weight, type_=array((1, 1, count), F32))
        rows.append(program.make(tensor.LoadOp, row, type_=array((1, 1, count), F32, packed(2))))
    check(program.finish(*(program.add(tensor.Exp2Op(program.add(tensor.MinOp(row, scalar=0.0)))) for row in rows)), 3e-6)
    assert [op.engine for op in program.instructions()].count("dma") == 1 + 6, "a load, and stores"
