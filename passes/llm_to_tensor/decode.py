"""One token: a vector's features over the lanes; inside attention, heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

from compiler.ir.core import Op, Value
from compiler.ir.module import Function, walk
from compiler.ir.types import F32, Attribute
from compiler.target.spec import ChipSpec
from dialects import llm, tensor
from dialects.tensor import Lanes, Replicated
from passes.llm_to_tensor.attend import KeyValues, Mask, Queries, Scores, attend, load_mask
from passes.llm_to_tensor.context import Lowering, TableRows, history_of
from passes.llm_to_tensor.online import State, finished, met
from passes.llm_to_tensor.pieces import Computed, Piece, counted, history_pieces, packed_heads
from passes.llm_to_tensor.sections import Section
from passes.ranges import Range, consecutive, even_ranges


class Decode(Lowering):
    """Lowers a function with one token."""

    has_many_tokens = False

    def __init__(self, function: Function, keys: int, scores: int, spec: ChipSpec):
        super().__init__(function, spec)
        self.keys = keys
        self.room = scores or spec.work_bytes  # for the scores that become weights at a time
        self.vectors: dict[Value, Value] = {}  # written to DDR, so that heads can be read back
        mixtures = [op for op in walk(function) if isinstance(op, llm.ExpertsOp)]
        self.routed = {value for op in mixtures for value in llm.routed_by(op)}

    def lower(self, op: Op) -> None:
        """As of any function. What a router computes comes to lie in a row on lane 0, and a number by itself
        in every lane, where vectors meet it.
        """
        super().lower(op)
        for value in op.results:
            made = self.current.values.get(value)
            if isinstance(made, Value) and tensor.is_over_lanes(made.type, len(made.type.shape) - 1):
                self.current.values[value] = self._placed(value, made)

    def _placed(self, value: Value, column: Value) -> Value:
        last = len(column.type.shape) - 1
        if column.type.size == 1:
            return self.build.add(tensor.ReplicateOp(column))
        if value in self.routed:
            return self.build.relayout(column, column.type.shape, Lanes(last - 1))
        return column

    def check_shape(self, op: Op, value: Value, result: Value) -> None:
        if value.type.shape != result.type.shape:
            op.fail(f"has no lowering to the tensor dialect: it would give {result.type}")

    def check_tokens(self, value: Value, *axes: int) -> int:
        return axes[0]

    def mixes_tokens(self, x: Value, axis: int) -> bool:
        return False

    def sections(self, ops: list[Op], results: Sequence[Value]) -> list[Section]:
        return [Section(1, ops, [*results])]

    def begin(self, section: Section) -> None:
        pass

    def joined_runs(self, value: Value, parts: Sequence[Value]) -> Value:
        (whole,) = parts
        return whole

    def given(self, value: Value) -> Value:
        return self.stored(value)

    def is_stored(self, value: Value) -> bool:
        return value.owner is self.function.block

    def load_stored(self, value: Value) -> Value:
        """Packed, as one run of the DMA; then in f32, in whole slots, as it may be accumulated upon.

        What is f32 already stays packed: logits, for which there may be no room in whole slots.
        """
        shape = value.type.shape
        if len(shape) < 2 or shape[0] != 1:
            self.op.fail(f"reads an argument {value.type}, expected [1, tokens, width] or [1, width]")
        last = len(shape) - 1
        local = self.build.load(self.token_rows(value), Lanes(last, compact=True))
        return local if value.type.element == F32 else self.build.cast(local, F32, Lanes(last))

    def token_rows(self, value: Value) -> Value:
        return value

    def weight_rows(self, value: Value, shape: Sequence[int], axis: int) -> Value:
        self.op.fail("takes weights that differ from token to token, and has one token")

    def picked(self, op: llm.GatherRowsOp) -> Value:
        op.fail("of activations has no lowering for one token")

    def accumulator(self, value: Value) -> Value:
        return self.f32(value)

    def parts(self, value: Value) -> Iterator[Value]:
        yield self.f32(value)

    def joined(self, parts: Sequence[Value], value: Value) -> Value:
        (whole,) = parts
        return whole

    def kept(self, part: Value, value: Value) -> Value:
        return part

    def head_axis(self, part: Value) -> int:
        layout = part.type.layout
        assert isinstance(layout, Lanes)
        return layout.axis

    def chosen(self, op: llm.ExpertsOp) -> Value | None:
        """Where the tiles of all experts are cut alike."""
        _, inner, outer = op.up.type.shape
        if inner % self.build.spec.lanes or outer % self.build.spec.lanes:
            return None
        return self.build.add(tensor.StoreOp(self.get(op.ids)))

    def shares(self, rows: Value) -> Value:
        return self.build.add(tensor.ReplicateOp(rows))

    def beside(self, rows: Value, x: Value) -> Value:
        return self.build.relayout(rows, rows.type.shape, x.type.layout)

    def reshaped(self, x: Value, op: llm.ReshapeOp) -> Value:
        if op.x in self.routed and not tensor.is_over_lanes(x.type, len(x.type.shape) - 1):
            return self.build.reshape(x, op.shape, replace(x.type.layout, axis=0))
        axis = 2 if len(op.shape) >= 3 else len(op.shape) - 1
        if max(len(op.shape), len(x.type.shape)) > 4:
            return self._grouped(x, op.shape, axis)
        if {len(op.shape), len(x.type.shape)} == {2, 3} and op.shape[-1] == prod(op.shape):
            layout = x.type.layout
            if isinstance(layout, Lanes):
                layout = replace(layout, axis=len(op.shape) - 1)
            return self.build.reshape(x, op.shape, layout)
        if len(op.shape) != len(x.type.shape):
            return self._split_or_join_heads(x, op.shape, axis)
        return self.build.reshape(x, op.shape, Lanes(axis))

    def _grouped(self, x: Value, shape: tuple[int, ...], axis: int) -> Value:
        """From or to groups of rows [1, 1, groups, .., d], a group on each lane."""
        build, old = self.build, x.type.shape
        if len(old) < 4:
            rows = self._split_or_join_heads(x, (1, 1, shape[2], prod(shape[3:])), 2)
            return build.reshape(rows, shape, Lanes(2))
        if len(shape) < 4:
            rows = build.reshape(x, (1, 1, old[2], prod(old[3:])), Lanes(2))
            return self._split_or_join_heads(rows, shape, axis)
        if (old[:2], shape[:3]) == ((1, 1), old[:3]):
            return build.reshape(x, shape, Lanes(2))
        return build.load(build.reshape(self._in_ddr(x), shape, None), Lanes(2))

    def _split_or_join_heads(self, x: Value, shape: tuple[int, ...], axis: int) -> Value:
        """[1, 1, heads * d], features over the lanes, to [1, 1, heads, d], heads over the lanes, or back.

        Transposing moves as many dimensions of all heads at a time as there are lanes; other head sizes take
        the way through DDR.
        """
        width = max(shape, x.type.shape, key=len)[-1]
        if width % self.build.spec.lanes == 0:
            return self.build.relayout(x, shape, Lanes(axis))
        return self.build.load(self.build.reshape(self._in_ddr(x), shape, None), Lanes(axis))

    def _in_ddr(self, x: Value) -> Value:
        """x written to DDR; a part of a vector, such as the keys of a joined product, with all of it."""
        part = x.defining(tensor.SliceOp)
        if part is not None and tensor.is_vector(x.type):
            return self.build.slice(self._in_ddr(part.x), part.starts, part.sizes)
        if x not in self.vectors:
            self.vectors[x] = self.build.add(tensor.StoreOp(x))
        return self.vectors[x]

    def broadcast(self, x: Value, shape: tuple[int, ...]) -> Value:
        """What is repeated along an axis is heads, which go over the lanes; or numbers of a router."""
        axis = tensor.axis_over_lanes(x.type)
        if self.op.results[0] in self.routed:
            return self.build.broadcast(x, shape, Lanes(0))
        if axis is None or x.type.shape[axis] == 1:
            axis = next(i for i, (old, new) in enumerate(zip(x.type.shape, shape, strict=True)) if old != new)
        return self.build.broadcast(x, shape, Lanes(axis))

    def client_layout(self, layout: Lanes) -> Lanes:
        return Lanes(layout.axis, compact=True)

    def position_layouts(self) -> tuple[Attribute, Attribute]:
        return Replicated(), Replicated()

    def gathered(self, rows: TableRows, shape: tuple[int, ...]) -> Value:
        """[1, 1, width] as other activations lie; what has more axes, or is one number, in every lane."""
        if len(shape) == 3 and rows.shape[1] > 1:
            return self.build.load(self.gather(rows, None), Lanes(2, compact=True))
        return self.build.reshape(self.gather(rows, Replicated()), shape, Replicated())

    def attention(self, op: llm.AttentionOp, q: Value, mask: Mask | None) -> Value:
        """Every query head on a lane of its own, one softmax for all of them."""
        attend_to = self._streamed if self.keys and self.keys < op.k.type.shape[2] else self._at_once
        out = attend_to(op, q, mask)
        return self.build.reshape(out, (1, 1, op.q.type.shape[1], op.v.type.shape[3]), Lanes(2))

    def _at_once(self, op: llm.AttentionOp, q: Value, mask: Mask | None) -> Value:
        kv = KeyValues(op.k.type.shape[1], self._pieces(op.k), self._pieces(op.v))
        queries, sinks = self._queries(op, q), self._sinks(op)
        rules = Scores(self._mask_row(mask, kv.tokens), self.room, op.softcap, sinks)
        return attend(self.build, queries, kv, kv.parts(kv.tokens), rules)

    def _streamed(self, op: llm.AttentionOp, q: Value, mask: Mask | None) -> Value:
        """Block by block."""
        queries, sinks = self._queries(op, q), self._sinks(op)
        state: State | None = None
        for block in self._blocks(op):
            rules = Scores(self._mask_row(mask, block.tokens), self.room, op.softcap, sinks)
            state = met(self.build, queries, block, block.parts(block.tokens), rules, state)
        assert state is not None
        return finished(self.build, state, sinks, op.q.type.element, Lanes(0))

    def _queries(self, op: llm.AttentionOp, q: Value) -> list[Queries]:
        _, heads, _, width = q.type.shape
        q = self.build.reshape(q, (heads, width), Lanes(0))
        return [
            Queries(head, self.build.slice(q, (some.start, 0), (some.size, width)))
            for head, some in heads_of_lane_rows(op.heads_of, self.build.spec.lanes)
        ]

    def _sinks(self, op: llm.AttentionOp) -> Value | None:
        return self.sinks(op, (op.q.type.shape[1], 1), Lanes(0, compact=True))

    def _mask_row(self, mask: Mask | None, keys: Range) -> Value | None:
        """What hides some of these keys [1, keys], on every lane."""
        if mask is None:
            return None
        if mask.first is not None:
            first = self.build.reshape(mask.first, (1, 1), Replicated())
            first = self.build.scalar(tensor.SubOp, first, float(keys.start)) if keys.start else first
            mask = replace(mask, first=first)
        row = self.build.slice(mask.rows, (0, 0, 0, keys.start), (1, 1, 1, keys.size))
        row = self.build.reshape(row, (1, keys.size), None)
        return load_mask(self.build, row, Replicated(), mask)

    def _pieces(self, value: Value) -> list[Piece]:
        """What an argument holds of earlier calls, if anything, and the new token."""
        source, new, width = self._history_and_new(value)
        before = [] if source is None else history_pieces(self.build, source, width)
        return [*before, Computed(self.build, self.half(new))]

    def _history_and_new(self, value: Value) -> tuple[Value | None, Value, int]:
        """The argument [1, tokens, heads, d] that has what is before the new token, the token, and how much
        of each row is read.
        """
        joined = value.defining(llm.KvConcatOp)
        if joined is None:
            return None, value, value.type.shape[3]
        source = history_of(self, joined.history)
        if source is None:
            joined.fail("expected a history argument and one new token")
        return source, joined.new, joined.history.type.shape[3]

    def _blocks(self, op: llm.AttentionOp) -> Iterator[KeyValues]:
        """The history, and with its last tokens the new one."""
        heads, lanes = op.k.type.shape[1], self.build.spec.lanes
        (old_k, new_k, k_width), (old_v, new_v, v_width) = map(self._history_and_new, (op.k, op.v))
        assert old_k is not None
        assert old_v is not None
        history = old_k.type.shape[1]
        for block in even_ranges(history, lanes, self.keys // lanes):
            keys = [Computed(self.build, self._loaded(old_k, block, k_width))]
            values = [Computed(self.build, counted(self.build, self._loaded(old_v, block, v_width)))]
            if block.stop == history:
                keys.append(Computed(self.build, self.half(new_k)))
                values.append(Computed(self.build, counted(self.build, self.half(new_v))))
            yield KeyValues(heads, keys, values, block.start)

    def _loaded(self, x: Value, tokens: Range, width: int) -> Value:
        """[1, heads, n, width] of x [1, tokens, heads, d] in DDR."""
        _, _, heads, pitch = x.type.shape
        some = self.build.slice(x, (0, tokens.start, 0, 0), (1, tokens.size, heads, pitch))
        some = self.build.load(self.build.reshape(some, (tokens.size, heads, pitch), None), Lanes(0))
        return packed_heads(self.build, self.build.slice(some, (0, 0, 0), (tokens.size, heads, width)))


def heads_of_lane_rows(heads_of: Sequence[int], lanes: int) -> Iterator[tuple[int, Range]]:
    """Query heads by the KV head that they share, as many as `heads_of` has for each, those of one row of
    lanes at a time.
    """
    for head, group in enumerate(consecutive(heads_of)):
        start = group.start
        while start < group.stop:
            end = min(group.stop, (start // lanes + 1) * lanes)
            yield head, Range(start, end)
            start = end
