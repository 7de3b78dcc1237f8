"""Ranges of DDR: exactly the bytes of a strided view, however views of one region overlap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.ir.types import BF16, F32, I8
from compiler.target.isa import isa_for
from dialects.chip import (
    Access,
    DmaTensorOp,
    GlobalOp,
    GlobalType,
    LocalOp,
    LocalType,
    Placement,
    View,
    global_access,
    row_major,
)
from passes.chip.ddr import LastTouch
from runtime_sim.check.ranges import accesses
from tests.passes.programs import SPEC

BYTES = 4096
REGION, OTHER = (GlobalOp(space="scratch", types=[GlobalType(BYTES)]).results[0] for _ in range(2))


@st.composite
def strided(draw: st.DrawFn) -> tuple[View, tuple[int, ...]]:
    """A view of 4 KiB, and a shape that it has room for."""
    dtype = draw(st.sampled_from([I8, BF16, F32]))
    shape = draw(st.tuples(*[st.integers(1, 4)] * 3, st.sampled_from([1, 3, 8])))
    strides = draw(st.tuples(*[st.sampled_from([0, 1, 8, 24, 64])] * 3, st.sampled_from([0, 1, 2])))
    return View(dtype, dtype.bytes * draw(st.integers(0, 64)), 0, draw(st.sampled_from([strides, ()]))), shape


def bytes_of(view: View, shape: tuple[int, ...]) -> np.ndarray:
    """Whether each byte of the region is touched, item by item."""
    strides = view.strides or row_major(shape)
    items = sum(
        np.multiply.outer(np.arange(k), s).reshape([-1 if i == j else 1 for j in range(4)])
        for i, (k, s) in enumerate(zip(shape, strides, strict=True))
    )
    touched = np.zeros(BYTES, bool)
    for byte in range(view.dtype.bytes):
        touched[view.offset + items * view.dtype.bytes + byte] = True
    return touched


@given(st.lists(st.tuples(strided(), st.booleans()), min_size=1, max_size=6))
def test_the_newest_is_that_of_the_bytes_in_common(drawn):
    found = [global_access(REGION, view, shape, write) for (view, shape), write in drawn]
    last, known = LastTouch(found), np.full(BYTES, -1)
    for number, (access, (view, _)) in enumerate(zip(found, drawn, strict=True)):
        touched = bytes_of(*view)
        assert last.newest(access) == known[touched].max()
        last.record(access, number)
        known[touched] = number


def test_a_smaller_number_does_not_take_the_place_of_a_larger_one():
    low, both = Access(REGION, True, 0, 64), Access(REGION, True, 0, 128)
    last = LastTouch([low, both])
    last.record(low, 5)
    last.record(both, 3)
    assert (last.newest(low), last.newest(both), last.newest(Access(REGION, False, 64, 128))) == (5, 5, 3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Access(REGION, True, 0, 384, loops=((3, 160),)), Access(REGION, True, 256, 320)),
        (Access(REGION, True, 0, 64), Access(REGION, True, 96, 160)),
        (Access(REGION, True, 0, 48), Access(REGION, True, BYTES - 48, BYTES)),
        (Access(REGION, True, 0, BYTES), Access(OTHER, True, 0, BYTES)),
    ],
    ids=["between pieces", "after a gap", "at the end", "another region"],
)
def test_what_lies_apart_is_told_apart(one, other):
    last = LastTouch([one, other])
    last.record(other, 1)
    assert (last.newest(one), last.newest(other)) == (-1, 1)


@given(strided())
def test_a_strided_access_is_what_its_registers_say(drawn):
    """Against `runtime_sim.check.ranges`, which knows nothing of ops."""
    view, shape = drawn
    local = LocalOp(types=[LocalType(BYTES)]).results[0]
    op = DmaTensorOp(local, REGION, kind="copy", shape=shape, res=View(view.dtype), opd0=view)
    place = Placement(SPEC, lambda buffer: 0 if buffer is local else SPEC.ddr_base, SPEC.lane_bytes)
    (decoded,) = isa_for(SPEC).decode("dma", isa_for(SPEC).encode(op.family, "copy", op.fields(place)))
    touched = np.zeros(BYTES, bool)
    for access in accesses(decoded, SPEC):
        for box in access.boxes if not access.is_local else ():
            touched[box.start - SPEC.ddr_base : box.end - SPEC.ddr_base] = True
    assert (touched == bytes_of(view, shape)).all()
