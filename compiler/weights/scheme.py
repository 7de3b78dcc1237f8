"""How a weight is stored as codes: one attribute, which belongs to the weight's type."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir.types import BF16, F16, Attribute, ElementType, TensorType, Type, attr_def

IMPLIED_ZERO = {4: 8, 8: 0}  # by bits: the zero point of codes that are stored without
MAX_COLUMNS = 1 << 31


@attr_def("weights.scheme")
@dataclass(frozen=True)
class Scheme(Attribute):
    """A weight [rows, columns] as codes of `bits` bits, with a scale for `group` neighbours along a row.

    weight[n, k] = (code[n, k] - zero[n, k // group]) * scale[n, k // group], rounded once to the element type
    of the weight, which need not be that of the scales.

    Codes of 4 bits are 0 to 15 and those of 8 bits signed. With `zeros` a zero point is stored beside each
    scale; without, it is 8 for 4 bits and 0 for 8.
    """

    bits: int
    group: int
    zeros: bool
    scale: ElementType

    def alias(self) -> str:
        return f"w{self.bits}_{self.group}"

    def problem(self) -> str | None:
        if self.bits not in IMPLIED_ZERO:
            return f"has codes of {self.bits} bits, expected 4 or 8"
        if not 1 <= self.group <= MAX_COLUMNS:
            return f"has groups of {self.group}, expected a number from 1 on"
        if self.bits == 8 and self.zeros:
            return "stores zero points of 8-bit codes: the chip subtracts in 8 bits, which would overflow"
        if self.scale not in (BF16, F16):
            return f"has scales of {self.scale}, expected bf16 or f16, in which the chip decodes"
        return None

    def problem_in(self, shape: tuple[int, ...]) -> str | None:
        if self.problem():
            return self.problem()
        if len(shape) != 2:
            return f"has {len(shape)} axes, where only matrices are stored as codes"
        if shape[1] % self.group:
            return f"has no whole groups: its input axis {shape[1]} is not a multiple of group {self.group}"
        if shape[1] * self.bits % 8:
            return f"has rows of {shape[1]} codes of {self.bits} bits, which do not fill whole bytes"
        return None


def scheme_of(type_: Type) -> Scheme | None:
    """How arrays of this type are stored as codes; None where their items are stored as they are."""
    layout = type_.layout if isinstance(type_, TensorType) else None
    return layout if isinstance(layout, Scheme) else None
