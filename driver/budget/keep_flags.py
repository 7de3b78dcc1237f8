"""Bits of linears as flags say them: in few patterns."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from glob import escape
from itertools import groupby

from driver.options import ConvertOptions
from driver.precision import Linear
from driver.rules import BITS


def flags_for(chosen: Sequence[tuple[Linear, int]]) -> tuple[int | None, list[str]]:
    """The value of --lm_head_quantize, None where no bits outside of layers are chosen, and those of --keep.

    A pattern may also be the name of what is not chosen: flags that speak of that come behind these.
    """
    outside = [(linear.module, bits) for linear, bits in chosen if not linear.in_layer]
    widths = {bits for _, bits in outside}
    head = widths.pop() if len(widths) == 1 else None
    keep = [] if head is not None else [f"{escape(name)}={bits}" for name, bits in outside]
    layers: dict[tuple[str, str], dict[int, int]] = {}
    for linear, bits in chosen:
        if linear.in_layer:
            before, number, behind = parts_of(linear)
            layers.setdefault((before, behind), {})[number] = bits
    for (before, behind), found in layers.items():
        keep += [f"{escape(before)}{numbers}{escape(behind)}={bits}" for numbers, bits in shortest(found)]
    return head, keep


def parts_of(linear: Linear) -> tuple[str, int, str]:
    """A module's name before and behind the number of its layer, and that."""
    number, prefix = linear.instance.layer, linear.instance.prefix
    assert number is not None
    assert linear.module.startswith(prefix)
    before, _, _ = prefix.rpartition(f"{number}.")
    return before, number, linear.module[len(prefix) - 1 :]


def shortest(layers: Mapping[int, int]) -> list[tuple[str, int]]:
    """Patterns of numbers and their bits, of which the last counts; none where all have the least."""
    return min(([*with_base(layers, base)] for base in BITS), key=len)


def with_base(layers: Mapping[int, int], base: int) -> Iterator[tuple[str, int]]:
    if base != BITS[0]:
        yield "*", base
    for bits in BITS:
        if bits != base:
            yield from ((text, bits) for text in patterns(n for n, each in layers.items() if each == bits))


def patterns(numbers: Iterable[int]) -> Iterator[str]:
    """One for each ten, as "1[0247]"."""
    for tens, same in groupby(sorted(numbers), lambda number: number // 10):
        digits = "".join(str(number % 10) for number in same)
        yield f"{tens or ''}{digits if len(digits) == 1 else f'[{digits}]'}"


def text_of(options: ConvertOptions) -> str:
    """The flags for a shell."""
    head = [] if options.lm_head_quantize == 16 else ["--lm_head_quantize", str(options.lm_head_quantize)]
    keep = [word for each in options.keep or () for word in ("--keep", each)]
    return shlex.join([*head, *keep]) or "-q alone"
