"""Sections of a function: ops that are lowered for one run of tokens after the other, all of one number.

What a section makes for others is in DDR before they begin. So one ends where keys of later tokens are read,
and where tokens come to be others: merged, joined, left out, picked by ids. An op that only moves tokens is
in no section: those that read its result load it from where its operands lie (`moved.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Any, TypeAlias

from compiler.ir.core import Op, Value
from compiler.ir.module import Function
from compiler.ir.types import Type
from dialects import llm
from dialects.nets import net_of, token_count
from passes.llm_to_tensor.rows import placed_rows
from passes.ranges import Range

RunsOf: TypeAlias = Callable[[int], int]
MOVEMENTS = (llm.ReshapeOp, llm.PermuteOp, llm.SliceOp, llm.ConcatOp, llm.NarrowOp)  # or roundings


@dataclass
class Section:
    """Ops for `tokens` tokens, with what they know by name; others, or the client, read the `results`.

    read: those of the tokens that any of them reads; runs: of these, in the order in which they are lowered;
    handed: results that the last run leaves where they are for the next section; left: those that it leaves
    there, of which this reads other tokens.
    """

    tokens: int
    ops: list[Op] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)
    runs: list[Range] = field(default_factory=list)
    handed: set[Value] = field(default_factory=set)
    left: set[Value] = field(default_factory=set)

    @property
    def is_ordered(self) -> bool:
        """Whether a run may read what those before it have made."""
        own = {*self.ops}
        return any(needs_all(op, own) for op in self.ops)

    @property
    def read(self) -> Range:
        own = {*self.ops}
        read = [tokens_read(value, own) for value in self.results]
        if None in read or self.is_ordered:
            return Range(0, self.tokens)
        found = [each for each in read if each is not None]
        return Range(min(each.start for each in found), max(each.stop for each in found))


class Places:
    """Where the values of a function have their tokens, and which of them are nothing but moved tokens."""

    def __init__(self, function: Function):
        stated = zip(function.args, net_of(function).inputs, strict=True)
        self.function = function
        self._axes: dict[Value, int | None] = {arg: each.tokens for arg, each in stated}
        self._moved: set[Value] = set()
        self._named: set[Op] = set()
        for op in function.block.ops:
            self._visit(op)

    def _visit(self, op: Op) -> None:
        if self._is_known(op):
            self._named.add(op)
            return
        if isinstance(op, MOVEMENTS) and self._moves(op):
            self._moved.update(op.results)
        for value in op.results:
            self._axes[value] = self._axis_of_result(op, value)

    def axis(self, value: Value) -> int | None:
        """The axis of a value that its tokens are on; None for what has none, or is known by name."""
        return self._axes.get(value)

    def is_moved(self, value: Value) -> bool:
        return value in self._moved

    def is_computed(self, op: Op) -> bool:
        """Whether it is neither known by name nor only moves what there is."""
        return not self.is_named(op) and not any(map(self.is_moved, op.results))

    def is_named(self, op: Op) -> bool:
        """Whether it gives what is known at compile time, or rows of that by position, which runs look up."""
        return op in self._named

    def _is_known(self, op: Op) -> bool:
        if isinstance(op, llm.WeightOp | llm.TableOp | llm.IndicesOp):
            return True
        if isinstance(op, llm.GatherRowsOp):
            return self._is_named_value(op.table)
        if isinstance(op, llm.HideBeforeOp):
            return self._is_named_value(op.first)
        return bool(op.results) and bool(op.operands) and all(map(self._is_named_value, op.operands))

    def _is_named_value(self, value: Value) -> bool:
        return isinstance(value.owner, Op) and self.is_named(value.owner)

    def _moves(self, op: Any) -> bool:
        """Whether the tokens of the result are others than those of an operand, or already were there."""
        if any(self.is_moved(x) or self._is_whole_argument(x) for x in op.operands):
            return True
        if isinstance(op, llm.ReshapeOp):
            return self.axis(op.x) is not None and kept_axis(op.x, self._axes[op.x], op.shape) is None
        if isinstance(op, llm.SliceOp | llm.ConcatOp):
            return any(self.axis(x) == op.axis for x in op.operands)
        return False

    def _is_whole_argument(self, value: Value) -> bool:
        """Whether it stays in DDR: it counts no tokens, or no activations but tokens' numbers."""
        argument = value.owner is self.function.block
        return argument and (self._axes[value] is None or not value.type.element.is_float)

    def _axis_of_result(self, op: Any, value: Value) -> int | None:
        if self.is_moved(value):
            return only_axis(value.type.shape)
        if isinstance(op, llm.AttentionOp | llm.GatherRowsOp | llm.EmbeddingOp):
            return 1
        axis = next((self._axes[x] for x in op.operands if self.axis(x) is not None), None)
        if axis is not None and isinstance(op, llm.ReshapeOp):
            return kept_axis(op.x, axis, op.shape)
        return op.order.index(axis) if axis is not None and isinstance(op, llm.PermuteOp) else axis

    def count(self, op: Any) -> int | None:
        """Tokens that an op is for; None where it has none."""
        found = (value for value in (*op.results, *op.operands) if self.axis(value) is not None)
        return next((value.type.shape[self._axes[value]] for value in found), None)

    def sources(self, value: Value) -> Iterator[Value]:
        """What a value that is nothing but moved is made of: results of sections, and arguments."""
        if not self.is_moved(value):
            yield value
        else:
            assert isinstance(value.owner, Op)
            for x in value.owner.operands:
                yield from self.sources(x)


def kept_axis(x: Value, axis: int | None, shape: Sequence[int]) -> int | None:
    """Where an axis of x is in a shape of the same items; None where it is merged or split."""
    assert axis is not None
    before, size = prod(x.type.shape[:axis]), x.type.shape[axis]
    found = [i for i in range(len(shape)) if prod(shape[:i]) == before and shape[i] == size]
    return found[0] if found else None


def only_axis(shape: Sequence[int]) -> int | None:
    """The one axis before the last that is longer than 1, or the last of these; None where several are."""
    longer = [axis for axis, size in enumerate(shape[:-1]) if size > 1]
    return None if len(longer) > 1 else next(iter(longer), len(shape) - 2)


def needs_all(op: Op, own: Container[Op]) -> bool:
    """Whether it reads the keys of other tokens, which these ops make, or their places."""
    if not isinstance(op, llm.AttentionOp):
        return False
    return op.visible.is_placed or any(x.owner in own for x in (op.k, op.v))


def tokens_read(value: Value, own: Container[Op]) -> Range | None:
    """Those of a section's result that others read, where each of them reads a range; None where not."""
    readers = [user for user in value.users if user not in own]
    found = [
        Range(user.start, user.stop)
        for user in readers
        if isinstance(user, llm.SliceOp) and user.step == 1 and user.axis == value.type.rank - 2
    ]
    if not found or len(found) < len(readers):
        return None
    return Range(min(each.start for each in found), max(each.stop for each in found))


def most_tokens(function: Function) -> int:
    """Of all that a function computes."""
    places = Places(function)
    counts = [places.count(op) or 0 for op in function.block.ops if places.is_computed(op)]
    return max(counts, default=0) or token_count(function)


def kind_of(section: Section) -> Hashable:
    """Sections of one kind differ in their weights."""
    return section.tokens, *(
        (op.opname, *(str(item) for item in op.attributes.items() if item[0] != "name"), *types_of(op))
        for op in section.ops
    )


def types_of(op: Op) -> Iterator[Type]:
    yield from (value.type for value in (*op.operands, *op.results))


def sections_of(function: Function, places: Places, runs_of: RunsOf) -> list[Section]:
    """In program order; `runs_of` says into how many runs so many tokens are cut."""
    *ops, terminator = function.block.ops
    sections, made = _assigned(ops, places, runs_of, token_count(function))
    for value in terminator.operands:
        if places.is_moved(value) and placed_rows(value, places) is None:
            axis = places.axis(value)
            sections.append(Section(value.type.shape[axis] if axis is not None else 1, [], [value]))
    _find_results(sections, made, terminator, places)
    order = {op: number for number, op in enumerate(ops)}
    for section in sections:
        section.ops = sorted({*section.ops, *_named_for(section, places)}, key=order.__getitem__)
    return sections


def _assigned(
    ops: Sequence[Op], places: Places, runs_of: RunsOf, tokens: int
) -> tuple[list[Section], dict[Value, int]]:
    """Sections of what is computed, and which of them makes each value."""
    sections, made = [Section(tokens)], dict[Value, int]()
    for op in ops:
        if not places.is_computed(op):
            continue
        here = sections[-1]
        count = places.count(op) or here.tokens
        whole = whole_operands(op, places, runs_of(count))
        wanted = [source for x in whole for source in places.sources(x)]
        if not here.ops:
            here.tokens = count
        elif count != here.tokens or any(made.get(x) == len(sections) - 1 for x in wanted):
            sections.append(Section(count))
        sections[-1].ops.append(op)
        made |= dict.fromkeys(op.results, len(sections) - 1)
    return sections, made


def whole_operands(op: Op, places: Places, runs: int) -> list[Value]:
    """What must be there for all tokens before an op of so many runs reads it."""
    found = [x for x in op.operands if places.is_moved(x)]
    if isinstance(op, llm.GatherRowsOp):
        found.append(op.table)
    if isinstance(op, llm.AttentionOp) and op.visible.sees_later and runs > 1:
        found += [op.k, op.v]
    return found


def _find_results(
    sections: Sequence[Section], made: dict[Value, int], terminator: Op, places: Places
) -> None:
    """Of each section what others read, and what the client does."""
    wanted: dict[Value, None] = {}
    for number, section in enumerate(sections):
        moved = [value for value in section.results if places.is_moved(value)]
        for x in (*moved, *(x for op in section.ops for x in op.operands)):
            wanted |= {source: None for source in places.sources(x) if made.get(source, number) != number}
    for value in terminator.operands:
        if not places.is_moved(value):
            wanted[value] = None
        elif rows := placed_rows(value, places):
            wanted[rows.source] = None
    for value in wanted:
        sections[made.get(value, -1)].results.append(value)
    for section, following in pairwise(sections):
        read = {source for op in following.ops for x in op.operands for source in places.sources(x)}
        some = {value for value in section.results if value in read}
        section.left = {value for value in some if _is_only_moved(value, section, places)}


def _is_only_moved(value: Value, section: Section, places: Places) -> bool:
    """Whether others than the ops of its section read it with its tokens moved."""
    own = {*section.ops}
    return all(op in own or any(map(places.is_moved, op.results)) for op in value.users)


def _named_for(section: Section, places: Places) -> Iterator[Op]:
    """The ops that give what a section knows by name."""
    left: list[Op] = [*section.ops]
    while left:
        for x in left.pop().operands:
            op = x.owner
            if isinstance(op, Op) and (places.is_named(op) or places.is_moved(x)):
                left.append(op)
                if places.is_named(op):
                    yield op


def is_given(value: Value) -> bool:
    """Whether all that becomes of a value is that the client reads it, in some shape."""
    return all(
        user.is_terminator or (isinstance(user, llm.ReshapeOp) and is_given(user.y)) for user in value.users
    )


def is_rounded(value: Value) -> bool:
    """Whether all that read a value, also with its tokens moved, do so in its element type."""
    return _is_read_by(value, llm.RoundsOperands)


def is_rounded_in_ddr(value: Value) -> bool:
    """Whether a value that lies in DDR does so in its element type: none that reads it adds to it.

    The result of a norm is rounded as much as its operand then is, and is not the less exact for its size.
    """
    return _is_read_by(value, (llm.RoundsOperands, llm.RmsNormOp, llm.LayerNormOp))


def _is_read_by(value: Value, kinds: type[Op] | tuple[type[Op], ...]) -> bool:
    """Whether all that read a value, also with its tokens moved, are of some kinds, and none adds to it."""
    return all(_reads_as(user, value, kinds) for user in value.users)


def _reads_as(user: Op, value: Value, kinds: type[Op] | tuple[type[Op], ...]) -> bool:
    if isinstance(user, llm.LinearOp):
        return user.residual is not value
    if isinstance(user, (llm.GatherRowsOp, *MOVEMENTS)):
        return _is_read_by(user.results[0], kinds)
    return isinstance(user, kinds) or user.is_terminator
