"""Many tokens: tokens over the lanes throughout, a run of them at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

from compiler.ir.core import Op, Value
from compiler.ir.module import Function
from compiler.ir.types import F32, Attribute
from compiler.sizes import round_up
from compiler.target.spec import ChipSpec
from dialects import llm, tensor
from dialects.tensor import Lanes, Replicated
from passes.llm_to_tensor.attend import KeyValues, Mask, Queries, Scores, attend, load_mask
from passes.llm_to_tensor.context import Lowering, Run, TableRows
from passes.llm_to_tensor.pieces import Computed, Part, Piece
from passes.ranges import Range, even_ranges

EDGE_UNIT = 16  # columns
HEADS_OUTSIDE = (0, 2, 1, 3)  # between [1, tokens, heads, d] and [1, heads, tokens, d]


def token_runs(total: int, most: int, tail: int, lanes: int) -> list[Range]:
    """Even runs of at most `most` tokens; with `tail`, so many rows of lanes at the end are a run as well."""
    body = (-(-total // lanes) - tail) * lanes if tail else total
    if body <= 0:
        return [Range(0, total)]
    runs = [*even_ranges(body, lanes, -(-most // lanes))]
    return [*runs, Range(body, total)] if body < total else runs


class Prefill(Lowering):
    """Lowers a function with many tokens, at most `most` at a time; see `token_runs`."""

    def __init__(self, function: Function, tokens: int, most: int, tail: int, spec: ChipSpec):
        super().__init__(function, tokens, token_runs(tokens, most or tokens, tail, spec.lanes), spec)
        self.lanes = spec.lanes

    @property
    def count(self) -> int:
        """Tokens of this run."""
        return self.current.tokens.size

    def phases(self, ops: list[Op]) -> list[list[Op]]:
        """Keys of later tokens must be there before an attention that may see them."""
        phases: list[list[Op]] = [[]]
        for op in ops:
            if isinstance(op, llm.AttentionOp) and op.visible.sees_later and len(self.runs) > 1:
                phases.append([])
            phases[-1].append(op)
        return phases

    def check_shape(self, op: Op, value: Value, result: Value) -> None:
        shape, axis = list(value.type.shape), result.type.layout.axis
        if shape[axis] == self.tokens:
            shape[axis] = self.count
        if tuple(shape) != result.type.shape:
            op.fail(f"has no lowering to the tensor dialect: it would give {result.type}")

    def check_tokens(self, value: Value, *axes: int) -> int:
        found = self.current.values.get(value)
        layout = found.type.layout if isinstance(found, Value) else Lanes(1)
        if not isinstance(layout, Lanes) or layout.axis not in axes:
            expected = " or ".join(map(str, axes))
            self.op.fail(f"takes an operand with its tokens on axis {expected}, not one of {layout}")
        return layout.axis

    def mixes_tokens(self, x: Value, axis: int) -> bool:
        return tensor.is_over_lanes(x.type, axis)

    def load_argument(self, value: Value) -> Value:
        rows = self.token_rows(value)
        if value.type.shape[0] != 1:
            self.op.fail(f"reads an argument {value.type}, expected [1, tokens, width]")
        return self._load(rows)

    def _load(self, rows: Value) -> Value:
        return self.build.cast(self.build.load(rows, Lanes(1)), F32, Lanes(1))

    def token_rows(self, value: Value) -> Value:
        self.token_axis(self.net.inputs[value.index])
        return self._tokens_of(value, self.current.tokens)

    def _tokens_of(self, x: Value, tokens: Range) -> Value:
        """Those tokens of an array with tokens on axis 1."""
        starts = [0] * len(x.type.shape)
        starts[1] = tokens.start
        return self.build.slice(x, starts, (x.type.shape[0], tokens.size, *x.type.shape[2:]))

    def accumulator(self, value: Value) -> Value:
        """An argument is loaded anew rather than kept in local memory for so long."""
        return self.load_argument(value) if value.owner is self.function.block else self.f32(value)

    def parts(self, value: Value) -> Iterator[Value]:
        if len(value.type.shape) < 4:
            self.check_tokens(value, 1)
            return self._token_parts(value)
        x = self.f32(value)
        if self.check_tokens(value, 1, 2) == 1:
            x = self.build.permute(x, HEADS_OUTSIDE)
        return self._head_parts(x)

    def joined(self, parts: Sequence[Value], value: Value) -> Value:
        whole = self.build.concat(parts, 1)
        moved = len(value.type.shape) == 4 and self.check_tokens(value, 1, 2) == 1
        return self.build.permute(whole, HEADS_OUTSIDE) if moved else whole

    def kept(self, part: Value, value: Value) -> Value:
        """Rounded at once where that is how all will read it: it then takes half the room."""
        if not llm.is_read_rounded(value):
            return part
        return self.build.cast(part, value.type.element, part.type.layout)

    def _token_parts(self, value: Value) -> Iterator[Value]:
        """This run's tokens in f32, as many at a time as take little room; of an argument, just those."""
        row_bytes = F32.bytes * value.type.shape[-1]
        most = max(1, self.build.spec.work_bytes // row_bytes) * self.lanes
        parts = -(-self.count // most)
        size = round_up(-(-self.count // parts), self.lanes)
        first = self.current.tokens.start
        for start in range(0, self.count, size):
            part = Range(start, min(start + size, self.count))
            if self.is_loaded(value):
                yield self._tokens_of(self.f32(value), part)
            else:
                self.token_axis(self.net.inputs[value.index])
                yield self._load(self._tokens_of(value, Range(first + part.start, first + part.stop)))

    def _head_parts(self, x: Value) -> Iterator[Value]:
        """[1, heads, tokens, d] in f32, so many heads at a time as take, twice over, little room."""
        _, heads, tokens, width = x.type.shape
        head_bytes = 2 * F32.bytes * width * -(-tokens // self.lanes)
        parts = -(-heads // max(1, self.build.spec.work_bytes // head_bytes))
        size = -(-heads // parts)
        for start in range(0, heads, size):
            count = min(size, heads - start)
            yield self.build.slice(x, (0, start, 0, 0), (1, count, tokens, width))

    def head_axis(self, part: Value) -> int:
        return 1

    def reshaped(self, x: Value, op: llm.ReshapeOp) -> Value:
        """Only axes of 1 may stand before the tokens."""
        self.check_tokens(op.x, *(i for i in range(len(x.type.shape)) if prod(x.type.shape[:i]) == 1))
        axis = next((i for i, size in enumerate(op.shape) if size != 1), 0)
        if op.shape[axis] != self.tokens:
            op.fail("that moves the tokens has no lowering to the tensor dialect")
        shape = (*op.shape[:axis], self.count, *op.shape[axis + 1 :])
        return self.build.reshape(x, shape, replace(x.type.layout, axis=axis))

    def broadcast(self, x: Value, shape: tuple[int, ...]) -> Value:
        axis = tensor.axis_over_lanes(x.type)
        of_run = [self.count if i == axis else size for i, size in enumerate(shape)]
        return self.build.broadcast(x, of_run, x.type.layout)

    def chosen(self, op: llm.ExpertsOp) -> Value | None:
        return None

    def shares(self, rows: Value) -> Value:
        return rows

    def beside(self, rows: Value, x: Value) -> Value:
        return rows

    def client_layout(self, layout: Lanes) -> Lanes:
        return Lanes(layout.axis)

    def position_layouts(self) -> tuple[Attribute, Attribute]:
        return Lanes(1), Lanes(2)

    def gathered(self, rows: TableRows, shape: tuple[int, ...]) -> Value:
        axis = next(i for i, size in enumerate(shape) if size > 1)
        of_run = (*shape[:axis], self.count, *shape[axis + 1 :])
        return self.build.reshape(self.gather(rows, Lanes(1)), of_run, Lanes(axis))

    def pieces(self, value: Value, visible: llm.Visible) -> list[Piece]:
        """One piece for each run up to this one, or for all of them."""
        if value.defining(llm.KvConcatOp) is not None:
            self.op.fail("of many tokens and a history has no lowering to the tensor dialect")
        this = self.runs.index(self.current)
        runs = self.runs if visible.sees_later else self.runs[: this + 1]
        return [Computed(self.build, self._half_of(value, run)) for run in runs]

    def _half_of(self, value: Value, run: Run) -> Value:
        """As `half`, for another run."""
        this, self.current = self.current, run
        found = self.half(value)
        self.current = this
        return found

    def attention(self, op: llm.AttentionOp, q: Value, kv: KeyValues, mask: Mask) -> Value:
        """A row of lanes of queries at a time, and the heads of one KV head."""
        for value in (op.q, op.k, op.v):
            self.check_tokens(value, 2)
        _, heads, count, width = q.type.shape
        sinks = self.sinks(op, (heads, 1, 1), Replicated())
        blocks = []
        for block in even_ranges(count, self.lanes, 1):
            some = self.build.slice(q, (0, 0, block.start, 0), (1, heads, block.size, width))
            some = self.build.reshape(some, (heads, block.size, width), Lanes(1))
            seen, rows = self._mask_block(op.visible, block, mask)
            scores = Scores(rows, op.softcap, sinks)
            blocks.append(self._groups_of_heads(some, kv, kv.parts(seen), scores))
        shape = (1, count, heads, op.v.type.shape[3])
        return self.build.reshape(self.build.concat(blocks, 0), shape, Lanes(1))

    def _mask_block(self, visible: llm.Visible, block: Range, mask: Mask) -> tuple[Range, Value]:
        """The keys that some of these queries may see, and what hides part of them [1, queries, keys]."""
        start = self.current.tokens.start
        queries = Range(start + block.start, start + block.stop)
        seen = seen_keys(visible, queries, mask.rows.type.shape[3], self.lanes)
        return seen, self._mask_rows(visible, mask, queries, seen)

    def _mask_rows(self, visible: llm.Visible, mask: Mask, queries: Range, keys: Range) -> Value:
        """[1, queries, keys] in units of log2 e; only keys of the edge may lie before a query's first one."""
        edge = Range(keys.start, keys.start) if mask.first is None else edge_of(visible, queries, keys)
        parts = [(edge, mask.first), (Range(edge.stop, keys.stop), None)]
        found = [self._mask_part(mask.rows, queries, some, first) for some, first in parts if some.size]
        return self.build.concat(found, 2)

    def _mask_part(self, mask: Value, queries: Range, keys: Range, first: Value | None) -> Value:
        """Those columns of `_mask_rows`; `first` [1, tokens, 1] are the first keys of this run's queries."""
        rows = self.build.slice(mask, (0, 0, queries.start, keys.start), (1, 1, queries.size, keys.size))
        rows = self.build.reshape(rows, (1, queries.size, keys.size), None)
        if first is not None:
            begin = queries.start - self.current.tokens.start
            first = self.build.slice(first, (0, begin, 0), (1, queries.size, 1))
            first = self.build.scalar(tensor.SubOp, first, float(keys.start)) if keys.start else first
        return load_mask(self.build, rows, Lanes(1), first)

    def _groups_of_heads(self, q: Value, kv: KeyValues, parts: list[Part], scores: Scores) -> Value:
        """q [heads, queries, d] -> [queries, heads * width of values].

        Heads that share keys, as many at a time as have scores that take little room.
        """
        heads, queries, width = q.type.shape
        group = heads // kv.heads
        most = max(1, self.build.spec.work_bytes // (F32.bytes * scores.mask.type.shape[2]))
        columns = []
        for head in range(kv.heads):
            for some in even_ranges(group, 1, most):
                first = head * group + some.start
                part = self.build.slice(q, (first, 0, 0), (some.size, queries, width))
                sinks = scores.sinks and self.build.slice(scores.sinks, (first, 0, 0), (some.size, 1, 1))
                out = attend(self.build, [Queries(head, part)], kv, parts, replace(scores, sinks=sinks))
                out = self.build.permute(out, (1, 0, 2))
                columns.append(self.build.reshape(out, (queries, some.size * out.type.shape[2]), Lanes(0)))
        return self.build.concat(columns, 1)


def seen_keys(visible: llm.Visible, positions: Range, total: int, lanes: int) -> Range:
    """The keys that queries at these positions may see, from a row of lanes on, where matrices start."""
    first = visible.first_key(positions.start) // lanes * lanes
    return Range(first, total if visible.sees_later else positions.stop)


def edge_of(visible: llm.Visible, positions: Range, seen: Range) -> Range:
    """Those of the seen keys that some query at these positions may not see, as they are too far back.

    In whole units, so that neither part is a single column, which would lie in another way.
    """
    if visible.kind not in ("window", "chunk"):
        return seen
    behind = max(0, visible.first_key(positions.stop - 1) - seen.start)
    stop = seen.start + round_up(behind, EDGE_UNIT)
    return Range(seen.start, stop if stop + EDGE_UNIT <= seen.stop else seen.stop)
