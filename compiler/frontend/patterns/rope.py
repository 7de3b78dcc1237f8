"""Rotary position embeddings in the forms that models write them in."""

from __future__ import annotations

from compiler.frontend.patterns.matching import both_orders, last_axis, slice_range, sliced
from compiler.ir.core import Value
from compiler.rewrite import Pattern, Rewriter, rewrite
from dialects import llm


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


def partner_mode(partner: Value, x: Value) -> str | None:
    """How the partner of each element is found, if `partner` is that of `x`."""
    if is_half_partner(partner, x):
        return "half"
    return "interleaved" if is_interleaved_partner(partner, x) else None


def is_half_partner(partner: Value, x: Value) -> bool:
    """concat(-x[R/2:], x[:R/2])"""
    parts = concat_parts(partner)
    negated = parts[0].defining(llm.NegOp) if parts else None
    width = x.type.shape[-1]
    return (
        parts is not None
        and negated is not None
        and slice_range(negated.x, x) == (width // 2, width, 1)
        and slice_range(parts[1], x) == (0, width // 2, 1)
    )


def is_interleaved_partner(partner: Value, x: Value) -> bool:
    """-x[1::2] and x[0::2] stacked along a new last axis, which is then merged into the one before."""
    merged = partner.defining(llm.ReshapeOp)
    parts = concat_parts(merged.x) if merged else None
    if (
        merged is None
        or parts is None
        or merged.x.type.shape != (*x.type.shape[:-1], x.type.shape[-1] // 2, 2)
    ):
        return False
    columns = [part.defining(llm.ReshapeOp) for part in parts]
    if columns[0] is None or columns[1] is None:
        return False
    negated = columns[0].x.defining(llm.NegOp)
    width = x.type.shape[-1]
    return (
        negated is not None
        and every_second(negated.x, x, 1, width)
        and every_second(columns[1].x, x, 0, width)
    )


def every_second(part: Value, x: Value, first: int, width: int) -> bool:
    found = slice_range(part, x)
    return found is not None and (found[0], found[2]) == (first, 2) and found[1] >= width - 1 + first


@rewrite(llm.ConcatOp)
def find_half_tables(op: llm.ConcatOp, rw: Rewriter) -> None:
    """concat(a * cos - b * sin, b * cos + a * sin), a and b the halves of x -> rope {half_tables}."""
    if len(op.parts) != 2 or op.axis != last_axis(op.y):
        return
    difference, total = op.parts[0].defining(llm.SubOp), op.parts[1].defining(llm.AddOp)
    if difference is None or difference.rhs is None or total is None:
        return
    a_cos, b_sin = difference.lhs.defining(llm.MulOp), difference.rhs.defining(llm.MulOp)
    x = sliced(a_cos.lhs) if a_cos else None
    if a_cos is None or b_sin is None or x is None or a_cos.rhs is None or b_sin.rhs is None:
        return
    half = x.type.shape[-1] // 2
    a, cos, b, sin = a_cos.lhs, a_cos.rhs, b_sin.lhs, b_sin.rhs
    if slice_range(a, x) != (0, half, 1) or slice_range(b, x) != (half, 2 * half, 1):
        return
    if is_sum_of_products(total, {(b, cos), (a, sin)}) and fits(x, cos, sin, half):
        rw.replace(op, llm.RopeOp(x, cos, sin, mode="half_tables", rotary_dim=2 * half, loc=op.loc))


def is_sum_of_products(op: llm.AddOp, wanted: set[tuple[Value, Value]]) -> bool:
    products = [value.defining(llm.MulOp) for value in (op.lhs, op.rhs) if value is not None]
    return {(product.lhs, product.rhs) for product in products if product} == wanted


@rewrite(llm.ConcatOp)
def widen_partial_rope(op: llm.ConcatOp, rw: Rewriter) -> None:
    """concat(rope(x[:R]), x[R:]) -> rope(x) {rotary_dim = R}."""
    if len(op.parts) != 2 or op.axis != last_axis(op.y):
        return
    rope = op.parts[0].defining(llm.RopeOp)
    x = sliced(rope.x) if rope else None
    if rope is None or x is None or not rope.y.has_one_use():
        return
    width, rotated = x.type.shape[-1], rope.rotary_dim
    if slice_range(rope.x, x) == (0, rotated, 1) and slice_range(op.parts[1], x) == (rotated, width, 1):
        rw.replace(op, llm.RopeOp(x, rope.cos, rope.sin, mode=rope.mode, rotary_dim=rotated, loc=rope.loc))


def concat_parts(x: Value) -> tuple[Value, Value] | None:
    """The two values joined along the last axis."""
    op = x.defining(llm.ConcatOp)
    if op is None or op.axis != last_axis(x) or len(op.parts) != 2:
        return None
    return op.parts[0], op.parts[1]


def fits(x: Value, cos: Value, sin: Value, width: int | None = None) -> bool:
    """Heads [1, h, S, R] and tables [1, 1, S, width]."""
    shape = x.type.shape
    table = (1, 1, shape[-2], width or shape[-1])
    return len(shape) == 4 and cos.type.shape == table and sin.type.shape == table


PATTERNS: list[Pattern] = [find_rope, find_half_tables, widen_partial_rope]
