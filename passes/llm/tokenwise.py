"""What treats the tokens of a value alike: their order matters to nothing but which is where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

from compiler.ir.core import Op, Value
from compiler.ir.module import Function
from dialects import llm
from passes.llm.pieces import AXES


@dataclass
class Tokens:
    """Ops that treat the tokens of a value alike, and so do all between.

    axes: where tokens are, of `start` and of each value that these ops make; read: those of the values that
    others read, and what does; weights: parameters with an item for each token, and the axis of these;
    shifted: inputs that begin with tokens which `put` puts others in place of (see `join_inputs`).
    """

    start: Value
    axes: dict[Value, int]
    ops: dict[Op, None] = field(default_factory=dict)
    read: dict[Value, list[Op]] = field(default_factory=dict)
    weights: dict[Value, int] = field(default_factory=dict)
    shifted: llm.SliceOp | None = None
    put: llm.PutOp | None = None

    @property
    def count(self) -> int:
        """Tokens that there are at the start."""
        count: int = self.start.type.shape[self.axes[self.start]]
        return count

    @property
    def known(self) -> int:
        """Tokens that are put in front of them."""
        return 0 if self.shifted is None else self.count - self.shifted.start


Rule: TypeAlias = Callable[[Any, Tokens], int | None]


def tokens_of(function: Function, start: Value, axis: int) -> Tokens:
    """All that treats the tokens on that axis of a value alike."""
    found = Tokens(start, {start: axis})
    for op in function.block.ops:
        read = [x for x in op.operands if x in found.axes]
        if not read:
            continue
        if (kept := axis_behind(op, found)) is None:
            for x in read:
                found.read.setdefault(x, []).append(op)
        else:
            found.ops[op] = None
            found.axes |= dict.fromkeys(op.results, kept)
    return found


def axis_behind(op: Any, tokens: Tokens) -> int | None:
    """The axis of the result that tokens are on; None where the op does not treat them alike."""
    axis = tokens.axes.get(op.operands[0])
    if isinstance(op, llm.ConcatOp | llm.SliceOp | llm.PutOp) and op.axis == axis:
        return axis if puts_in_front(op, tokens) else None
    if type(op) not in RULES and type(op) not in AXES:
        return None
    rule: Rule = RULES.get(type(op), of_items)
    return rule(op, tokens)


def puts_in_front(op: llm.ConcatOp | llm.SliceOp | llm.PutOp, tokens: Tokens) -> bool:
    """Whether it has a part in putting known tokens in front of the others."""
    if isinstance(op, llm.ConcatOp):
        return op.parts == (tokens.start, tokens.start)
    if isinstance(op, llm.PutOp):
        count = op.rows.type.shape[op.axis]
        if tokens.put or op.start or not llm.is_weight(op.rows) or count != tokens.known:
            return False
        tokens.put = op
        return True
    if tokens.shifted or op.x.defining(llm.ConcatOp) is None or (op.stop, op.step) != (2 * tokens.count, 1):
        return False
    tokens.shifted = op
    return True


def of_linear(op: llm.LinearOp | llm.GatedLinearOp, tokens: Tokens) -> int | None:
    axis, others = tokens.axes.get(op.x), [x for x in op.operands if x is not op.x]
    alike = all(llm.is_weight(x) or tokens.axes.get(x) == axis for x in others)
    return axis if alike and axis != op.x.type.rank - 1 else None


def of_attention(op: llm.AttentionOp, tokens: Tokens) -> int | None:
    axes = [tokens.axes.get(x) for x in (op.q, op.k, op.v)]
    return 1 if axes == [2, 2, 2] and op.visible.kind == "all" and op.mask is None else None


def of_reshape(op: llm.ReshapeOp, tokens: Tokens) -> int | None:
    axis = tokens.axes[op.x]
    before, size = prod(op.x.type.shape[:axis]), op.x.type.shape[axis]
    return next((i for i, n in enumerate(op.shape) if n == size and prod(op.shape[:i]) == before), None)


def of_permute(op: llm.PermuteOp, tokens: Tokens) -> int | None:
    return [*op.order].index(tokens.axes[op.x])


def of_items(op: Op, tokens: Tokens) -> int | None:
    """Of an op whose items along that axis are each made of those of its operands."""
    rank = op.results[0].type.rank
    axes: set[int] = {tokens.axes[x] + rank - x.type.rank for x in op.operands if x in tokens.axes}
    axis, *others = axes
    cuts = None if others else AXES[type(op)](op, axis)
    if cuts is None:
        return None
    own = {x: cut for x, cut in zip(op.operands, cuts, strict=True) if x in tokens.axes}
    weights = {x: cut for x, cut in zip(op.operands, cuts, strict=True) if x not in own}
    if any(tokens.axes[x] != cut for x, cut in own.items()) or not all(map(llm.is_weight, weights)):
        return None
    tokens.weights |= {x: cut for x, cut in weights.items() if cut is not None}
    return axis


RULES: dict[type[Op], Rule] = {
    llm.LinearOp: of_linear,
    llm.GatedLinearOp: of_linear,
    llm.AttentionOp: of_attention,
    llm.ReshapeOp: of_reshape,
    llm.PermuteOp: of_permute,
}
