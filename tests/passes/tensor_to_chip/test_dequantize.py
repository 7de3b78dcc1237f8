"""Weights unpacked: as they lie or in bytes, whole or part by part; what codes stand for, in every scheme."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from compiler.ir.types import BF16, F16, F32, UI4, UI8
from compiler.target.chips.bm1684x import BM1684X
from compiler.target.chips.bm1688 import BM1688
from compiler.weights.scheme import Scheme
from dialects import chip, tensor
from dialects.tensor import PackedType
from tests.helpers import random_codes
from tests.passes.programs import Program, array, slots
from tests.passes.tensor_to_chip.lowered import BF, check, kinds, normal


@pytest.mark.parametrize(
    ("bits", "zeros", "group", "rows", "columns"),
    [
        (4, True, 32, 130, 128),
        (4, False, 64, 64, 64),
        (8, False, 16, 100, 96),
        (4, True, 128, 200, 128),
        (4, True, 20, 130, 100),
        (4, False, 5, 70, 50),
        (8, False, 7, 130, 21),
    ],
)
@pytest.mark.parametrize(("half", "scale"), [*itertools.product([BF16, F16], repeat=2)])
def test_dequantize(bits, zeros, group, rows, columns, half, scale):
    program = Program([], {"w": normal(rows + 7, 2 * columns, dtype=half.numpy)})
    type_ = PackedType(rows, columns, half, Scheme(bits, group, zeros, scale))
    weight = program.make(tensor.PackedWeightOp, type_=type_, sources=["w"], row=7, column=columns)
    local = program.make(tensor.LoadOp, weight, type_=replace(type_, local=True))
    check(program.finish(program.add(tensor.DequantizeOp(local))))


@pytest.mark.parametrize("scale", [BF16, F16])
@pytest.mark.parametrize(
    ("zeros", "minimum", "group", "rows", "columns", "unpacked"),
    [
        (True, False, 32, 130, 96, False),
        (False, False, 64, 40, 64, False),
        (True, False, 5, 70, 50, True),  # groups that begin within bytes
        (False, True, 32, 100, 96, False),
    ],
)
def test_codes_are_taken_as_they_lie_where_instructions_read_4_bits(zeros, minimum, group, rows, columns, unpacked, scale):
    scheme = Scheme(4, group, zeros, scale, minimum)
    program = Program([], {"w": random_codes((rows + 7, 2 * columns), scheme)}, spec=BM1688)
    type_ = PackedType(rows, columns, BF16, scheme)
    weight = program.make(tensor.PackedWeightOp, type_=type_, sources=["w"], row=7, column=columns)
    local = program.make(tensor.LoadOp, weight, type_=replace(type_, local=True))
    check(program.finish(program.add(tensor.DequantizeOp(local))))
    first = next(op for op in program.instructions() if isinstance(op, chip.ArOp))
    assert first.opd0.dtype == UI4
    assert (first.res.dtype == UI8) is unpacked
    assert not {"ar.and", "ar.ashift"} & set(kinds(program))


@pytest.mark.parametrize("scale", [BF16, F16])
@pytest.mark.parametrize(
    ("bits", "zeros", "minimum"), [(4, False, True), (8, True, False), (8, False, True), (4, True, False), (8, False, False)]
)
def test_dequantize_codes_that_others_chose(bits, zeros, minimum, scale):
    scheme = Scheme(bits, 32, zeros, scale, minimum)
    program = Program([], {"w": random_codes((140, 192), scheme)})
    type_ = PackedType(130, 96, BF16, scheme)
    weight = program.make(tensor.PackedWeightOp, type_=type_, sources=["w"], row=3, column=96)
    local = program.make(tensor.LoadOp, weight, type_=replace(type_, local=True))
    check(program.finish(program.add(tensor.DequantizeOp(local))))


SCHEMES = {"zeros": Scheme(4, 64, True, BF16), "minimum": Scheme(4, 64, False, BF16, True), "bytes": Scheme(8, 64, False, F16)}


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("spec", [BM1684X, BM1688], ids=lambda spec: spec.name)
@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("tokens", [1, 70])
def test_a_large_tile_is_unpacked_and_multiplied_by_part_by_part(tokens, accumulates, spec, scheme):
    """Of rows of lanes that parts do not divide, the last of them not full."""
    columns = spec.work_bytes // 4
    rows = 4 * spec.lanes + 20
    layout = slots(2) if tokens == 1 else slots(1)
    arrays = [normal(1, tokens, columns, dtype=BF), normal(1, tokens, rows)]
    program = Program(arrays[: 1 + accumulates], {"w": random_codes((rows, columns), scheme)}, spec=spec)
    x, start = program.load(layout), program.load(layout) if accumulates else None
    type_ = PackedType(rows, columns, BF16, scheme)
    weight = program.make(tensor.PackedWeightOp, type_=type_, sources=["w"], row=0, column=0)
    w = program.add(tensor.DequantizeOp(program.make(tensor.LoadOp, weight, type_=replace(type_, local=True))))
    y = program.make(tensor.LinearOp, x, w, start, type_=array((1, tokens, rows), F32, layout))
    check(program.finish(y), 1e-6)
    products = [op for op in program.instructions() if isinstance(op, chip.MatmulOp)]
    parts = dict.fromkeys(op.operands[2 if tokens > 1 else 1] for op in products)
    assert [part.type.bytes for part in parts] == [2 * columns, 4 * columns, 4 * columns]


@pytest.mark.parametrize(("given", "most"), [(0, 1), (1, 1), (2, 2), (4, 2)])
def test_no_more_than_twice_the_usual_is_unpacked_at_a_time(given, most):
    """In units of `work_bytes`, of a tile of 4."""
    columns = BM1688.work_bytes // 2
    program = Program([normal(1, 64, columns, dtype=BF)], {"w": random_codes((128, columns), SCHEMES["zeros"])}, spec=BM1688)
    x, type_ = program.load(slots(1)), PackedType(128, columns, BF16, SCHEMES["zeros"])
    weight = program.make(tensor.PackedWeightOp, type_=type_, sources=["w"], row=0, column=0)
    w = program.add(tensor.DequantizeOp(program.make(tensor.LoadOp, weight, type_=replace(type_, local=True))))
    program.finish(program.make(tensor.LinearOp, x, w, type_=array((1, 64, 128), F32, slots(1))))
    program.lower(f"tensor-to-chip{{bytes={given * BM1688.work_bytes}}}")
    parts = dict.fromkeys(op.operands[2] for op in program.instructions() if isinstance(op, chip.MatmulOp))
    assert {part.type.bytes for part in parts} == {most * BM1688.work_bytes}


def test_a_tile_that_is_read_twice_is_unpacked_once():
    program = Program([normal(1, 64, 4096, dtype=BF)], {"w": random_codes((128, 4096), SCHEMES["zeros"])}, spec=BM1688)
    x, type_ = program.load(slots(1)), PackedType(128, 4096, BF16, SCHEMES["zeros"])
    weight = program.make(tensor.PackedWeightOp, type_=type_, sources=["w"], row=0, column=0)
    w = program.add(tensor.DequantizeOp(program.make(tensor.LoadOp, weight, type_=replace(type_, local=True))))
    ys = [program.make(tensor.LinearOp, x, w, type_=array((1, 64, 128), F32, slots(1))) for _ in range(2)]
    check(program.finish(*ys), 1e-6)
    assert kinds(program).count("ar.sub") == 1


def test_rows_of_several_weights_in_one_tile():
    program = Program([], {"gate": normal(200, 64, dtype=BF), "up": normal(200, 64, dtype=BF)})
    type_ = PackedType(128, 64, BF16, Scheme(4, 32, True, BF16))
    weight = program.make(
        tensor.PackedWeightOp, type_=type_, sources=["gate", "up"], row=100, column=0, each=True
    )
    local = program.make(tensor.LoadOp, weight, type_=replace(type_, local=True))
    check(program.finish(program.add(tensor.DequantizeOp(local))))
