"""Emit chip instructions over placed values: fresh buffers, and element-wise instructions on any strides."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from math import prod
from types import MappingProxyType
from typing import Any

from compiler.ir.core import Op, OpT, Value
from compiler.ir.location import Location
from compiler.ir.module import Builder
from compiler.ir.types import F32, I8, I32, Attribute, ElementType, TensorType
from compiler.sizes import round_up
from compiler.target.spec import ChipSpec
from dialects import chip
from dialects.tensor import Lanes, Replicated, axis_over_lanes
from passes.tensor_to_chip.placed import REMEMBERED, CannotView, Placed, buffer_bytes, default_strides
from passes.tensor_to_chip.recipe import Recipe, buffers_of, pattern_of, recipe_of
from passes.tensor_to_chip.steps import dma_steps, steps

Operand = Placed | float  # an array, or one number for all positions

RECIPROCAL_MAGIC = float(0x7EF311C7)  # makes the largest error of the guess least, 5.05 %
MAX_ITEMS = 0xFFFF  # of one row of a matrix command
NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})


@lru_cache(REMEMBERED)
def local_type(bytes_: int) -> chip.LocalType:
    """Buffers of one size share their type."""
    return chip.LocalType(bytes_)


@lru_cache(REMEMBERED)
def fresh_form(type_: TensorType, spec: ChipSpec) -> tuple[chip.LocalType, tuple[int, ...], int | None]:
    """The buffer that an array of a type takes, its strides in it, and which axis is over the lanes."""
    return local_type(buffer_bytes(type_, spec)), default_strides(type_, spec), axis_over_lanes(type_)


class Emitter:
    """Builds instructions at one place, all with the location of the tensor op being lowered."""

    def __init__(self, builder: Builder, spec: ChipSpec):
        self.builder = builder
        self.spec = spec
        self.loc: Location | None = None
        self.weights: dict[Attribute, Value] = {}
        self._recipes: dict[Hashable, Recipe] = {}
        self._recordings: list[list[Op]] = []  # the ops that were added since each began

    def add(self, op: OpT) -> OpT:
        if self.loc is not None:
            op.loc = self.loc
        for recording in self._recordings:
            recording.append(op)
        return self.builder.add(op)

    def repeat(self, body: Callable[..., Placed], *arrays: Operand | None, **settings: Hashable) -> Placed:
        """`body(self, *arrays, **settings)`: it knows nothing but what it is given.

        So for arrays that lie alike it emits the same on other buffers, which is copied from the first time.
        """
        key = (body, pattern_of(arrays), *settings.items())
        recipe = self._recipes.get(key)
        if recipe is not None:
            return recipe.follow(self.add, buffers_of(arrays))
        self._recordings.append([])
        try:
            made = body(self, *arrays, **settings)
        finally:
            ops = self._recordings.pop()
        self._recipes[key] = recipe_of(ops, buffers_of(arrays), made)
        return made

    # ---- buffers ----

    def new(self, shape: Sequence[int], dtype: ElementType, layout: Attribute) -> Placed:
        return self.of_type(TensorType(tuple(shape), dtype, layout))

    def of_type(self, type_: TensorType) -> Placed:
        local, strides, axis = fresh_form(type_, self.spec)
        buffer = self.add(chip.LocalOp.build((), (local,), NO_ATTRIBUTES)).results[0]
        return Placed(buffer, type_.element, type_.shape, strides, axis, self.spec.lanes)

    def like(self, model: Placed, dtype: ElementType = F32) -> Placed:
        """A fresh array of the same shape on the same lanes: aligned, but compact where nothing follows."""
        if model.axis is None:
            return self.new(model.shape, dtype, Replicated())
        compact = all(size == 1 for size in model.shape[model.axis + 1 :])
        return self.from_lane(model.lane, model.shape, dtype, Lanes(model.axis, compact))

    def from_lane(self, lane: int, shape: Sequence[int], dtype: ElementType, layout: Lanes) -> Placed:
        """A fresh array whose first item along the axis over the lanes is on that lane."""
        whole, starts = list(shape), [0] * len(shape)
        whole[layout.axis] += lane
        starts[layout.axis] = lane
        return self.new(whole, dtype, layout).slice(starts, shape)

    def weight(self, source: Attribute, bytes_: int) -> Value:
        """The DDR region of a piece of the coefficient blob; the same piece is one region."""
        if source not in self.weights:
            op = chip.GlobalOp(space="weight", source=source, types=[chip.GlobalType(bytes_)])
            self.weights[source] = self.add(op).results[0]
        return self.weights[source]

    # ---- instructions ----

    def ar(self, kind: str, res: Placed, a: Operand, b: Operand | None = None, **attrs: Any) -> Placed:
        """Element-wise `kind`; axes of size 1 broadcast.

        Numbers take the `constant_type`, by default that of the other operand.
        """
        return self.repeat(Emitter._ar, res, a, b, kind=kind, **attrs)

    def _ar(self, res: Placed, a: Operand, b: Operand | None, kind: str, **attrs: Any) -> Placed:
        arrays = [x for x in (res, a, b) if isinstance(x, Placed)]
        if len({x.lane for x in arrays if x.axis is not None}) > 1:
            raise CannotView(f"operands of {kind} start on lanes {', '.join(str(x.lane) for x in arrays)}")
        arrays = [replace(x, lane=res.lane) if x.axis is None else x for x in arrays]
        dtype = attrs.pop("constant_type", a.dtype if isinstance(a, Placed) else res.dtype)
        numbers = [None if x is None or isinstance(x, Placed) else chip.constant(x, dtype) for x in (a, b)]
        buffers = [x.buffer if isinstance(x, Placed) else None for x in (a, b)]
        for step in steps(arrays, self.spec):
            view, *views = (x.view(s, o) for x, s, o in zip(arrays, step.strides, step.offsets, strict=True))
            left = iter(views)
            opd0, opd1 = (number or next(left, None) for number in numbers)
            op = chip.ArOp(
                res.buffer, *buffers, kind=kind, shape=step.shape, res=view, opd0=opd0, opd1=opd1, **attrs
            )
            self.add(op)
        return res

    def cast(self, res: Placed, x: Placed, rounding: int = 0) -> Placed:
        """Convert, or copy bits where the type stays. rounding: 0 ties to even, 1 ties away, 3 down."""
        if res.dtype == x.dtype and rounding == 0:
            return self.ar("copy", res, x)
        return self.ar("cast", res, x, round=rounding)

    def fill(self, res: Placed, value: float) -> Placed:
        return self.ar("copy", res, value, constant_type=res.dtype)

    def sfu(self, kind: str, x: Placed, table: Placed | None = None) -> Placed:
        """A special function on an array, into a fresh one."""
        return self.repeat(Emitter._sfu, x, table, kind=kind)

    def _sfu(self, x: Placed, table: Placed | None, kind: str) -> Placed:
        if not self.is_aligned(x):
            return self._sfu_of_copy(kind, x, table)
        res = self.like(x)
        if x.axis is not None and x.lane_rows > 1 and x.strides[x.axis] > 1:  # in slots, as x is
            res = self.from_lane(x.lane, x.shape, F32, Lanes(x.axis))
        shape, offsets, _ = self.aligned(x)
        extra: dict[str, Any] = {} if table is None else {"opd1": table.view(()), "terms": table.shape[-1]}
        self.add(
            chip.SfuOp(
                res.buffer,
                x.buffer,
                None if table is None else table.buffer,
                kind=kind,
                shape=shape,
                res=res.view(()),
                opd0=x.view((), offsets),
                **extra,
            )
        )
        return res

    def _sfu_of_copy(self, kind: str, x: Placed, table: Placed | None) -> Placed:
        """`sfu` of an array whose rows of lanes are not whole slots, by way of a packed copy.

        The copy is taken as one run per lane; on lanes that hold no item of the last row, what it computes is
        not read.
        """
        assert x.axis is not None
        assert not x.lane
        copy = self.cast(self.new(x.shape, x.dtype, Lanes(x.axis, compact=True)), x)
        items = copy.buffer.type.bytes // x.dtype.bytes
        runs = replace(copy, shape=(x.lanes, items), strides=(0, 1), axis=0)
        return replace(copy, buffer=self.sfu(kind, runs, table).buffer)

    def is_aligned(self, x: Placed) -> bool:
        """Whether `sfu` and `pool` can take x as it lies."""
        first, *rest = steps([x], self.spec)
        return not rest and chip.same_layout(
            first.strides[0], first.shape, x.view(first.strides[0]), self.spec
        )

    def aligned(self, x: Placed) -> tuple[chip.Shape4, int, chip.Shape4]:
        """The one 4-D shape under which `x` has the EU-aligned layout; an assertion if there is none."""
        (step,) = steps([x], self.spec)
        assert self.is_aligned(x), f"{x} is not in the aligned layout"
        return step.shape, 0, step.strides[0]

    def pool(self, kind: str, x: Placed, scale: float = 1.0) -> Placed:
        """Reduce the last axis of an aligned array, in the steps that are fastest: down, then across.

        Those of sums are what is fastest for one row: the order in which a row is added up, and so its bits,
        depend on no other.
        """
        return self.repeat(Emitter._pool_all, x, kind=kind, scale=scale)

    def _pool_all(self, x: Placed, kind: str, scale: float) -> Placed:
        others = prod(size for i, size in enumerate(x.shape[:-1]) if i != x.axis)
        rows = x.lane_rows * others if kind == "max" else 1
        start, eu_items = self.spec.costs.tiu_start["pord"], self.spec.eu_items(x.dtype.bytes)
        _, widths = pooling(x.shape[-1], rows, eu_items, start)
        for width in widths:
            tall = x.reshape((*x.shape[:-1], x.shape[-1] // width, width), x.axis)
            x, scale = self._pool(kind, tall, (tall.shape[-2], 1), scale), 1.0
            if kind == "max" and self._is_halved(width, others * x.lane_rows):
                found = self._halved(x)
                if found is not None:
                    return found
        return self._pool(kind, x, (1, x.shape[-1]), scale)

    def _is_halved(self, width: int, rows: int) -> bool:
        """Whether it takes less to halve so many rows in a lane until one item is left than to pool them."""
        starts, eu_items = self.spec.costs.tiu_start, self.spec.eu_items(F32.bytes)
        parts = [width >> step for step in range(1, width.bit_length())]
        halving = sum(starts["ar"] + 2 * -(-rows * part // eu_items) for part in parts)
        return width == 1 << len(parts) and halving < pooling(width, rows, eu_items, starts["pord"])[0]

    def _halved(self, x: Placed) -> Placed | None:
        """The largest of each row: halves of all rows in a lane are compared at once, where windows take a
        cycle for each of their items. None where rows of lanes are not whole.
        """
        if x.lane_rows > 1:
            beside = x.with_rows_beside()
            found = None if beside is None else self._halved(beside)
            return None if found is None else found.with_rows_joined()
        while x.axis is not None and x.shape[-1] > 1:
            *lead, width = x.shape
            sizes, zeros = (*lead, width // 2), [0] * len(lead)
            first, second = (x.slice((*zeros, start), sizes) for start in (0, width // 2))
            x = self.ar("max", self.from_lane(x.lane, sizes, F32, Lanes(x.axis)), first, second)
        return x

    def _pool(self, kind: str, x: Placed, kernel: tuple[int, int], scale: float) -> Placed:
        """Pool windows over the last two axes (or the last, as 1 x w)."""
        depth = 2 if kernel[0] > 1 else 1
        if not self.is_pooled(x, depth):
            raise CannotView(f"windows of {list(x.shape)} in strides {list(x.strides)}")
        lead = x.shape[: len(x.shape) - depth]
        out_shape = (*lead, x.shape[-1]) if depth == 2 else (*lead, 1)
        if x.axis is None:
            res = self.new(out_shape, F32, Replicated())
        else:
            res = self.from_lane(x.lane, out_shape, F32, Lanes(x.axis))
        outer = prod(size for i, size in enumerate(lead) if i != x.axis)
        channels = self.spec.lanes if x.axis is None else x.shape[x.axis]
        height = x.shape[-2] if depth == 2 else 1
        shape: chip.Shape4 = (outer, channels, height, x.shape[-1])
        self.add(
            chip.PoolOp(
                res.buffer,
                x.buffer,
                kind=kind,
                shape=shape,
                kernel=kernel,
                scale=scale,
                res=res.view(()),
                opd0=x.view(()),
            )
        )
        return res

    def is_pooled(self, x: Placed, depth: int) -> bool:
        """Whether the last `depth` axes are windows one after the other, in the order that `pool` implies:
        other axes, then rows of lanes, each in whole EU widths.
        """
        window = prod(x.shape[-depth:])
        slot = round_up(window, self.spec.eu_items(x.dtype.bytes))
        lead = [i for i in range(len(x.shape) - depth) if i != x.axis and x.shape[i] > 1]
        wanted = {i: prod(x.shape[i + 1 :]) for i in range(len(x.shape) - depth, len(x.shape))}
        if x.axis is not None and x.lane_rows > 1:
            wanted[x.axis] = slot
        step = slot * x.lane_rows
        for i in reversed(lead):
            wanted[i] = step
            step *= x.shape[i]
        return all(x.shape[i] == 1 or x.strides[i] == stride for i, stride in wanted.items())

    def lanes(self, kind: str, res: Placed, x: Placed, shape: chip.Shape4) -> Placed:
        self.add(
            chip.LanesOp(res.buffer, x.buffer, kind=kind, shape=shape, res=res.view(()), opd0=x.view(()))
        )
        return res

    def move_lanes(self, res: Placed, x: Placed) -> Placed:
        """Copy a vector to where it begins on another lane: only whole slots move from lane to lane."""
        count, (slots, target) = prod(x.shape), (self._in_slots(place) for place in (x, res))
        if not slots.same_place(x):
            self.cast(slots, x)
        self.lanes("l_copy", target, slots, (1, count, 1, 1))
        return res if target.same_place(res) else self.cast(res, target)

    def _in_slots(self, x: Placed) -> Placed:
        """x if its items lie in slots, else a fresh array of its shape and lane that does."""
        assert x.axis is not None
        slots = x.strides[x.axis] == self.spec.eu_items(x.dtype.bytes) and not x.offset % self.spec.eu_bytes
        return x if slots else self.from_lane(x.lane, x.shape, x.dtype, Lanes(x.axis))

    def exp2(self, x: Placed, table: Placed, highest: int | None = None) -> Placed:
        """2**x = 2**(n + 1) * 2**(r - 1), n the nearest integer put into the exponent's bits, r the rest.

        n saturates at -128 as int8; n + 1 = -127 gives the bits of 0, so that what is masked weighs nothing.
        Without `highest`, x <= 0. `table` holds half of a polynomial of 2**r.
        """
        whole = self.cast(self.like(x), x, rounding=1)
        fraction = self.ar("sub", self.like(x), x, whole)
        series = self.sfu("taylor", fraction, table)
        exponent = self.cast(self.like(x, I8), whole, rounding=1)
        if highest is not None:
            exponent = self.ar("min", self.like(x, I8), exponent, float(highest))
        biased = self.like(x, I32)
        self.ar("adds", biased, exponent, 128.0, constant_type=I32, shift=23, round=1)
        return self.ar("mul", self.like(x), series, replace(biased, dtype=F32))

    def reciprocal(self, x: Placed) -> Placed:
        """1 / x for 1 <= x < 2**126, to 7e-6: a guess from the bits, and two of Newton's steps y (2 - x y).

        The division instruction takes four times as long. The guess, a constant less the bits of x, is off by
        at most 5 %, and each step squares the error.
        """
        guess = self.like(x, I32)
        self.ar("sub", guess, RECIPROCAL_MAGIC, replace(x, dtype=I32), constant_type=I32)
        y = replace(guess, dtype=F32)
        for _ in range(2):
            rest = self.ar("sub", self.like(x), 2.0, self.ar("mul", self.like(x), x, y))
            y = self.ar("mul", self.like(x), y, rest)
        return y

    def dma(self, dst: Placed, src: Placed, kind: str = "copy") -> None:
        """Copy between DDR and local memory; c is the axis over the lanes of the local side."""
        matrix = None if kind == "broadcast" else matrix_copy(dst, src)
        if matrix is not None:
            self.add(matrix)
            return
        for step in dma_steps(dst, src):
            res, opd0 = (x.view(s, o) for x, s, o in zip((dst, src), step.strides, step.offsets, strict=True))
            n, c, h, w = step.shape
            shape = (n, self.spec.lanes if kind == "broadcast" else c, h, w)
            self.add(chip.DmaTensorOp(dst.buffer, src.buffer, kind=kind, shape=shape, res=res, opd0=opd0))


@cache
def pooling(columns: int, rows: int, eu_items: int, start: int) -> tuple[int, tuple[int, ...]]:
    """The fewest cycles in which rows of so many columns are reduced, and how many columns each step leaves
    but the last.

    A step takes `start` cycles, and for each row one for each item of its window and EU width of its result.
    """
    best: tuple[int, tuple[int, ...]] = (start + rows * columns, ())
    for width in range(2, columns // 2 + 1):
        if columns % width == 0:
            rest, widths = pooling(width, rows, eu_items, start)
            cycles = start + rows * (columns // width) * -(-width // eu_items) + rest
            best = min(best, (cycles, (width, *widths)))
    return best


def matrix_copy(dst: Placed, src: Placed) -> chip.DmaMatrixOp | None:
    """The copy as one matrix command, which is the faster kind; None when the arrays do not allow it.

    That takes rows over whole rows of lanes, contiguous within DDR and from one to the next. Items are moved
    in fours of bytes, since a matrix row has at most 65,535 of them. One row of lanes goes no further than
    its items: the vendor's C-model wants all of a pitch to be in local memory.
    """
    local = src if dst.in_ddr else dst
    axis, lanes, item = local.axis, local.lanes, local.dtype.bytes
    found = list(dma_steps(dst, src))
    if axis is None or local.lane or local.shape[axis] % lanes or len(found) != 1:
        return None
    strides = dict(zip((dst.in_ddr, src.in_ddr), found[0].strides, strict=True))
    _, ddr_pitch, _, ddr_step = strides[True]
    n, _, h, w = found[0].shape
    words = w * item // 4
    contiguous = n == h == 1 and ddr_pitch == w and (ddr_step == 1 or w == 1)
    if not contiguous or w * item % 4 or words * lanes > MAX_ITEMS:
        return None
    rows = local.shape[axis] // lanes
    return chip.DmaMatrixOp(
        dst.buffer,
        src.buffer,
        rows=rows,
        columns=lanes * words,
        block=words,
        row_stride=lanes * words,
        n_stride=strides[False][1] * item // 4 if rows > 1 else words,
        c_stride=words,
        res=replace(dst, dtype=I32).view(()),
        opd0=replace(src, dtype=I32).view(()),
    )
