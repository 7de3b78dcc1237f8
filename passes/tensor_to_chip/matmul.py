"""Matrix products: rows of the left operand and the result on the same lanes, the right one read by all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, product
from math import prod
from typing import TypeGuard

from compiler.ir.core import Op, Value
from compiler.ir.types import ElementType
from compiler.sizes import round_up
from compiler.target.spec import ChipSpec
from dialects import chip, tensor
from dialects.tensor import Lanes
from passes.tensor_to_chip.context import Lowering, lowers
from passes.tensor_to_chip.dequantize import parts_of_weight
from passes.tensor_to_chip.emitter import Emitter
from passes.tensor_to_chip.placed import CannotView, Placed


@lowers(tensor.LinearOp)
def linear(low: Lowering, op: Op) -> None:
    assert isinstance(op, tensor.LinearOp)
    x = low.get(op.x)
    res, accumulate = destination(low, op)
    for first, part in parts_of_weight(low, op.w):
        multiply(low, x, part, outputs(res, first, part.shape[0]), accumulate)


def multiply(low: Lowering, x: Placed, w: Placed, res: Placed, accumulate: bool) -> None:
    """x @ w.T for a vector over the lanes, or rows of inputs."""
    if x.axis == len(x.shape) - 1:
        emit_matmul(low.emit, "nn", as_column(low, res), w, as_column(low, x), accumulate)
    else:
        low.emit.repeat(products, res, x, w, kind="nt", accumulate=accumulate)


def outputs(res: Placed, first: int, count: int) -> Placed:
    """Some along the last axis."""
    *lead, _ = res.shape
    return res.slice((*(0 for _ in lead), first), (*lead, count))


def destination(low: Lowering, op: tensor.LinearOp | tensor.MatmulOp) -> tuple[Placed, bool]:
    """Where the sum is built, and whether on what is there: then this must be its accumulator's last use."""
    start = op.accumulator
    if start is None:
        return low.result(op), False
    later = [user for user in start.users if user is not op and op.is_before(user)]
    if later:
        op.fail(f"overwrites its accumulator, which {later[0].opname} still reads")
    low.set(op.results[0], low.get(start))
    return low.get(start), True


def as_column(low: Lowering, x: Placed) -> Placed:
    """A vector [.., n] over the lanes as the matrix [n, 1], one item in each EU-wide slot."""
    assert x.axis is not None
    slot = low.spec.eu_items(x.dtype.bytes)
    require(x.strides[x.axis] == slot or x.lane_rows == 1, f"{list(x.shape)} does not lie in slots")
    return replace(x, shape=(x.shape[x.axis], 1), strides=(slot, 1), axis=0)


@lowers(tensor.MatmulOp)
def matmul(low: Lowering, op: Op) -> None:
    assert isinstance(op, tensor.MatmulOp)
    a, b = low.get(op.a), right_matrix(low, op.b)
    res, accumulate = destination(low, op)
    low.emit.repeat(products, res, a, b, kind="nt" if op.transpose_b else "nn", accumulate=accumulate)


def products(emit: Emitter, res: Placed, a: Placed, b: Placed, kind: str, accumulate: bool) -> Placed:
    """Of each matrix in [.., m, k] with b."""
    for left, result in matrices(emit.spec, a, res):
        emit_matmul(emit, kind, result, left, b, accumulate)
    return res


def row_sums(low: Lowering, x: Placed, res: Placed) -> None:
    """The sum of each row of 16 bit, in f32: its product with a column of ones."""
    low.emit.repeat(products, res, x, ones(low, x.shape[-1], x.dtype), kind="nn", accumulate=False)


def ones(low: Lowering, count: int, dtype: ElementType) -> Placed:
    """[count, 1], the first of a column that is filled once, for the longest row of the function."""
    if dtype not in low.ones:
        longest = max(sum_.x.type.shape[-1] for sum_ in low.block.ops if is_sum_of(sum_, dtype))
        low.ones[dtype] = low.emit.fill(low.emit.new((longest, 1), dtype, Lanes(0)), 1.0)
    return low.ones[dtype].slice((0, 0), (count, 1))


def is_sum_of(op: Op, dtype: ElementType) -> TypeGuard[tensor.ReduceOp]:
    return isinstance(op, tensor.ReduceOp) and op.x.type.element == dtype


def right_matrix(low: Lowering, value: Value) -> Placed:
    """A right operand as the unit reads it, from lane 0 on and without gaps; copied if it lies otherwise."""
    found = low.get(value)
    if found.lane:
        rows, columns = found.shape
        return low.emit.lanes("l_copy", low.emit.of_type(value.type), found, (1, rows, 1, columns))
    return found if is_matrix(low.spec, found) else low.emit.cast(low.emit.of_type(value.type), found)


def matrices(spec: ChipSpec, left: Placed, result: Placed) -> Iterator[tuple[Placed, Placed]]:
    """Cut [.., m, k] and [.., m, n] into matrices whose rows of lanes lie one pitch apart in both."""
    joined, joined_result = with_rows_joined(spec, left), with_rows_joined(spec, result)
    if joined is not None and joined_result is not None:
        yield joined, joined_result
        return
    *lead, rows, _ = left.shape
    for index in product(*(range(size) for size in lead)):
        pair = [matrix_at(x, index) for x in (left, result)]
        if all(is_matrix(spec, x) for x in pair):
            yield pair[0], pair[1]
            continue
        start = 0
        while start < rows:
            count = min(spec.lanes - (left.lane + start) % spec.lanes, rows - start)
            yield (
                pair[0].slice((start, 0), (count, left.shape[-1])),
                pair[1].slice((start, 0), (count, result.shape[-1])),
            )
            start += count


def with_rows_joined(spec: ChipSpec, x: Placed) -> Placed | None:
    """[.., m, k] as one matrix, where each of those there are fills whole rows of lanes and lies behind the
    one before it.
    """
    *lead, rows, columns = x.shape
    if x.lane or rows % x.lanes or x.axis != len(lead):
        return None
    sizes, strides = [*lead, rows // x.lanes], x.strides[:-1]
    wide = [(size, stride) for size, stride in zip(sizes, strides, strict=True) if size > 1]
    for (_, outer), (size, inner) in pairwise(wide):
        if outer != size * inner:
            return None
    pitch = wide[-1][1] if wide else columns
    whole = replace(x, shape=(prod(lead) * rows, columns), strides=(pitch, x.strides[-1]), axis=0)
    return whole if is_matrix(spec, whole) else None


def matrix_at(x: Placed, index: tuple[int, ...]) -> Placed:
    one = x.slice((*index, 0, 0), (*(1 for _ in index), *x.shape[-2:]))
    return one.reshape(x.shape[-2:], 0)


def is_matrix(spec: ChipSpec, x: Placed) -> bool:
    """Whether it begins on an EU width and its rows of lanes lie at the pitch of matrix operands."""
    pitch = round_up(x.shape[1], spec.eu_items(x.dtype.bytes))
    return x.offset % spec.eu_bytes == 0 and (x.lane_rows == 1 or x.strides[0] == pitch)


def require(holds: bool, reason: str) -> None:
    """Refuse operands that the matrix unit would read in another order than they lie."""
    if not holds:
        raise CannotView(reason)


def emit_matmul(emit: Emitter, kind: str, res: Placed, left: Placed, right: Placed, accumulate: bool) -> None:
    m, k, n = left.shape[0], left.shape[1], res.shape[1]
    require(left.lane == res.lane, "the left operand and the result start on different lanes")
    require(right.lane == 0, "the right operand does not start on lane 0")
    require(right.axis == 0 and left.axis == 0 and res.axis == 0, "rows do not lie over the lanes")
    require(all(x.strides[1] == 1 or x.shape[1] == 1 for x in (res, left, right)), "columns with gaps")
    require(is_matrix(emit.spec, right), f"{list(right.shape)} is not laid out as a matrix")
    require(right.shape == ((k, n) if kind == "nn" else (n, k)), f"{list(right.shape)} for k={k} n={n}")
    emit.add(
        chip.MatmulOp(
            res.buffer,
            left.buffer,
            right.buffer,
            kind=kind,
            m=m,
            k=k,
            n=n,
            res=res.view(()),
            opd0=left.view(()),
            opd1=right.view(()),
            accumulate=accumulate,
        )
    )
