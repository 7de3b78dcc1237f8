"""Many tokens: tokens over the lanes throughout, a run of them at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from compiler.ir.core import Op, Value
from compiler.ir.module import Function
from compiler.ir.types import F32, Attribute
from compiler.sizes import round_up
from compiler.target.spec import ChipSpec
from dialects import llm, tensor
from dialects.tensor import Lanes, Replicated
from passes.llm_to_tensor.attend import KeyValues, Mask
from passes.llm_to_tensor.context import Run, TableRows, is_rearranged
from passes.llm_to_tensor.in_sections import Cut, InSections
from passes.llm_to_tensor.pieces import HEADS_OUTSIDE, Computed, Piece, Stored, counted
from passes.llm_to_tensor.run_attention import RunAttention, most_seen, seen_keys
from passes.llm_to_tensor.run_mask import RunMask
from passes.llm_to_tensor.sections import Section
from passes.ranges import Range, even_parts
from passes.tensor_to_chip.placed import buffer_bytes

WAITING_SHARE = 1 / 4  # of local memory


class Prefill(InSections):
    """Lowers a function with many tokens, some of them at a time."""

    def __init__(self, function: Function, cut: Cut, spec: ChipSpec):
        super().__init__(function, cut, spec)
        self.keys = cut.keys
        self.room = cut.scores or spec.work_bytes  # for the scores that become weights at a time
        self.loaded: dict[Value, Stored] = {}  # keys and values of all tokens, for this section

    def begin(self, section: Section) -> None:
        super().begin(section)
        self.loaded.clear()

    def weight_rows(self, value: Value, shape: Sequence[int], axis: int) -> Value:
        """As they are stored, since they are as many as the activations."""
        if is_rearranged(value):
            own = axis - len(shape) + value.type.rank
            local = self.views.of(value).load(own, self.current.tokens)
            of_run = (*shape[:axis], self.count, *shape[axis + 1 :])
            return self.build.cast(self.build.reshape(local, of_run, Lanes(axis)), F32, Lanes(axis))
        rows = self.build.reshape(self.weight(value, value.type.element), shape, None)
        local = self.build.load(self.tokens_of(rows, axis, self.current.tokens), Lanes(axis))
        return self.build.cast(local, F32, Lanes(axis))

    # ---- values ----

    def check_shape(self, op: Op, value: Value, result: Value) -> None:
        shape, axis = list(value.type.shape), result.type.layout.axis
        if shape[axis] == self.tokens:
            shape[axis] = self.count
        if tuple(shape) != result.type.shape:
            op.fail(f"has no lowering to the tensor dialect: it would give {result.type}")

    def check_tokens(self, value: Value, *axes: int) -> int:
        found = self.current.values.get(value)
        layout = found.type.layout if isinstance(found, Value) else Lanes(self.places.axis(value) or 0)
        if not isinstance(layout, Lanes) or layout.axis not in axes:
            expected = " or ".join(map(str, axes))
            self.op.fail(f"takes an operand with its tokens on axis {expected}, not one of {layout}")
        return layout.axis

    def mixes_tokens(self, x: Value, axis: int) -> bool:
        return tensor.is_over_lanes(x.type, axis)

    def accumulator(self, value: Value) -> Value:
        """What is stored is loaded anew rather than kept in local memory for so long."""
        if self.is_stored(value):
            return self.wide(self.load_stored(value))
        x = self.f32(value)
        if not self._waits_long(value, x):
            return x
        return self.build.load(self.build.add(tensor.StoreOp(x)), x.type.layout)

    def _waits_long(self, value: Value, x: Value) -> bool:
        """Whether it takes much room that an attention between its maker and its reader needs."""
        op: Op | None = value.owner if isinstance(value.owner, Op) else None
        share = buffer_bytes(x.type, self.build.spec) / self.build.spec.lane_bytes
        while op is not None and op is not self.op and not isinstance(op, llm.AttentionOp):
            op = op.next_op
        return share > WAITING_SHARE and isinstance(op, llm.AttentionOp)

    def parts(self, value: Value) -> Iterator[Value]:
        if len(value.type.shape) < 4:
            return self._token_parts(value, self.check_tokens(value, 0, 1))
        x = self.get(value)
        if self.check_tokens(value, 1, 2) == 1:
            x = self.build.permute(x, HEADS_OUTSIDE)
        return map(self.wide, self._head_parts(x))

    def joined(self, parts: Sequence[Value], value: Value) -> Value:
        if len(value.type.shape) < 4:
            return self.build.concat(parts, self.check_tokens(value, 0, 1))
        whole = self.build.concat(parts, 1)
        moved = self.check_tokens(value, 1, 2) == 1
        return self.build.permute(whole, HEADS_OUTSIDE) if moved else whole

    def kept(self, part: Value, value: Value) -> Value:
        """Rounded at once where that is how all will read it: it then takes half the room."""
        if not llm.is_read_rounded(value):
            return part
        return self.build.cast(part, value.type.element, part.type.layout)

    def _token_parts(self, value: Value, axis: int) -> Iterator[Value]:
        """This run's tokens in f32, as many at a time as take little room; of what is stored, just those."""
        row_bytes = F32.bytes * value.type.shape[-1]
        most = max(1, self.build.spec.work_bytes // row_bytes) * self.lanes
        parts = -(-self.count // most)
        size = round_up(-(-self.count // parts), self.lanes)
        first = self.current.tokens.start
        for start in range(0, self.count, size):
            part = Range(start, min(start + size, self.count))
            if self.is_loaded(value):
                yield self.tokens_of(self.f32(value), axis, part)
            else:
                yield self.wide(self.load_tokens(value, part.moved(first)))

    def _head_parts(self, x: Value) -> Iterator[Value]:
        """[1, heads, tokens, d], so many heads at a time as take, in f32 and twice over, little room."""
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
        axis = self.axis(op.y)
        shape = (*op.shape[:axis], self.count, *op.shape[axis + 1 :])
        layout = x.type.layout if tensor.in_ddr(x.type) else replace(x.type.layout, axis=axis)
        return self.build.reshape(x, shape, layout)

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

    def attention(self, op: llm.AttentionOp, q: Value, mask: Mask | None) -> Value:
        """To all keys at once, to the few that a row of lanes sees, or block by block."""
        for value in (op.q, op.k, op.v):
            self.check_tokens(value, 2)
        if any(value.defining(llm.KvConcatOp) is not None for value in (op.k, op.v)):
            op.fail("of many tokens and a history has no lowering to the tensor dialect")
        tokens = self.current.tokens
        sinks = self.sinks(op, (op.q.type.shape[1], 1, 1), Replicated())
        rules = None if mask is None else RunMask(self.build, op, tokens, mask)
        attention = RunAttention(self.build, op, tokens, rules, sinks, self.room)
        if not self.keys:
            return attention.at_once(q, self._all_keys(op))
        if most_seen(op, self.lanes) <= self.keys:
            return attention.at_once(q, self._some_keys(op, self._keys_seen(op)))
        return attention.streamed(q, self._blocks(op), self.keys)

    def _keys_seen(self, op: llm.AttentionOp) -> Range:
        """By some token of this run."""
        return seen_keys(op.visible, self.current.tokens, op.k.type.shape[2], self.lanes)

    def _all_keys(self, op: llm.AttentionOp) -> KeyValues:
        keys, values = (self._all_pieces(op, value) for value in (op.k, op.v))
        return KeyValues(op.k.type.shape[1], keys, values)

    def _all_pieces(self, op: llm.AttentionOp, value: Value) -> Sequence[Piece]:
        """One that serves all runs, or one for each run up to this one, all in local memory."""
        if self.is_of_others(value):
            if value not in self.loaded:
                self.loaded[value] = self._stored_piece(op, value, Range(0, value.type.shape[2]))
            return [self.loaded[value]]
        runs = self.runs if op.visible.sees_later else self.runs[: self.runs.index(self.current) + 1]
        return [Computed(self.build, self._half_of(value, run)) for run in runs]

    def _half_of(self, value: Value, run: Run) -> Value:
        """As `half`, for another run."""
        if run not in self.lowered and value not in run.halves:
            rows = self.build.permute(self._stand_in(value, run), HEADS_OUTSIDE)
            run.halves[value] = self.build.load(rows, Lanes(2))
        this, self.current = self.current, run
        found = self.half(value)
        self.current = this
        return found

    def _blocks(self, op: llm.AttentionOp) -> Iterator[KeyValues]:
        """This run's keys and values, and those of others that its queries may see, which lie in DDR."""
        seen, own = self._keys_seen(op), self.current.tokens
        if self.is_of_others(op.k) and not op.visible.is_placed:
            own = Range(seen.start, seen.start)
        rests = Range(seen.start, own.start), Range(own.stop, seen.stop)
        others = [part for rest in rests for part in even_parts(rest, self.lanes, self.keys // self.lanes)]
        if self.is_of_others(op.k):  # what was stored last comes last
            newest = self.givers[op.k][-1].tokens if self.givers[op.k] else own
            others.sort(key=lambda part: part.within(newest).size)
        for block in [own, *others] if own.size else others:
            yield self._some_keys(op, block, ones=True)

    def _some_keys(self, op: llm.AttentionOp, tokens: Range, ones: bool = False) -> KeyValues:
        """Of these tokens; with `ones`, values that are `counted`."""
        keys, values = self._pieces(op, op.k, tokens), self._pieces(op, op.v, tokens, ones)
        return KeyValues(op.k.type.shape[1], [*keys], [*values], tokens.start)

    def _pieces(
        self, op: llm.AttentionOp, value: Value, tokens: Range, ones: bool = False
    ) -> Iterator[Piece]:
        if self.is_of_others(value):
            yield self._stored_piece(op, value, tokens, ones)
        else:
            for array in self._arrays(value, tokens):
                yield Computed(self.build, counted(self.build, array) if ones else array)

    def _stored_piece(
        self, op: llm.AttentionOp, value: Value, tokens: Range, ones: bool = False
    ) -> Stored:
        """Where each query head has keys of its own, the DMA has no time to take heads apart."""
        rows = self.tokens_of(self.build.permute(self.whole(value), HEADS_OUTSIDE), 1, tokens)
        whole = op.q.type.shape[1] == op.k.type.shape[1]
        return Stored(self.build, rows, value.type.element, whole, ones)

    def _arrays(self, value: Value, tokens: Range) -> Iterator[Value]:
        """[1, heads, n, d] in local memory, of all these tokens: those that this run has computed, which
        others are to find, and those that are loaded.
        """
        self._in_ddr(value, self.current)
        own = self.current.tokens
        for others in (Range(0, own.start), own, Range(own.stop, tokens.stop)):
            part = tokens.within(others)
            if part.size:
                yield self.half(value) if others is own else self._loaded(value, part)

    def _loaded(self, value: Value, tokens: Range) -> Value:
        """[1, heads, n, d] of these tokens, which may be some of several runs, in local memory.

        The DMA takes heads apart, at a lower rate than it has for whole rows; it has time.
        """
        parts = []
        for run in self.runs:
            part = run.tokens.within(tokens)
            if part.size:
                rows = self.tokens_of(self._in_ddr(value, run), 1, part.moved(-run.tokens.start))
                parts.append(self.build.load(self.build.permute(rows, HEADS_OUTSIDE), Lanes(2)))
        return self.build.concat(parts, 2)

    def _in_ddr(self, value: Value, run: Run) -> Value:
        """Heads [1, h, tokens, d] of a run, by token in DDR: a result of the function, or scratch."""
        if run not in self.lowered:
            return self._stand_in(value, run)
        if value not in run.histories:
            this, self.current = self.current, run
            half, result = self.half(value), self._by_token(value)
            if result is None:
                stored = self.build.add(tensor.StoreOp(self.build.permute(half, HEADS_OUTSIDE)))
            else:
                stored = run.stored[result] = self.stored(result)
            run.histories[value] = stored
            self.current = this
        return run.histories[value]

    def _stand_in(self, value: Value, run: Run) -> Value:
        """In the place of what a run would store that is left out."""
        _, heads, _, width = value.type.shape
        return self.left_out((1, run.tokens.size, heads, width), value.type.element)

    def _by_token(self, heads: Value) -> Value | None:
        """The result of the function, or this part's piece of one, that has these heads in the order of
        tokens.
        """
        results = [given_of(value) for value in self.function.terminator.operands]
        turned = heads.defining(llm.PermuteOp)
        if turned is not None and turned.order == HEADS_OUTSIDE and turned.x in results:
            return turned.x
        for result in results:
            permuted = result.defining(llm.PermuteOp)
            if permuted is not None and permuted.order == HEADS_OUTSIDE and permuted.x is heads:
                return result
        return None


def given_of(result: Value) -> Value:
    """What a function gives of a result: of one that parts make together, its own piece."""
    gathered = result.defining(llm.AllGatherOp)
    return result if gathered is None else gathered.x
