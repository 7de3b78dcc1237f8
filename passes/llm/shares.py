"""Who has what: of each attention the query heads, of each linear that ends a block of them the inputs, of a
choice among outputs the outputs. Nothing else is placed; see `passes.llm.partition`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import lcm
from typing import TypeAlias, TypeVar

from compiler.ir.core import Op, Value
from compiler.ir.module import Function
from compiler.weights.scheme import scheme_of
from dialects import llm
from dialects.parts import Over
from passes.llm.pieces import AXES, item_by_item, kv_heads_of
from passes.ranges import Range

Cuts = tuple[Range, ...]  # of an axis, by part
ITEM_BY_ITEM = tuple(cls for cls, rule in AXES.items() if rule is item_by_item)
Block: TypeAlias = "llm.LinearOp | llm.ExpertsOp"  # what ends a block of linears
Key = TypeVar("Key", Op, Value)
PROJECTIONS = (llm.LinearOp, llm.GatedLinearOp)
# What a query and a KV head take, in products with their weights, as SmolLM2 does of 512 tokens on BM1688:
# the scores take 0.6; to read keys and values takes 3 for one token, and nothing for many.
QUERY_HEAD, KV_HEAD = 1.6, 1.5


@dataclass(frozen=True)
class Parts:
    """How many parts there are, and of what kind; each should have columns in multiples of `unit`, those of a
    row of lanes.
    """

    over: Over
    count: int
    unit: int


@dataclass
class Plan:
    """What the parts of one function have of it."""

    heads: dict[Op, Cuts] = field(default_factory=dict)  # of an attention, query heads
    sums: dict[Op, Cuts] = field(default_factory=dict)  # of a linear, inputs; of experts, inner columns
    choices: dict[Op, Cuts] = field(default_factory=dict)  # of an argmax, the last axis of what it reads
    outputs: dict[Value, Cuts] = field(default_factory=dict)  # of a result, the last axis
    caches: dict[Value, tuple[Op, int]] = field(default_factory=dict)  # keys, values; the axis of heads

    @property
    def terms(self) -> set[Op]:
        """Sums that are nothing but a term of another: of blocks that read the same, side by side."""
        found = [op.residual for op in self.sums if isinstance(op, llm.LinearOp) and op.residual is not None]
        return {value.owner for value in found if value.owner in self.sums and value.has_one_use()}

    @property
    def is_empty(self) -> bool:
        return not self.sums and not self.choices and not self.outputs

    def kv_heads(self, op: Op) -> Cuts:
        """Of an attention, the KV heads that each part reads."""
        assert isinstance(op, llm.AttentionOp)
        return tuple(kv_heads_of(op, cut)[0] for cut in self.heads.get(op, ()))

    def cache_of(self, value: Value) -> tuple[Op, int] | None:
        """The attention that reads a value's heads, as they are or moved or filled up, and their axis."""
        if value in self.caches:
            return self.caches[value]
        op = value.owner
        found = self.cache_of(op.x) if isinstance(op, llm.PermuteOp | llm.PadOp) else None
        if found is None:
            return None
        attention, axis = found
        return attention, op.order.index(axis) if isinstance(op, llm.PermuteOp) else axis


def plan_of(function: Function, parts: Parts) -> Plan:
    """Heads first; then what is left of even shares of all products, in columns of the other blocks."""
    plan, columns, behind = Plan(), dict[Block, int](), dict[llm.LinearOp, list[llm.AttentionOp]]()
    for op in function.block.ops:
        if not isinstance(op, llm.LinearOp | llm.ExpertsOp):
            continue
        sources = sources_of(op.x, plan) if isinstance(op, llm.LinearOp) else set()
        attentions = [source for source in sources if isinstance(source, llm.AttentionOp)]
        if isinstance(op, llm.ExpertsOp):
            columns[op] = op.down.type.shape[2]
        elif attentions and are_cut_alike(attentions):
            cuts = even_heads(op, attentions[0], parts)
            if cuts is not None:
                behind[op] = attentions
                share_heads(plan, op, attentions, cuts)
        elif sources and all(isinstance(source, PROJECTIONS) for source in sources):
            columns[op] = op.x.type.shape[-1]
        if op in columns and enough(op, columns[op], parts) is not None:
            plan.sums[op] = ()  # of which no other sum is made; known below
        else:
            columns.pop(op, None)
    keep_groups_whole(plan, behind, sum(map(products, columns)), parts)
    share_columns(plan, columns, parts)
    for op in function.block.ops:
        if isinstance(op, llm.ArgmaxOp):
            share_outputs(plan.choices, op, op.x, plan, parts)
    for value in function.terminator.operands:
        share_outputs(plan.outputs, value, value, plan, parts)
    return plan


def sources_of(value: Value, plan: Plan) -> set[Op | None]:
    """The attentions and linears that each item of the last axis is computed from, by some items of theirs;
    with None where there is anything else, such as an argument or a norm.
    """
    op = value.owner
    if isinstance(op, llm.AttentionOp) or (isinstance(op, PROJECTIONS) and op not in plan.sums):
        return {op}
    if isinstance(op, llm.ReshapeOp) or (isinstance(op, llm.SliceOp) and op.axis == op.y.type.rank - 1):
        return sources_of(op.x, plan)
    if isinstance(op, ITEM_BY_ITEM):
        wide = [operand for operand in op.operands if operand.type.shape[-1:] == value.type.shape[-1:]]
        return set[Op | None]().union(*(sources_of(each, plan) for each in wide if not llm.is_weight(each)))
    return {None}


def share_outputs(shares: dict[Key, Cuts], key: Key, value: Value, plan: Plan, parts: Parts) -> None:
    """Where items of the last axis are outputs of linears, each part computes some."""
    sources = sources_of(value, plan)
    if not all(isinstance(op, PROJECTIONS) and op.y.type.shape[-1] == value.type.shape[-1] for op in sources):
        return
    cuts = even(value.type.shape[-1], parts.unit, parts.count)
    if sources and cuts is not None:
        shares[key] = cuts


# ---- heads ----


def are_cut_alike(attentions: Sequence[llm.AttentionOp]) -> bool:
    return len({(op.heads_of, op.v.type.shape[3]) for op in attentions}) == 1


def even_heads(op: llm.LinearOp, attention: llm.AttentionOp, parts: Parts) -> Cuts | None:
    """Query heads in whole groups of the linear's inputs; as many each, or one more to the first parts."""
    heads, width = attention.q.type.shape[1], attention.v.type.shape[3]
    unit = lcm(width, group_of(op.weight)) // width
    return even(heads, unit, parts.count) if op.x.type.shape[-1] == heads * width else None


def whole_groups(op: llm.LinearOp, attention: llm.AttentionOp, parts: Parts) -> Cuts | None:
    """As many KV heads each, with all their query heads; None where that splits groups of inputs."""
    kv_cuts = even(attention.k.type.shape[1], 1, parts.count)
    starts = [*accumulate(attention.heads_of, initial=0)]
    cuts = tuple(Range(starts[kv.start], starts[kv.stop]) for kv in kv_cuts or ())
    width, group = attention.v.type.shape[3], group_of(op.weight)
    return cuts if cuts and all(cut.start * width % group == 0 for cut in cuts) else None


def keep_groups_whole(
    plan: Plan, behind: dict[llm.LinearOp, list[llm.AttentionOp]], free: int, parts: Parts
) -> None:
    """Have no KV head in two parts, which both would read, where columns can make up for more heads."""
    found = {op: whole_groups(op, attentions[0], parts) for op, attentions in behind.items()}
    whole = {op: cuts for op, cuts in found.items() if cuts is not None}
    fixed = [
        sum(head_products(each, cuts[number]) for op, cuts in whole.items() for each in behind[op])
        for number in range(parts.count)
    ]
    if len(whole) == len(behind) and max(fixed) <= (sum(fixed) + free) / parts.count:
        for op, cuts in whole.items():
            share_heads(plan, op, behind[op], cuts)


def share_heads(plan: Plan, op: llm.LinearOp, attentions: Sequence[llm.AttentionOp], cuts: Cuts) -> None:
    width = attentions[0].v.type.shape[3]
    plan.sums[op] = tuple(Range(cut.start * width, cut.stop * width) for cut in cuts)
    for attention in attentions:
        plan.heads[attention] = cuts
        for value in (attention.k, attention.v):
            plan.caches |= {each: (attention, axis) for each, axis in heads_before(value, 1)}


def heads_before(value: Value, axis: int) -> Iterator[tuple[Value, int]]:
    """A value and those it is made of that have its heads by themselves; `axis` is that of its heads."""
    yield value, axis
    op = value.owner
    if isinstance(op, llm.KvConcatOp):
        yield from heads_before(op.history, axis)
    if isinstance(op, llm.ReshapeOp) and op.x.type.shape[: axis + 1] != op.shape[: axis + 1]:
        return
    if isinstance(op, llm.LeadsToAttention):
        yield from heads_before(op.passed, op.order[axis] if isinstance(op, llm.PermuteOp) else axis)
    elif isinstance(op, llm.SliceOp) and op.axis != axis:
        yield from heads_before(op.x, axis)


def group_of(weight: Value) -> int:
    """How many neighbouring inputs share a scale."""
    scheme = scheme_of(weight.type)
    return 1 if scheme is None else scheme.group


# ---- columns ----


def share_columns(plan: Plan, columns: dict[Block, int], parts: Parts) -> None:
    """So that all parts have as many products, those of the heads included.

    What counts is the same in all nets of a layer, however many tokens they have: they share their weights.
    """
    fixed = [
        sum(head_products(op, cuts[number]) for op, cuts in plan.heads.items())
        for number in range(parts.count)
    ]
    free = sum(products(op) for op in columns)
    each = (sum(fixed) + free) / parts.count
    wanted = [max(0.0, each - own) for own in fixed]
    for op, total in columns.items():
        unit = enough(op, total, parts)
        assert unit is not None
        plan.sums[op] = by_weight(total, unit, wanted)


def enough(op: Block, total: int, parts: Parts) -> int | None:
    """The unit of columns, in whole groups and if possible rows of lanes, of which each part has some."""
    group = group_of(op.weight if isinstance(op, llm.LinearOp) else op.down)
    units = (lcm(group, parts.unit), group)
    return next((unit for unit in units if -(-total // unit) >= parts.count), None)


def head_products(op: Op, queries: Range) -> float:
    """Products of a token with the weights before and behind some heads, for each input of the layer, with
    what takes as long.
    """
    assert isinstance(op, llm.AttentionOp)
    kv, _ = kv_heads_of(op, queries)
    width: int = op.k.type.shape[3] + op.v.type.shape[3]
    return (QUERY_HEAD * queries.size + KV_HEAD * kv.size) * width


def products(op: Block) -> int:
    """As `head_products`, of the columns of a block: two weights, or three with a gate."""
    if isinstance(op, llm.ExpertsOp):
        return (3 if op.gate is not None else 2) * op.down.type.shape[2] * op.ids.type.shape[-1]
    gate = op.x.defining(llm.SwigluOp) or op.x.defining(llm.GatedLinearOp) or op.x.defining(llm.MulOp)
    return (2 if gate is None else 3) * int(op.x.type.shape[-1])


# ---- shares of an axis ----


def even(total: int, unit: int, count: int) -> Cuts | None:
    """As many units each, or one more to the first parts; None where there are too few."""
    return by_weight(total, unit, [1.0] * count) if -(-total // unit) >= count else None


def by_weight(total: int, unit: int, weights: Sequence[float]) -> Cuts:
    """Shares in the ratio of the weights, in whole units, each of one at least; the last may be of a part."""
    units, rest = -(-total // unit), sum(weights) or 1.0
    wanted = [1 + weight / rest * units for weight in weights]
    counts = [max(1, int(units * weight / rest)) for weight in weights]
    while sum(counts) != units:
        step = 1 if sum(counts) < units else -1
        open_ = [i for i, count in enumerate(counts) if count + step >= 1]
        best = max(open_, key=lambda i: (step * (wanted[i] - counts[i]), -i))
        counts[best] += step
    bounds = [min(total, unit * bound) for bound in (0, *accumulate(counts))]
    return tuple(Range(start, stop) for start, stop in pairwise(bounds))


