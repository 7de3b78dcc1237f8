"""Tensors that are filled part by part: joined, or refused where a part is missing."""

from __future__ import annotations

import pytest

from compiler.ir.core import Value
from compiler.ir.module import Builder
from compiler.ir.types import F32, TensorType
from dialects import llm
from dialects.builtin import FuncOp
from frontend.aten import HANDLERS, Emitter, Unsupported
from frontend.unwritten import Unwritten

new_empty, copy, part, write = (HANDLERS[f"aten.{name}"] for name in ("new_empty", "copy", "slice", "slice_scatter"))


@pytest.fixture
def emit():
    function = FuncOp.with_args("test", [TensorType((1, 4, 6), F32), TensorType((1, 4, 2), F32), TensorType((1, 1, 2), F32)])
    emitter = Emitter(Builder(function.block), F32)
    return emitter, function.args


def test_parts_in_any_order_are_joined_in_theirs(emit):
    emit, (wide, narrow, _) = emit
    whole = new_empty(emit, wide, [1, 4, 8])
    whole = write(emit, whole, narrow, 2, 6, 8)
    assert isinstance(whole, Unwritten)
    whole = write(emit, whole, wide, -1, 0, 6)
    joined = whole.defining(llm.ConcatOp)
    assert (joined.parts, joined.axis) == ((wide, narrow), 2)


def test_a_write_through_slices_of_everything_is_one_of_the_part(emit):
    """`x[:, :, 6:] = y` is a slice along each axis, and back."""
    emit, (wide, narrow, _) = emit
    whole = write(emit, new_empty(emit, wide, [1, 4, 8]), wide, 2, 0, 6)
    view = part(emit, part(emit, whole, 0, 0, 1 << 62), 2, 6, 1 << 62)
    assert view == Unwritten((1, 4, 2))
    written = copy(emit, view, narrow)
    assert written is narrow
    whole = write(emit, whole, write(emit, whole, written, 2, 6, 1 << 62), 0, 0, 1 << 62)
    assert isinstance(whole, Value)


def test_what_is_copied_is_repeated_to_fit(emit):
    emit, (_, _, single) = emit
    found = copy(emit, Unwritten((1, 4, 2)), single)
    assert found.type.shape == (1, 4, 2)
    assert found.defining(llm.BroadcastOp) is not None


def test_a_known_part_can_be_read(emit):
    emit, (wide, _, _) = emit
    whole = write(emit, new_empty(emit, wide, [1, 4, 8]), wide, 2, 0, 6)
    assert part(emit, whole, 2, 0, 6) is wide


@pytest.mark.parametrize(("axis", "start", "stop", "message"), [(2, 5, 7, "written twice"), (1, 0, 2, "several axes")])
def test_other_writes_are_refused(emit, axis, start, stop, message):
    emit, (wide, narrow, _) = emit
    whole = write(emit, new_empty(emit, wide, [1, 4, 8]), wide, 2, 0, 6)
    with pytest.raises(Unsupported, match=message):
        write(emit, whole, narrow, axis, start, stop)
    with pytest.raises(Unsupported, match="step"):
        write(emit, whole, narrow, 2, 6, 8, 2)
