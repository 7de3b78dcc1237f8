"""How large pictures may be, of a tower that takes them of any size."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from compiler.client_nets import VIT
from compiler.diagnostics import UserError, log
from compiler.ir.types import TensorType, Type
from dialects.nets import net_of
from frontend.imported import ImportedModel
from frontend.streams import told_apart
from frontend.towers import cell_side, patch_weight, takes_grid

DEFAULT_PIXELS = (672, 896)  # of Qwen2.5-VL in the vendor's llm_convert.py
MOST_PATCHES = 1 << 16  # numbers of table rows are counted in so many


def patches_within(model: Any, pixels: Sequence[int]) -> int:
    """The patches of pictures of at most so many pixels: a number, or height and width, of which each is
    rounded as the model's processor does; 0 for a model whose pictures are all of one size, or that has none.
    """
    given = ",".join(map(str, pixels))
    if not takes_grid(model):
        if pixels:
            raise UserError(f"--max_pixels {given}: the model takes no pictures of any size; leave it out")
        return 0
    side = cell_side(model)
    unit = side * patch_weight(model).shape[-1]
    sizes = [max(round(size / unit), 1) * unit for size in pixels or DEFAULT_PIXELS]
    if len(sizes) == 1:
        sizes = [pixels[0] // unit**2 * unit**2]
    patches: int = prod(sizes) // unit**2 * side**2
    least = told_apart(2).shape[1] + 1
    if not least <= patches <= MOST_PATCHES:
        bounds = " to ".join(str(count * unit**2 // side**2) for count in (least, MOST_PATCHES))
        raise UserError(f"--max_pixels {given}: expected {bounds} pixels")
    if pixels and sizes != list(pixels):
        rounded = ",".join(map(str, sizes))
        log.warning("--max_pixels %s is taken as %s: a token is %d x %d pixels", given, rounded, unit, unit)
    return patches


def check_prompt(model: ImportedModel, input_length: int) -> None:
    """Refuse lengths of a prompt that have no room for a picture and a word."""
    for group in model.nets:
        for function in group.module.functions():
            if net_of(function).name == VIT:
                check_room(function.function_type.results[0], input_length)


def check_room(features: Type, input_length: int) -> None:
    assert isinstance(features, TensorType)
    tokens = features.shape[0]
    if tokens >= input_length:
        raise UserError(
            f"a picture is up to {tokens} tokens, and a prompt has room for {input_length}\n"
            "give a larger -s (or --max_input_length), or pictures of any size a smaller --max_pixels"
        )
