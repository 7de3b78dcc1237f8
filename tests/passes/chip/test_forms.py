"""What is worked out once for instructions of a form."""

from __future__ import annotations

from dataclasses import replace

from compiler.ir.types import F32
from compiler.target.chips.bm1684x import BM1684X
from compiler.target.spec import ChipSpec
from dialects.chip import ArOp, Instruction, LocalOp, LocalType, Ordered, View
from passes.chip.forms import PerForm

VIEW = View(F32)


def add(dst: LocalOp, left: LocalOp, right: LocalOp, view: View = VIEW) -> ArOp:
    buffers = (each.buffer for each in (dst, left, right))
    return ArOp(*buffers, kind="add", shape=(1, 64, 1, 16), res=view, opd0=view, opd1=VIEW)


def local() -> LocalOp:
    return LocalOp(types=[LocalType(64)])


def counted() -> tuple[PerForm[int], list[Instruction]]:
    seen: list[Instruction] = []

    def function(op: Instruction, spec: ChipSpec) -> int:
        seen.append(op)
        return len(seen)

    return PerForm(function, BM1684X), seen


def test_one_form_is_worked_out_once_whether_attributes_are_one_object_or_equal():
    per_form, seen = counted()
    first = add(local(), local(), local())
    shared = ArOp.build([local().buffer for _ in range(3)], (), first.attributes, segments=first.segments)
    equal = add(local(), local(), local())
    assert equal.attributes is not first.attributes
    assert [per_form(op) for op in (first, shared, equal, first)] == [1] * 4
    assert seen == [first]


def test_ids_and_waits_are_no_part_of_the_form():
    per_form, _ = counted()
    ops = [add(local(), local(), local()) for _ in range(2)]
    for number, op in enumerate(ops, 1):
        op.attributes = Ordered(op.attributes, number, number - 1)
    assert [per_form(op) for op in ops] == [1, 1]


def test_which_buffers_are_one_and_attributes_tell_forms_apart():
    per_form, _ = counted()
    x, y = local(), local()
    apart = add(x, y, local())
    in_place = ArOp.build([v.buffer for v in (x, x, y)], (), apart.attributes, segments=apart.segments)
    moved = add(x, y, local(), view=replace(VIEW, offset=64))
    assert [per_form(op) for op in (apart, in_place, moved, apart)] == [1, 2, 3, 1]
