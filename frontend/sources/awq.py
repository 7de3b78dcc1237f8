"""What AutoAWQ 0.2 packs in format gemm: a word holds eight outputs of one input, in an order of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.weights.stored import Array
from frontend.sources.module import SCALES, Module, Odd
from frontend.sources.packed import PackedLinear
from frontend.sources.words import transposed

NEEDS = ("qweight", "qzeros", "scales")
PER_WORD = 8
FIELD_OF = (0, 4, 1, 5, 2, 6, 3, 7)  # of each of eight outputs, counted from the lowest bits


@dataclass(frozen=True)
class AwqLinear(PackedLinear):
    """qweight [inputs, outputs / 8], qzeros [groups, outputs / 8], scales [groups, outputs]."""

    def codes(self) -> Array:
        return by_output(self.words.read())

    def zero_points(self) -> Array:
        assert self.zeros is not None
        return by_output(self.zeros.read())

    def scale_rows(self) -> Array:
        return transposed(self.scales.read())


def fits(module: Module) -> bool:
    """Whether words go along the outputs, by shapes alone."""
    return module.shape("qweight")[1] * PER_WORD == module.shape("scales")[1]


def awq_linear(module: Module) -> AwqLinear:
    (inputs, columns), (groups, outputs) = module.shape("qweight"), module.shape("scales")
    module.expect("qweight", (inputs, columns), "int32")
    module.expect("qzeros", (groups, columns), "int32")
    module.expect("scales", (groups, outputs), *SCALES)
    if "g_idx" in module.tensors:
        raise Odd(f"{module.name}.g_idx: expected none beside the words of AWQ")
    words, zeros, scales = (module.tensors[name] for name in NEEDS)
    return AwqLinear(words, scales, zeros, (outputs, inputs), 4, module.group(inputs, groups, "scales"))


def by_output(words: Array) -> Array:
    """[n, outputs / 8] to uint8 [outputs, n]."""
    columns = transposed(words).view(np.uint32)
    codes = np.empty((len(columns), PER_WORD, columns.shape[1]), np.uint8)
    for output, field in enumerate(FIELD_OF):
        codes[:, output] = columns >> 4 * field & 15
    return codes.reshape(-1, columns.shape[1])
