"""Bring data movement to its shortest form, compute each value once, and drop what nobody reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from compiler.ir.core import Block, Op, Value
from compiler.ir.location import fused
from compiler.ir.module import Module, walk
from compiler.ir.rewrite import Pattern, Rewriter, apply_patterns, rewrite
from dialects import llm
from dialects.contents import Content
from passes.llm.join_inputs import join_inputs
from passes.manager import Pass

TOKENWISE = (
    llm.RmsNormOp,
    llm.LayerNormOp,
    llm.ActOp,
    llm.AddOp,
    llm.SubOp,
    llm.MulOp,
    llm.DivOp,
    llm.ClampOp,
)


@dataclass(frozen=True)
class Canonicalize(Pass):
    """llm -> llm. Merge and drop reshapes, permutes and slices; common subexpressions; dead code."""

    name = "canonicalize"
    takes = Content.LLM

    def run(self, module: Module) -> None:
        canonicalize(module)


def canonicalize(module: Module) -> None:
    """To a fixed point: sharing a value may let two ops merge, and merging may let two values be shared."""
    changes = 1
    while changes:
        changes = apply_patterns(module, PATTERNS)
        for block in [region.block for op in walk(module) for region in op.regions]:
            changes += share_common(block)
            erase_dead(block)


def share_common(block: Block) -> int:
    """Replace each op by an earlier one that computes the same; gives how many were replaced."""
    seen: dict[tuple[object, ...], Op] = {}
    replaced = 0
    for op in list(block.ops):
        if op.has_effects or op.regions or not op.results:
            continue
        attributes = sorted((name, str(value)) for name, value in op.attributes.items())
        types = tuple(result.type for result in op.results)
        first = seen.setdefault((op.opname, op.operands, op.segments, str(attributes), types), op)
        if first is not op:
            for old, new in zip(op.results, first.results, strict=True):
                old.replace_by(new)
            op.erase()
            replaced += 1
    return replaced


def erase_dead(block: Block) -> None:
    for op in reversed(block.ops):
        if op.is_dead():
            op.erase()


@rewrite(llm.ReshapeOp)
def merge_reshapes(op: llm.ReshapeOp, rw: Rewriter) -> None:
    """reshape(reshape(x)) -> reshape(x), and reshape(x) to its own shape -> x."""
    before = op.x.defining(llm.ReshapeOp)
    source = before.x if before else op.x
    if source.type == op.y.type:
        rw.replace(op, source)
    elif before is not None:
        rw.replace(op, llm.ReshapeOp(source, shape=op.shape, loc=fused(before.loc, op.loc)))


@rewrite(llm.LinearOp)
def project_before_axes_of_one(op: llm.LinearOp, rw: Rewriter) -> None:
    """linear(reshape(x)) -> reshape(linear(x)), where the reshape only adds or drops axes of 1."""
    reshape = op.x.defining(llm.ReshapeOp)
    if reshape is None or op.residual is not None or op.partial:
        return
    source = reshape.x.type.shape
    if source[-1] != op.x.type.shape[-1] or len(source) == 2:  # [1, tokens, n] is what states are
        return
    before, after = ([size for size in value.type.shape[:-1] if size != 1] for value in (reshape.x, op.x))
    if before == after:
        linear = rw.insert_before(op, llm.LinearOp(reshape.x, op.weight, op.bias, loc=op.loc))
        rw.replace(op, llm.ReshapeOp(linear.y, shape=op.y.type.shape, loc=reshape.loc))


@rewrite(llm.PermuteOp)
def merge_permutes(op: llm.PermuteOp, rw: Rewriter) -> None:
    """permute(permute(x)) -> permute(x), and a permute that changes no axis -> x."""
    before = op.x.defining(llm.PermuteOp)
    source = before.x if before else op.x
    order = tuple(before.order[axis] for axis in op.order) if before else op.order
    if order == tuple(range(len(order))):
        rw.replace(op, source)
    elif before is not None:
        rw.replace(op, llm.PermuteOp(source, order=order, loc=fused(before.loc, op.loc)))


@rewrite(llm.LinearOp)
def project_joined_heads(op: llm.LinearOp, rw: Rewriter) -> None:
    """linear(reshape(x)) from [1, tokens, heads, d] to [tokens, n] -> reshape(linear([1, tokens, n]))."""
    joined, shape = op.x.defining(llm.ReshapeOp), (1, *op.x.type.shape)
    if joined is None or op.residual is not None or op.partial or len(shape) != 3:
        return
    if len(joined.x.type.shape) > 3 and joined.x.type.shape[:2] == shape[:2]:
        x = rw.insert_before(op, llm.ReshapeOp(joined.x, shape=shape, loc=joined.loc)).y
        linear = rw.insert_before(op, llm.LinearOp(x, op.weight, op.bias, partial=op.partial, loc=op.loc))
        rw.replace(op, llm.ReshapeOp(linear.y, shape=op.y.type.shape, loc=joined.loc))


@rewrite(*TOKENWISE)
def keep_tokens_on_their_axis(op: Op, rw: Rewriter) -> None:
    """f(reshape(x)) -> reshape(f(x)) from [1, tokens, n] to [tokens, n], f being one for each token."""
    arrays = {i: value for i, value in enumerate(op.operands) if not llm.is_weight(value)}
    before = [value.defining(llm.ReshapeOp) for value in arrays.values()]
    shape = op.results[0].type.shape
    if len(shape) != 2 or any(value.type.shape != shape for value in arrays.values()):
        return
    if any(reshape is None or reshape.x.type.shape != (1, *shape) for reshape in before):
        return
    copy = op.clone()
    for index, reshape in zip(arrays, before, strict=True):
        if reshape is not None:
            copy.set_operand(index, reshape.x)
    copy.results[0].type = replace(op.results[0].type, shape=(1, *shape))
    rw.insert_before(op, copy)
    rw.replace(op, llm.ReshapeOp(copy.results[0], shape=shape, loc=op.loc))


@rewrite(llm.SliceOp)
def drop_whole_slice(op: llm.SliceOp, rw: Rewriter) -> None:
    """slice(x) of all elements of the axis -> x."""
    if op.y.type == op.x.type:
        rw.replace(op, op.x)


@rewrite(llm.SliceOp)
def merge_slices(op: llm.SliceOp, rw: Rewriter) -> None:
    """slice(slice(x)) along one axis -> slice(x)."""
    before = op.x.defining(llm.SliceOp)
    if before is None or before.axis != op.axis:
        return
    kept = range(before.start, before.stop, before.step)[op.start : op.stop : op.step]
    merged = llm.SliceOp(
        before.x,
        axis=op.axis,
        start=kept.start,
        stop=kept[-1] + 1,
        step=kept.step,
        loc=fused(before.loc, op.loc),
    )
    rw.replace(op, merged)


@rewrite(llm.SliceOp)
def slice_one_part(op: llm.SliceOp, rw: Rewriter) -> None:
    """slice(concat(a, b)) that lies in one part -> slice of that part."""
    joined = op.x.defining(llm.ConcatOp)
    if joined is None or joined.axis != op.axis:
        return
    begin = 0
    for part in joined.parts:
        end = begin + part.type.shape[op.axis]
        if begin <= op.start and op.stop <= end:
            rw.replace(op, shifted(op, part, begin))
            return
        begin = end


def shifted(op: llm.SliceOp, x: Value, by: int) -> llm.SliceOp:
    return llm.SliceOp(x, axis=op.axis, start=op.start - by, stop=op.stop - by, step=op.step, loc=op.loc)


@rewrite(llm.SliceOp)
def slice_before_reshape(op: llm.SliceOp, rw: Rewriter) -> None:
    """slice(reshape(x)) of a last axis that is that of x -> reshape(slice(x)), unless x is one item of some
    other axis: `slice_what_is_split` has that.
    """
    before = op.x.defining(llm.ReshapeOp)
    if before is None or op.axis != len(before.shape) - 1 or before.x.type.shape[-1:] != before.shape[-1:]:
        return
    one = before.x.defining(llm.SliceOp)
    if one is not None and one.axis != op.axis and one.stop - one.start == 1:
        return
    axis = len(before.x.type.shape) - 1
    part = llm.SliceOp(before.x, axis=axis, start=op.start, stop=op.stop, step=op.step, loc=op.loc)
    rw.replace(op, llm.ReshapeOp(rw.insert_before(op, part).y, shape=op.y.type.shape, loc=before.loc))


@rewrite(llm.ReshapeOp)
def slice_what_is_split(op: llm.ReshapeOp, rw: Rewriter) -> None:
    """reshape(slice(reshape(x), one of an axis)) without it -> reshape(slice(reshape(x), a range)), where
    the inner reshape leaves whole what the axis splits: all that a head has of queries, keys and values.
    """
    one = op.x.defining(llm.SliceOp)
    split = one.x.defining(llm.ReshapeOp) if one else None
    if one is None or split is None or one.stop - one.start != 1 or one.axis == len(split.shape) - 1:
        return
    lead, (_, *rest) = split.shape[: one.axis], split.shape[one.axis :]
    size = prod(rest)
    if op.shape[: one.axis] != lead or prod(op.shape[one.axis :]) != size:
        return
    whole = rw.insert_before(
        op, llm.ReshapeOp(split.x, shape=(*lead, prod(split.shape[one.axis :])), loc=split.loc)
    )
    start = one.start * size
    part = llm.SliceOp(whole.y, axis=one.axis, start=start, stop=start + size, loc=one.loc)
    rw.replace(op, llm.ReshapeOp(rw.insert_before(op, part).y, shape=op.shape, loc=op.loc))


@rewrite(llm.ReshapeOp)
def take_one_where_it_lies(op: llm.ReshapeOp, rw: Rewriter) -> None:
    """reshape(slice(permute(x), one of an axis)) without it -> reshape(slice(x, one of that axis)), where the
    permute moves no other axis past another: queries, keys and values that are parted by their first axis.
    """
    one = op.x.defining(llm.SliceOp)
    turned = one.x.defining(llm.PermuteOp) if one else None
    if one is None or turned is None or one.stop - one.start != 1:
        return
    axis = turned.order[one.axis]
    rest = [each for each in turned.order if each != axis]
    if rest == sorted(rest):
        part = llm.SliceOp(turned.x, axis=axis, start=one.start, stop=one.stop, loc=one.loc)
        rw.replace(op, llm.ReshapeOp(rw.insert_before(op, part).y, shape=op.shape, loc=op.loc))


@rewrite(llm.ReshapeOp)
def permute_as_a_batch(op: llm.ReshapeOp, rw: Rewriter) -> None:
    """reshape(permute(x)) with an axis of 1 before all others -> permute(reshape(x))."""
    turned = op.x.defining(llm.PermuteOp)
    if turned is None or op.shape != (1, *turned.y.type.shape):
        return
    batch = rw.insert_before(op, llm.ReshapeOp(turned.x, shape=(1, *turned.x.type.shape), loc=op.loc))
    order = (0, *(axis + 1 for axis in turned.order))
    rw.replace(op, llm.PermuteOp(batch.y, order=order, loc=turned.loc))


@rewrite(llm.ConcatOp)
def drop_single_concat(op: llm.ConcatOp, rw: Rewriter) -> None:
    """concat(x) -> x."""
    if len(op.parts) == 1:
        rw.replace(op, op.parts[0])


@rewrite(llm.LogicalNotOp)
def drop_double_negation(op: llm.LogicalNotOp, rw: Rewriter) -> None:
    """not(not(not(x))) -> not(x): the outer two make a truth value of what is one."""
    inner = op.x.defining(llm.LogicalNotOp)
    innermost = inner.x.defining(llm.LogicalNotOp) if inner is not None else None
    if innermost is not None:
        rw.replace(op, innermost.y)


PATTERNS: list[Pattern] = [
    merge_reshapes,
    project_before_axes_of_one,
    project_joined_heads,
    keep_tokens_on_their_axis,
    merge_permutes,
    drop_whole_slice,
    merge_slices,
    slice_one_part,
    slice_before_reshape,
    slice_what_is_split,
    take_one_where_it_lies,
    permute_as_a_batch,
    drop_single_concat,
    join_inputs,
    drop_double_negation,
]
