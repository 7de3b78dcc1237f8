"""Rotary position embeddings in the forms that models write them in."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir.core import Value
from compiler.ir.module import Module
from compiler.ir.rewrite import Pattern, Rewriter, apply_patterns, rewrite
from dialects import llm
from dialects.contents import Content
from passes.llm.matching import Region, both_orders, concat_parts, region, value_of
from passes.manager import Pass


@rewrite(llm.AddOp)
def find_rope(op: llm.AddOp, rw: Rewriter) -> None:
    """x * cos + partner(x) * sin -> rope(x, cos, sin), the partner telling half from interleaved."""
    for first, second in both_orders(op):
        cosine, sine = first.defining(llm.MulOp), second.defining(llm.MulOp)
        if cosine is None or sine is None:
            continue
        for x, cos in both_orders(cosine):
            for partner, sin in both_orders(sine):
                mode = partner_mode(partner, x)
                if mode and fits(x, cos, sin):
                    width = x.type.shape[-1]
                    rw.replace(op, llm.RopeOp(x, cos, sin, mode=mode, rotary_dim=width, loc=op.loc))
                    return
                if mode and fits_tokens_first(x, cos, sin):
                    rw.replace(op, rope_of_tokens_first(op, x, (cos, sin), mode, rw))
                    return


def fits_tokens_first(x: Value, cos: Value, sin: Value) -> bool:
    """Heads [S, h, R] and tables [S, 1, R]."""
    shape = x.type.shape
    return len(shape) == 3 and cos.type.shape == sin.type.shape == (shape[0], 1, shape[2])


def rope_of_tokens_first(
    op: llm.AddOp, x: Value, tables: tuple[Value, Value], mode: str, rw: Rewriter
) -> llm.ReshapeOp:
    """reshape(permute(rope(permute(reshape(x))))): heads before tokens, as attention has them."""
    tokens, heads, width = x.type.shape

    def reshaped(value: Value, *shape: int) -> Value:
        return rw.insert_before(op, llm.ReshapeOp(value, shape=shape, loc=op.loc)).y

    def turned(value: Value) -> Value:
        return rw.insert_before(op, llm.PermuteOp(value, order=(0, 2, 1, 3), loc=op.loc)).y

    cos, sin = (reshaped(table, 1, 1, tokens, width) for table in tables)
    rows = turned(reshaped(x, 1, tokens, heads, width))
    rope = llm.RopeOp(rows, cos, sin, mode=mode, rotary_dim=width, loc=op.loc)
    return llm.ReshapeOp(turned(rw.insert_before(op, rope).y), shape=x.type.shape, loc=op.loc)


def partner_mode(partner: Value, x: Value) -> str | None:
    """How the partner of each element is found, if `partner` is that of `x`."""
    if is_half_partner(partner, x):
        return "half"
    return "interleaved" if is_interleaved_partner(partner, x) else None


def is_half_partner(partner: Value, x: Value) -> bool:
    """concat(-x[R/2:], x[:R/2])"""
    parts = concat_parts(partner)
    negated = parts[0].defining(llm.NegOp) if parts else None
    whole, half = region(x), x.type.shape[-1] // 2
    return (
        parts is not None
        and negated is not None
        and whole.step == 1
        and region(negated.x) == whole.part(half, 2 * half)
        and region(parts[1]) == whole.part(0, half)
    )


def is_interleaved_partner(partner: Value, x: Value) -> bool:
    """-x[1::2] and x[0::2] stacked along a new last axis, which is then merged into the one before."""
    merged = partner.defining(llm.ReshapeOp)
    pairs = (*x.type.shape[:-1], x.type.shape[-1] // 2, 2)
    parts = concat_parts(merged.x) if merged and merged.x.type.shape == pairs else None
    if parts is None:
        return False
    odd, even = (part.defining(llm.ReshapeOp) for part in parts)
    negated = odd.x.defining(llm.NegOp) if odd else None
    whole, width = region(x), x.type.shape[-1]
    return (
        even is not None
        and negated is not None
        and whole.step == 1
        and region(negated.x) == whole.part(1, width, 2)
        and region(even.x) == whole.part(0, width - 1, 2)
    )


@rewrite(llm.ConcatOp)
def find_half_tables(op: llm.ConcatOp, rw: Rewriter) -> None:
    """concat(a * cos - b * sin, b * cos + a * sin) -> rope(x) {half_tables}, a and b the halves of x, or
    {pairs_to_halves}, a and b its even and odd items.
    """
    parts = concat_parts(op.y)
    difference = parts[0].defining(llm.SubOp) if parts else None
    total = parts[1].defining(llm.AddOp) if parts else None
    products = [product(difference.lhs), product(difference.rhs)] if difference else []
    if total is None or len(products) != 2 or products[0] is None or products[1] is None:
        return
    (a, cos), (b, sin) = products[0], products[1]
    x, half = both_of(region(a), region(b)), a.type.shape[-1]
    if x is None or {product(total.lhs), product(total.rhs)} != {(b, cos), (a, sin)}:
        return
    if fits(op.y, cos, sin, half):
        mode = "half_tables" if region(a).step == 1 else "pairs_to_halves"
        heads = value_of(x, op, rw)
        rw.replace(op, llm.RopeOp(heads, cos, sin, mode=mode, rotary_dim=2 * half, loc=op.loc))


def both_of(a: Region, b: Region) -> Region | None:
    """What a and b are the halves of; or what they are the even and the odd items of."""
    if a.step == 1 and b == a.part(a.width, 2 * a.width):
        return a.reaches(b.stop)
    if a.step == 2 and b == a.part(1, a.stop - a.start + 1, 2):
        return a.reaches(b.stop)
    return None


def product(x: Value | None) -> tuple[Value, Value] | None:
    """The two factors of `x`."""
    op = x.defining(llm.MulOp) if x is not None else None
    return (op.lhs, op.rhs) if op is not None and op.rhs is not None else None


@rewrite(llm.ConcatOp)
def widen_partial_rope(op: llm.ConcatOp, rw: Rewriter) -> None:
    """concat(rope(x[:R]), x[R:]) -> rope(x) {rotary_dim = R}; x may itself be a slice of something."""
    parts = concat_parts(op.y)
    rope = parts[0].defining(llm.RopeOp) if parts else None
    if parts is None or rope is None or not rope.y.has_one_use():
        return
    rotated, rest = region(rope.x), region(parts[1])
    if rest != rotated.part(rotated.width, rotated.width + rest.width) or rotated.step != 1:
        return
    x = value_of(rotated.reaches(rest.stop), op, rw)
    wide = llm.RopeOp(x, rope.cos, rope.sin, mode=rope.mode, rotary_dim=rope.rotary_dim, loc=rope.loc)
    rw.replace(op, wide)


@rewrite(llm.RopeOp)
def find_parted_pairs(op: llm.RopeOp, rw: Rewriter) -> None:
    """rope(x with the even items of each head before the odd ones) {half} -> rope(x) {pairs_to_halves}."""
    joined = op.x.defining(llm.ReshapeOp)
    parted = joined.x.defining(llm.PermuteOp) if joined else None
    pairs = parted.x.defining(llm.ReshapeOp) if parted else None
    *lead, width = op.x.type.shape
    if parted is None or pairs is None or op.mode != "half" or op.rotary_dim != width:
        return
    if (parted.order, pairs.shape) != ((0, 1, 2, 4, 3), (*lead, width // 2, 2)):
        return
    x = rw.insert_before(op, llm.ReshapeOp(pairs.x, shape=op.x.type.shape, loc=pairs.loc)).y
    rw.replace(op, llm.RopeOp(x, op.cos, op.sin, mode="pairs_to_halves", rotary_dim=width, loc=op.loc))


def fits(x: Value, cos: Value, sin: Value, width: int | None = None) -> bool:
    """Heads [1, h, S, R] and tables [1, 1, S, width]."""
    shape = x.type.shape
    table = (1, 1, shape[-2], width or shape[-1])
    return len(shape) == 4 and cos.type.shape == table and sin.type.shape == table


PATTERNS: list[Pattern] = [find_rope, find_half_tables, find_parted_pairs, widen_partial_rope]


@dataclass(frozen=True)
class RecognizeRope(Pass):
    """llm -> llm. Products with cosines and sines become rotary embeddings.

    What is computed is matched, in the forms that models write it in. Expects canonical IR, in which a value
    is computed once and slices are in their shortest form.
    """

    name = "recognize-rope"
    takes = Content.LLM

    def run(self, module: Module) -> None:
        apply_patterns(module, PATTERNS)
