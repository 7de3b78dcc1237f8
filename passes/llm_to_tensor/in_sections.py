"""A function of many tokens, section by section, each in runs of its own: what goes from one to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from compiler.ir.core import Op, Value
from compiler.ir.module import Function
from compiler.ir.types import F32, ElementType, TensorType
from compiler.target.spec import ChipSpec
from dialects import llm, tensor
from dialects.tensor import Lanes
from passes.llm_to_tensor.context import Lowering, Run
from passes.llm_to_tensor.rows import placed_rows, rows_of
from passes.llm_to_tensor.sections import (
    Places,
    Section,
    is_given,
    is_rounded_in_ddr,
    sections_of,
)
from passes.llm_to_tensor.steps import CannotMove
from passes.llm_to_tensor.turns import set_turns
from passes.llm_to_tensor.views import Views
from passes.ranges import Range, even_parts, even_ranges


def token_runs(total: int, most: int, tail: int, lanes: int) -> list[Range]:
    """Even runs of at most `most` tokens; with `tail`, so many rows of lanes at the end are a run as well."""
    body = (-(-total // lanes) - tail) * lanes if tail else total
    if body <= 0:
        return [Range(0, total)]
    runs = [*even_ranges(body, lanes, -(-most // lanes))]
    return [*runs, Range(body, total)] if body < total else runs


@dataclass(frozen=True)
class Cut:
    """How the tokens of a section are cut into runs; see `LlmToTensor`."""

    tokens: int = 0
    tail: int = 0
    keys: int = 0
    scores: int = 0
    some: Sequence[int] = ()
    sections: Sequence[int] = ()

    def runs(self, total: int, lanes: int) -> list[Range]:
        return token_runs(total, self.tokens or total, self.tail, lanes)


class InSections(Lowering):
    """What a section reads of an earlier one lies in DDR, by token: it is loaded for each run, as arguments
    are.
    """

    has_many_tokens = True

    def __init__(self, function: Function, cut: Cut, spec: ChipSpec):
        super().__init__(function, spec)
        self.cut = cut
        self.lanes = spec.lanes
        self.places = Places(function)
        self.views = Views(self, self.places)
        self.tokens = 0  # of the section
        self.handed: set[Value] = set()  # see `Section`
        self.left: set[Value] = set()
        self.received: tuple[Run, set[Value]] = self.current, set()  # the run before, and what it has left
        moved = filter(self.places.is_moved, function.terminator.operands)
        found = {value: placed_rows(value, self.places) for value in moved}
        self.placed = {value: rows for value, rows in found.items() if rows}  # results
        self.unread: dict[Value, tuple[int, int]] = {}  # tokens before and behind those that others read

    @property
    def count(self) -> int:
        """Tokens of this run."""
        return self.current.tokens.size

    def sections(self, ops: list[Op], results: Sequence[Value]) -> list[Section]:
        found = sections_of(self.function, self.places, lambda total: len(self.cut.runs(total, self.lanes)))
        self.givers |= {value: [] for section in found for value in section.results}
        cut = replace(self.cut, tail=self.cut.tail if len(found) == 1 else 0)
        set_turns(found, lambda total: cut.runs(total, self.lanes))
        return [section for number, section in enumerate(found) if number in self.cut.sections] or found

    def begin(self, section: Section) -> None:
        self.tokens = section.tokens
        turns, before = [Run(part) for part in section.runs], self.lowered[-1]
        self.runs = sorted(turns, key=lambda run: run.tokens.start)
        unread = section.read.start, section.tokens - section.read.stop
        self.unread |= dict.fromkeys(section.results, unread)
        self.lowered = [run for number, run in enumerate(self.runs) if number in self.cut.some] or turns
        self.lowered[0].receive(before, self.handed)
        self.received = before, self.left
        some = bool(self.cut.some or self.cut.sections)
        self.handed, self.left = (set(), set()) if some else (section.handed, section.left)

    def give(self, run: Run, value: Value) -> None:
        """What stays in local memory is not stored, or once it has another place there."""
        if any(value is rows.source for rows in self.placed.values()):
            self.half(value)
        elif not self.is_handed_on(run, value):
            self.result(run, value)

    def is_handed_on(self, run: Run, value: Value) -> bool:
        """Whether what a run gives of a result stays in local memory, for the next section alone."""
        kept = value in self.handed or value in self.left
        return run is self.lowered[-1] and kept and isinstance(run.values[value], Value)

    def whole(self, value: Value) -> Value:
        return self._in_place(value) if value in self.placed else super().whole(value)

    def axis(self, value: Value) -> int:
        axis = self.places.axis(value)
        if axis is None:
            self.op.fail(f"reads {value.type}, of which nothing says where its tokens are")
        return axis

    # ---- what a section gives ----

    def given(self, value: Value) -> Value:
        """As the client has it; for other sections by token, in f32 where some of them reads it so."""
        if value in self.function.terminator.operands:
            return self.stored(value)
        self.build.loc = value.owner.loc if isinstance(value.owner, Op) else self.build.loc
        x = self.half(value) if is_rounded_in_ddr(value) else self.get(value)
        rows = self.build.permute(x, self._by_token_first(value))
        if value.type.rank == 4 and not is_in_order(rows):  # of all heads, side by side
            rows = self.build.copy(rows)
        return self.build.add(tensor.StoreOp(rows))

    def joined_runs(self, value: Value, parts: Sequence[Value]) -> Value:
        """In the order of the value's axes."""
        if value in self.function.terminator.operands and parts:
            return self.build.concat(parts, self.axis(value))
        before, behind = self.unread.get(value, (0, 0))
        if sum(part.type.shape[0] for part in parts) + before + behind < value.type.shape[self.axis(value)]:
            return self.left_out(value.type.shape, value.type.element if is_rounded_in_ddr(value) else F32)
        whole = self.build.concat([*self._any(parts[0], before), *parts, *self._any(parts[0], behind)], 0)
        return self._by_axes(whole, value)

    def _by_axes(self, rows: Value, value: Value) -> Value:
        """What is stored by token, in the order of the value's axes."""
        order = self._by_token_first(value)
        return self.build.permute(rows, [order.index(axis) for axis in range(len(order))])

    def _any(self, rows: Value, count: int) -> list[Value]:
        """So many rows that nobody reads, beside those that were stored."""
        store = rows.defining(tensor.StoreOp)
        assert store is not None
        sizes = (part.size for part in even_parts(Range(0, count), 1, rows.type.shape[0]))
        some = (self.build.part(store.value, 0, Range(0, size)) for size in sizes)
        return [self.build.add(tensor.StoreOp(x)) for x in some]

    def _by_token_first(self, value: Value) -> list[int]:
        axis = self.axis(value)
        return [axis, *(i for i in range(value.type.rank) if i != axis)]

    def left_out(self, shape: tuple[int, ...], element: ElementType) -> Value:
        """Something that is as large as what a run would store that is left out."""
        type_ = TensorType(shape, element)
        return self.build.add(tensor.WeightOp(sources=[f"left out, {type_}"], types=[type_]))

    def _in_place(self, value: Value) -> Value:
        """A result of the function that is stored row by row where it belongs."""
        rows, build = self.placed[value], self.build
        *outer, count, columns = (rows.steps.sizes[i] for i in rows.steps.lying)
        parts = [
            build.reshape(
                self._stored_rows(rows.source, Range(first, first + count)),
                (*(1 for _ in outer), count, columns),
                None,
            )
            for first in rows.starts
        ]
        for axis in reversed(range(len(outer))):
            size = outer[axis]
            parts = [build.concat(parts[i : i + size], axis) for i in range(0, len(parts), size)]
        (whole,) = parts
        turned = build.permute(whole, [rows.steps.lying.index(i) for i in range(whole.type.rank)])
        return build.reshape(turned, value.type.shape, None)

    def _stored_rows(self, value: Value, part: Range) -> Value:
        """Neighbouring rows of what a section gave, as its runs have them in local memory."""
        self.build.loc = value.owner.loc if isinstance(value.owner, Op) else self.build.loc
        found = []
        for run in sorted(self.givers[value], key=lambda run: run.tokens.start):
            if (some := part.within(run.tokens)).size:
                x = self.build.reshape(run.halves[value], run.halves[value].type.shape[-2:], Lanes(0))
                local = self.build.part(x, 0, some.moved(-run.tokens.start))
                found.append(self.build.add(tensor.StoreOp(local)))
        if sum(each.type.shape[0] for each in found) < part.size:
            return self.left_out((part.size, value.type.shape[-1]), value.type.element)
        return self.build.concat(found, 0)

    # ---- what it reads ----

    def is_stored(self, value: Value) -> bool:
        argument = value.owner is self.function.block
        return argument or self.places.is_moved(value) or self.is_of_others(value)

    def is_of_others(self, value: Value) -> bool:
        """Whether an earlier section gave it, by way of DDR."""
        given = value in self.givers and self.givers[value] is not self.lowered
        return given and value not in self.current.received_values

    def load_stored(self, value: Value) -> Value:
        return self.load_tokens(value, self.current.tokens)

    def load_tokens(self, value: Value, tokens: Range) -> Value:
        """Of what `is_stored`."""
        axis = self.axis(value)
        if self.places.is_moved(value):
            if (rows := self._rows_left(value, axis, tokens)) is not None:
                return rows
            try:
                return self.views.readable(value, axis).load(axis, tokens)
            except CannotMove as reason:
                self.op.fail(f"moves tokens: {reason}")
        if self.is_of_others(value):
            return self.build.load(self._given_rows(value, axis, tokens), Lanes(axis))
        local = self.build.load(self.tokens_of(value, axis, tokens), Lanes(axis))
        return self.build.cast(local, F32, Lanes(axis))

    def _rows_left(self, value: Value, axis: int, tokens: Range) -> Value | None:
        """Tokens of what is made of rows that the run before has left in local memory, and of others."""
        rows, shape = rows_of(value, self.places), list(value.type.shape)
        if rows is None or rows.source not in self.received[1]:
            return None
        numbers = rows.of_lanes(axis, tokens, self.lanes) if prod(shape[:axis]) == 1 else None
        if numbers is None or not all(self._run_with(rows.source, each) for row in numbers for each in row):
            return None
        build, shape[axis] = self.build, tokens.size
        found = [[self._lane_row(rows.source, each) for each in row] for row in numbers]
        whole = build.concat([build.concat(row, 1) for row in found], 0)
        return build.reshape(whole, shape, Lanes(axis))

    def _run_with(self, value: Value, row: int) -> Run | None:
        """The run that gives a row and those beside it in a row of lanes."""
        place = Range(row, row + self.lanes)
        found = (run for run in self.givers[value] if place.within(run.tokens) == place)
        return next((run for run in found if (row - run.tokens.start) % self.lanes == 0), None)

    def _lane_row(self, value: Value, row: int) -> Value:
        """A row of lanes of them, [lanes, columns]."""
        run = self._run_with(value, row)
        assert run is not None
        part = Range(row, row + self.lanes).moved(-run.tokens.start)
        if run is self.received[0] and value not in run.results:
            return self.build.part(self._local_rows(run, value), 0, part)
        stored = self.result(run, value)
        flat = self.build.reshape(stored, (stored.type.shape[0], value.type.shape[-1]), None)
        return self.build.load(self.build.part(flat, 0, part), Lanes(0))

    def _local_rows(self, run: Run, value: Value) -> Value:
        """[rows, columns], as others than this run read them."""
        this, self.current = self.current, run
        x = self.half(value) if is_rounded_in_ddr(value) else self.get(value)
        self.current = this
        return self.build.reshape(x, x.type.shape[-2:], Lanes(0))

    def _given_rows(self, value: Value, axis: int, tokens: Range) -> Value:
        """Those tokens of what an earlier section gave, of the run that has them all if one does."""
        for run in self.givers[value]:
            if tokens.within(run.tokens) == tokens:
                rows = self._by_axes(self.result(run, value), value)
                return self.tokens_of(rows, axis, tokens.moved(-run.tokens.start))
        return self.tokens_of(self.whole(value), axis, tokens)

    def picked(self, op: llm.GatherRowsOp) -> Value:
        rows = self.views.moved(op.ids).rows(op.ids.type.rank - 1, self.current.tokens)
        return self.gathered_from(self.whole(op.table), rows, None if is_given(op.y) else Lanes(1))

    def token_rows(self, value: Value) -> Value:
        return self.tokens_of(value, self.axis(value), self.current.tokens)

    def tokens_of(self, x: Value, axis: int, tokens: Range) -> Value:
        """Those tokens of an array with tokens on that axis."""
        starts, sizes = [0] * len(x.type.shape), list(x.type.shape)
        starts[axis], sizes[axis] = tokens.start, tokens.size
        return self.build.slice(x, starts, sizes)


def is_in_order(x: Value) -> bool:
    """Whether permutes have put the items of an array back into the order that they were in before."""
    order, before = list(range(x.type.rank)), x
    while (turned := before.defining(tensor.PermuteOp)) is not None:
        order, before = [turned.order[axis] for axis in order], turned.x
    longer = [axis for axis in order if before.type.shape[axis] > 1]
    return before is not x and longer == sorted(longer)
