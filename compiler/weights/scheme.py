"""How a weight is stored as codes: one attribute, which belongs to the weight's type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir.types import BF16, F16, Attribute, ElementType, TensorType, Type, attr_def

BITS = (4, 8)
MAX_COLUMNS = 1 << 31


@attr_def("weights.scheme")
@dataclass(frozen=True)
class Scheme(Attribute):
    """A weight [rows, columns] as codes of `bits` bits, with a scale for `group` neighbours along a row.

    weight[n, k] = (code[n, k] - zero[n, k // group]) * scale[n, k // group], rounded once to the element type
    of the weight, which need not be that of the scales. Codes count from 0 on, and beside each scale lies,

    - with `zeros`, a zero point of 8 bits;
    - with `minimum`, what code 0 stands for, in the type of the scale: code * scale + minimum, added in f32;
    - with neither, nothing: 4-bit codes have their zero at 8, and those of 8 bits are signed.

    Source: zero points are those of GPTQ and AWQ, minimums those of GGUF's Q4_1.
    """

    bits: int
    group: int
    zeros: bool
    scale: ElementType
    minimum: bool = False

    def alias(self) -> str:
        return f"w{self.bits}_{self.group}"

    @property
    def signed(self) -> bool:
        """Whether codes are below zero too."""
        return self.bits == 8 and not self.zeros and not self.minimum

    @property
    def codes(self) -> np.dtype[Any]:
        """The type of codes in memory, one in each byte."""
        return np.dtype(np.int8 if self.signed else np.uint8)

    @property
    def highest(self) -> int:
        """The highest code."""
        return 127 if self.signed else (1 << self.bits) - 1

    @property
    def implied_zero(self) -> int:
        """The zero point of all groups where none is stored."""
        return 8 if self.bits == 4 and not self.minimum else 0

    def problem(self) -> str | None:
        if self.bits not in BITS:
            return f"has codes of {self.bits} bits, expected 4 or 8"
        if not 1 <= self.group <= MAX_COLUMNS:
            return f"has groups of {self.group}, expected a number from 1 on"
        if self.zeros and self.minimum:
            return "has both zero points and minimums"
        if self.scale not in (BF16, F16):
            return f"has scales of {self.scale}, expected bf16 or f16, in which the chip decodes"
        return None

    def problem_in(self, shape: tuple[int, ...]) -> str | None:
        if self.problem():
            return self.problem()
        if len(shape) not in (2, 3):
            return f"has {len(shape)} axes, where only matrices, and stacks of them, are stored as codes"
        if shape[-1] % self.group:
            return f"has no whole groups: its input axis {shape[-1]} is not a multiple of group {self.group}"
        if shape[-1] * self.bits % 8:
            return f"has rows of {shape[-1]} codes of {self.bits} bits, which do not fill whole bytes"
        return None


def scheme_of(type_: Type) -> Scheme | None:
    """How arrays of this type are stored as codes; None where their items are stored as they are."""
    layout = type_.layout if isinstance(type_, TensorType) else None
    return layout if isinstance(layout, Scheme) else None
