"""The state of lowering one function, and what the rules ask of it.

What differs between a call with one token and one with many is behind this interface: `decode.py` keeps a
vector's features, or heads, over the lanes; `prefill.py` tokens, a run of them at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from compiler.ir.core import Op, Value
from compiler.ir.module import Builder, Function
from compiler.ir.types import F32, Attribute, ElementType, TensorType
from compiler.target.spec import ChipSpec
from dialects import llm, tensor
from dialects.nets import net_of
from dialects.tensor import Lanes, Replicated
from passes.conversion import Rules
from passes.llm_to_tensor.attend import Mask, score_unit, sink_offset
from passes.llm_to_tensor.formulas import FUNCTIONS, KINDS, with_number
from passes.llm_to_tensor.phases import in_turn, phases_of, runs_at_once
from passes.llm_to_tensor.sections import Section
from passes.llm_to_tensor.sums import Terms, fetched
from passes.ranges import Range
from passes.tensor.build import Build

lowers = Rules("the tensor dialect")


@dataclass(frozen=True)
class Parameter:
    """Checkpoint tensors joined along axis 0: known by name until an op needs them in DDR."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    scheme: Attribute | None = None  # how they are stored; None for as they are


@dataclass(frozen=True)
class TableRows:
    """Rows of a named table [positions, width], or of a parameter, picked by position ids; where these come
    in streams, each section of columns by one of them.
    """

    table: Value
    parameter: Parameter
    ids: Value
    streams: llm.Streams | None = None

    @property
    def name(self) -> str:
        return self.parameter.names[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parameter.shape


Lowered = Value | Parameter | TableRows | Terms
RopeRows = tuple[Value, Value, str, float | None]  # cos, sin, how pairs are turned, and a factor


@dataclass
class Run:
    """Tokens that are lowered together, and what the llm values became for them."""

    tokens: Range
    values: dict[Value, Lowered] = field(default_factory=dict)
    halves: dict[Value, Value] = field(default_factory=dict)  # arrays rounded to the llm value's own type
    rope_rows: dict[RopeRows, Value] = field(default_factory=dict)
    places: dict[tuple[int, ...], Value] = field(default_factory=dict)  # 0, 1, 2, ... by shape
    histories: dict[Value, Value] = field(default_factory=dict)  # keys and values of other runs, in DDR
    stored: dict[Value, Value] = field(default_factory=dict)  # results that were stored for other runs
    sent: dict[llm.AllReduceOp, Value] = field(default_factory=dict)  # terms of sums not added up yet
    received: dict[llm.AllReduceOp, Terms] = field(default_factory=dict)  # those of them that are there
    results: dict[Value, Value] = field(default_factory=dict)  # of the section, in DDR
    received_values: set[Value] = field(default_factory=set)  # that the run before has left in local memory

    def receive(self, before: Run, handed: Iterable[Value]) -> None:
        """Take over arrays in local memory."""
        local = {value for value in handed if isinstance(before.values[value], Value)}
        self.received_values |= local
        self.values |= {value: before.values[value] for value in local}
        self.halves |= {value: half for value, half in before.halves.items() if value in local}

    def forget(self, arguments: Iterable[Value]) -> None:
        """Load arguments anew where they are read again, rather than keep them in local memory."""
        for value in arguments:
            self.values.pop(value, None)
            self.halves.pop(value, None)


def history_of(low: Lowering, value: Value) -> Value | None:
    """The argument [1, tokens, kv heads, d], or some heads of it, that has keys or values of earlier calls
    [1, kv heads, tokens, d], as the first items of each row.
    """
    part = value.defining(llm.SliceOp)
    if part is not None and (part.axis, part.start, part.step) == (3, 0, 1):
        value = part.x
    turned = value.defining(llm.PermuteOp)
    source = None if turned is None else turned.x
    some = None if source is None else source.defining(llm.SliceOp)
    if some is not None and is_some_heads(low, some):
        found = low.current.values[some.y]
        assert isinstance(found, Value)
        return found
    return source if source is not None and source.owner is low.function.block else None


def is_some_heads(low: Lowering, op: llm.SliceOp) -> bool:
    """Whether it takes neighbouring heads of an argument [1, tokens, heads, d], which stay in DDR."""
    return op.x.owner is low.function.block and op.x.type.rank == 4 and (op.axis, op.step) == (2, 1)


def is_rearranged(value: Value) -> bool:
    """Whether it is parameters whose items were put in another order, or joined."""
    op = value.owner
    if isinstance(op, llm.ReshapeOp):
        return is_rearranged(op.x)
    return isinstance(op, llm.PermuteOp | llm.SliceOp | llm.ConcatOp) and llm.is_weight(value)


class Lowering(ABC):
    """Lowers one function, run of tokens by run of tokens; rules get it with the op."""

    has_many_tokens: ClassVar[bool]

    def __init__(self, function: Function, spec: ChipSpec):
        self.function = function
        self.net = net_of(function)
        self.build = Build(Builder.before(function.terminator), spec)
        self.runs = [Run(Range(0, 1))]
        self.lowered = self.runs  # perhaps not all of them
        self.current = self.runs[0]
        self.op: Op = function  # the one being lowered
        self.scaled: set[Value] = set()  # queries that the factor of the scores is in already
        self.givers: dict[Value, list[Run]] = {}  # the runs of the section that gave a value
        self.wholes: dict[Value, Value] = {}  # of them, those that were asked for

    def run(self, ops: list[Op], terminator: Op) -> list[Value]:
        """Lower all ops run by run; gives the function's results, runs joined along the token axis."""
        for section in self.sections(ops, terminator.operands):
            self.begin(section)
            self._run_section(section.ops, section.results)
        self.build.loc = terminator.loc
        return [self.whole(value) for value in terminator.operands]

    def whole(self, value: Value) -> Value:
        """All tokens of what a section gave, in DDR."""
        if value not in self.wholes:
            runs = sorted(self.givers[value], key=lambda run: run.tokens.start)
            self.wholes[value] = self.joined_runs(value, [self.result(run, value) for run in runs])
        return self.wholes[value]

    def result(self, run: Run, value: Value) -> Value:
        """What a run gives of a result of its section, in DDR."""
        if value not in run.results:
            this, self.current = self.current, run
            run.results[value] = self.given(value)
            self.current = this
        return run.results[value]

    def _run_section(self, ops: list[Op], results: Sequence[Value]) -> None:
        """Lower some ops for all runs, and store results as soon as they are there."""
        phases = phases_of(ops)
        self.givers |= dict.fromkeys(results, self.lowered)
        size = runs_at_once(phases)
        made = {value: number for number, phase in enumerate(phases) for op in phase for value in op.results}
        for first in range(0, len(self.lowered), size):
            runs = self.lowered[first : first + size]
            steps = in_turn(len(phases), runs)
            for (number, run), (_, following) in zip(steps, [*steps[1:], steps[-1]], strict=True):
                self.fetch(following)
                there = [value for value in results if made.get(value, 0) == number]
                self._run_phase(run, phases[number], there)
                if number + 1 < len(phases) and size > 1:
                    run.forget(value for value in [*run.values] if self.is_stored(value))

    def _run_phase(self, run: Run, ops: list[Op], results: Sequence[Value]) -> None:
        self.current = run
        for op in ops:
            self.lower(op)
        self.build.loc = self.function.terminator.loc
        for value in results:
            self.give(run, value)

    def fetch(self, run: Run) -> None:
        """Receive the terms of a run that are under way, while another run computes."""
        for op, sent in run.sent.items():
            if op not in run.received:
                self.build.loc = op.loc
                run.received[op] = fetched(self.build, op, sent, self.is_alone(op))

    def is_alone(self, op: llm.AllReduceOp) -> bool:
        """Whether the terms of no other sum are under way."""
        return sum(len(run.sent.keys() - run.received.keys()) for run in self.lowered) == 1

    def lower(self, op: Op) -> None:
        if op.results and op.results[0] in self.current.values:
            return  # the columns of a sum that alone are read
        self.op, self.build.loc = op, op.loc
        found: Lowered | tuple[Lowered, ...] | None = lowers.find(op)(self, op)
        if found is None:
            return
        results = found if isinstance(found, tuple) else (found,)
        for value, result in zip(op.results, results, strict=True):
            if isinstance(result, Value) and isinstance(result.type.layout, Lanes):
                self.check_shape(op, value, result)
            self.current.values[value] = result

    # ---- what depends on how many tokens ----

    @abstractmethod
    def sections(self, ops: list[Op], results: Sequence[Value]) -> list[Section]:
        """Ops that are lowered for each run before the next ones are for any."""

    @abstractmethod
    def begin(self, section: Section) -> None:
        """Make the runs of a section."""

    @abstractmethod
    def joined_runs(self, value: Value, parts: Sequence[Value]) -> Value:
        """What runs gave of a value, as one array in DDR."""

    @abstractmethod
    def given(self, value: Value) -> Value:
        """What this run gives of a result of its section, in DDR."""

    def give(self, run: Run, value: Value) -> None:
        """Store what a run gives of a result of its section."""
        self.result(run, value)

    @abstractmethod
    def is_stored(self, value: Value) -> bool:
        """Whether it is in DDR before this section begins: an argument, or made in an earlier one."""

    @abstractmethod
    def check_shape(self, op: Op, value: Value, result: Value) -> None:
        """Refuse an op that would mix tokens, or be lowered as if its axes meant something else."""

    @abstractmethod
    def check_tokens(self, value: Value, *axes: int) -> int:
        """The axis that an operand's tokens are on; refuses the op when it is none of these."""

    @abstractmethod
    def mixes_tokens(self, x: Value, axis: int) -> bool:
        """Whether that axis of an array is one of tokens."""

    @abstractmethod
    def load_stored(self, value: Value) -> Value:
        """This run's tokens of what is stored; of an argument in f32."""

    @abstractmethod
    def token_rows(self, value: Value) -> Value:
        """This run's tokens of an argument in DDR."""

    @abstractmethod
    def weight_rows(self, value: Value, shape: Sequence[int], axis: int) -> Value:
        """This run's tokens of a parameter in that shape, maybe rearranged, with tokens on an axis of it, in
        f32.
        """

    @abstractmethod
    def picked(self, op: llm.GatherRowsOp) -> Value:
        """Rows of activations by this run's numbers of them."""

    @abstractmethod
    def accumulator(self, value: Value) -> Value:
        """An f32 array to add to, in whole slots."""

    @abstractmethod
    def parts(self, value: Value) -> Iterator[Value]:
        """An llm value in f32, in parts along axis 1 where temporaries as large would take much room: some
        tokens of [1, tokens, width], some heads of [1, heads, tokens, d] or [1, tokens, heads, d].
        """

    @abstractmethod
    def joined(self, parts: Sequence[Value], value: Value) -> Value:
        """What became of the parts of an llm value, as one array in its order of axes."""

    @abstractmethod
    def kept(self, part: Value, value: Value) -> Value:
        """A part of what an llm value becomes, as it waits to be read: in f32, or rounded."""

    @abstractmethod
    def head_axis(self, part: Value) -> int:
        """The axis of a part of an array of heads that the heads are on."""

    @abstractmethod
    def reshaped(self, x: Value, op: llm.ReshapeOp) -> Value:
        """The array x in the shape of the op, for this run's tokens."""

    @abstractmethod
    def broadcast(self, x: Value, shape: tuple[int, ...]) -> Value:
        """x with axes of 1 repeated up to `shape`, that of an llm value."""

    @abstractmethod
    def chosen(self, op: llm.ExpertsOp) -> Value | None:
        """The experts' numbers in DDR where only those are to be read; None where all are."""

    @abstractmethod
    def shares(self, rows: Value) -> Value:
        """Each token's numbers [.., n], which lie in its lane, as they meet its activations."""

    @abstractmethod
    def beside(self, rows: Value, x: Value) -> Value:
        """Each token's numbers [.., k], which lie in its lane, as its activations x [.., k] do."""

    @abstractmethod
    def client_layout(self, layout: Lanes) -> Lanes:
        """How an array lies that is stored next."""

    @abstractmethod
    def position_layouts(self) -> tuple[Attribute, Attribute]:
        """Of table rows, [1, tokens, width] as they are gathered, and [1, 1, tokens, width] beside heads."""

    @abstractmethod
    def gathered(self, rows: TableRows, shape: tuple[int, ...]) -> Value:
        """Rows of this run's positions in local memory; `shape` is [.., tokens, ..] with 1s before tokens."""

    @abstractmethod
    def attention(self, op: llm.AttentionOp, q: Value, mask: Mask | None) -> Value:
        """q of 16 bit in units of the scores -> [1, tokens, heads, d]."""

    def sinks(self, op: llm.AttentionOp, shape: tuple[int, ...], layout: Attribute) -> Value | None:
        """One logit for each head, as the scores are that `attend` makes; f32."""
        if op.sinks is None:
            return None
        rows = self.build.reshape(self.weight(op.sinks, F32), shape, None)
        element = op.q.type.element
        logits = self.build.scalar(tensor.MulOp, self.build.load(rows, layout), score_unit(element))
        offset = sink_offset(op.softcap, element)
        return self.build.scalar(tensor.AddOp, logits, offset) if offset else logits

    # ---- values ----

    def get(self, value: Value) -> Value:
        """The local f32 or 16-bit array of an llm value; an argument is loaded, this run's tokens of it."""
        values = self.current.values
        if value not in values:
            if not self.is_stored(value):
                self.op.fail(f"reads {value.type} from an op that gives no array")
            values[value] = self.load_stored(value)
        found = values[value]
        if isinstance(found, TableRows):
            values[value] = found = self.gathered(found, value.type.shape)
        if isinstance(found, Terms):
            values[value] = found = found.total(self.build)
        if not isinstance(found, Value):
            self.op.fail(f"takes weights or a table, {value.type}, where it needs an array")
        return found

    def is_loaded(self, value: Value) -> bool:
        """Whether it is in local memory already."""
        return value in self.current.values or not self.is_stored(value)

    def argument(self, value: Value) -> Value:
        """An array that must be an argument of the function, in DDR."""
        if value.owner is not self.function.block:
            self.op.fail(f"takes {value.type} that is computed where it needs an argument of the function")
        return value

    def f32(self, value: Value) -> Value:
        return self.wide(self.get(value))

    def wide(self, x: Value) -> Value:
        return self.build.cast(x, F32, x.type.layout)

    def half(self, value: Value) -> Value:
        """The array rounded to the llm value's own type, as matrix operands need it."""
        if value not in self.current.halves:
            self.current.halves[value] = self._rounded(value, lambda layout: Lanes(layout.axis))
        return self.current.halves[value]

    def _rounded(self, value: Value, layout_of: Callable[[Lanes], Lanes]) -> Value:
        found = self.get(value)
        if found.type.element != F32:
            return found
        layout = found.type.layout
        layout = layout_of(layout) if isinstance(layout, Lanes) else layout
        return self.build.cast(found, value.type.element, layout)

    def stored(self, value: Value) -> Value:
        """A result of the function, written to DDR, unless it is there already."""
        if value in self.current.stored:
            return self.current.stored.pop(value)
        gathered = value.defining(llm.AllGatherOp)
        if gathered is not None:
            return self._joined(gathered)
        found = self.current.values.get(value)
        if isinstance(found, Value) and found.type.layout is None:
            return found
        if isinstance(found, Terms):
            return found.stored(self.build, value.type.element, self.client_layout(found.layout))
        self.build.loc = value.owner.loc if isinstance(value.owner, Op) else self.build.loc
        return self.build.add(tensor.StoreOp(self._for_client(value)))

    def _joined(self, op: llm.AllGatherOp) -> Value:
        """This part's piece of a result, stored in its place."""
        piece = self.stored(op.x)
        self.build.loc = op.loc
        return self.build.add(tensor.JoinOp(piece, over=op.over, axis=op.axis, sizes=op.sizes))

    def _for_client(self, value: Value) -> Value:
        """Rounded as the client reads it; heads that were rounded for attention, of which these may be some,
        are not rounded again.
        """
        some = value.defining(llm.SliceOp)
        heads = self._rounded_heads(value if some is None else some.x)
        if heads is None:
            return self._rounded(value, self.client_layout)
        if some is None:
            return heads
        starts, sizes = [0] * len(heads.type.shape), list(heads.type.shape)
        starts[some.axis], sizes[some.axis] = some.start, some.stop - some.start
        return self.build.slice(heads, starts, sizes)

    def _rounded_heads(self, value: Value) -> Value | None:
        """The value, if it was rounded with its axes in another order."""
        halves = self.current.halves
        permuted = value.defining(llm.PermuteOp)
        if permuted is not None and permuted.x in halves:
            return self.build.permute(halves[permuted.x], permuted.order)
        for user in value.users:
            if isinstance(user, llm.PermuteOp) and user.y in halves:
                inverse = [user.order.index(axis) for axis in range(len(user.order))]
                return self.build.permute(halves[user.y], inverse)
        return None

    # ---- weights and tables ----

    def parameter(self, value: Value) -> Parameter:
        found = self.current.values.get(value)
        if not isinstance(found, Parameter):
            self.op.fail(f"takes {value.type} that is computed where it needs a weight")
        return found

    def table_rows(self, value: Value) -> TableRows:
        found = self.current.values.get(value)
        if not isinstance(found, TableRows):
            self.op.fail("takes tables that are no rows of named tables")
        return found

    def gather(self, rows: TableRows, layout: Attribute | None) -> Value:
        """[1, tokens, width], of this run's positions."""
        if rows.streams is not None:
            self.op.fail("takes rows by several streams, which only rotary tables can be picked by")
        return self.gathered_from(self._table(rows), self.token_rows(rows.ids), layout)

    def gathered_from(self, table: Value, ids: Value, layout: Attribute | None) -> Value:
        """[1, tokens, width] of a table in DDR, by this run's ids [1, tokens] there."""
        type_ = TensorType((*ids.type.shape, table.type.shape[1]), table.type.element, layout)
        return self.build.add(tensor.GatherOp(table, ids, types=[type_]))

    def stream(self, rows: TableRows, number: int) -> Value:
        """This run's ids [1, tokens] of one of several streams, in DDR."""
        assert rows.streams is not None
        ids, axis = self.token_rows(rows.ids), rows.streams.axis
        starts, sizes = [0, 0], list(ids.type.shape)
        starts[axis], sizes[axis] = number, 1
        return self.build.reshape(self.build.slice(ids, starts, sizes), (1, ids.type.shape[1 - axis]), None)

    def _table(self, rows: TableRows) -> Value:
        """In DDR."""
        if rows.table.defining(llm.TableOp) is None:
            return self.weight(rows.table, rows.table.type.element)
        return self.build.add(tensor.TableOp(name=rows.name, types=[TensorType(rows.shape, F32)]))

    def weight(self, value: Value, element: ElementType) -> Value:
        """A parameter in DDR."""
        parameter = self.parameter(value)
        type_ = TensorType(parameter.shape, element, parameter.scheme)
        return self.build.add(tensor.WeightOp(sources=list(parameter.names), types=[type_]))

    def row(self, value: Value, like: Value, shape: Sequence[int] | None = None) -> Value:
        """A parameter, or what numbers make of one, in f32, laid out to meet `like`: on its last axes, or on
        those of `shape`.
        """
        rank = len(like.type.shape)
        shape = shape or (*(1 for _ in range(rank - len(value.type.shape))), *value.type.shape)
        axis = tensor.axis_over_lanes(like.type)
        if is_rearranged(value) and axis is not None:
            return self.weight_rows(value, shape, axis)
        if value not in self.current.values:
            return self._made_of_row(value, like, shape)
        layout: Attribute = Replicated()
        if axis is not None and shape[axis] > 1:
            if self.mixes_tokens(like, axis):
                return self.weight_rows(value, shape, axis)
            layout = Lanes(axis, compact=axis == rank - 1)
        source = self.build.reshape(self.weight(value, F32), shape, None)
        return self.build.load(source, layout)

    def _made_of_row(self, value: Value, like: Value, shape: Sequence[int]) -> Value:
        """A parameter in another shape, or what an element-wise op makes of it where it is read."""
        op: Any = value.owner
        if isinstance(op, llm.ReshapeOp):
            return self.row(op.x, like, shape)
        if type(op) in FUNCTIONS:
            return FUNCTIONS[type(op)](self.build, self.row(op.x, like, shape), op)
        if type(op) in KINDS and op.rhs is None:
            return with_number(self.build, self.row(op.lhs, like, shape), op)
        self.op.fail(f"takes {value.type} that is computed where it needs a weight")
