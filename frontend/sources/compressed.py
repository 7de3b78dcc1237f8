"""What compressed-tensors 0.20 packs in its format pack-quantized: a stream of bits along the inputs of an
output, and zero points along the outputs of a group. Codes are stored plus the middle of their range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.weights.stored import Array
from frontend.sources.gptq import shuffled
from frontend.sources.module import SCALES, Module, Odd
from frontend.sources.packed import MIDDLE, PackedLinear
from frontend.sources.words import WORD, fields, transposed

NEEDS = ("weight_packed", "weight_scale")


@dataclass(frozen=True)
class CompressedLinear(PackedLinear):
    """weight_packed [outputs, inputs * bits / 32], weight_scale [outputs, groups], weight_zero_point
    [outputs * bits / 32, groups] or, in int8 and unpacked, [outputs, groups]; none where all are the middle.
    """

    def codes(self) -> Array:
        return fields(self.words.read(), self.bits)[:, : self.shape[1]]

    def zero_points(self) -> Array:
        assert self.zeros is not None
        values = self.zeros.read()
        if values.dtype == np.int8:
            return (values + MIDDLE[self.bits]).astype(np.uint8)
        return transposed(fields(transposed(values), self.bits)[:, : self.shape[0]])

    def scale_rows(self) -> Array:
        return self.scales.read()


def compressed_linear(module: Module) -> CompressedLinear:
    (outputs, columns), (_, groups) = module.shape("weight_packed"), module.shape("weight_scale")
    inputs = inputs_of(module, outputs)
    bits = next((bits for bits in MIDDLE if columns == words_for(inputs, bits)), None)
    if bits is None:
        expected = f"4 or 8 bits for each of {inputs} inputs"
        raise Odd(f"{module.name}.weight_packed: expected {expected}, found {columns} words")
    module.expect("weight_packed", (outputs, columns), "int32")
    module.expect("weight_scale", (outputs, groups), *SCALES)
    group = module.group(inputs, groups, "weight_scale")
    zeros = module.tensors.get("weight_zero_point")
    if zeros is not None:
        rows = outputs if zeros.dtype == np.int8 else words_for(outputs, bits)
        module.expect("weight_zero_point", (rows, groups), "int32", "int8")
    g_idx = shuffled(module, "weight_g_idx", inputs, group)
    words, scales = (module.tensors[name] for name in NEEDS)
    return CompressedLinear(words, scales, zeros, (outputs, inputs), bits, group, g_idx)


def inputs_of(module: Module, outputs: int) -> int:
    """By weight_shape: the last word of a row may have room left."""
    if "weight_shape" not in module.tensors:
        raise Odd(f"{module.name}.weight_shape: expected beside weight_packed, found none")
    module.expect("weight_shape", (2,), "int64", "int32")
    rows, inputs = map(int, module.tensors["weight_shape"].read())
    if rows != outputs or not 0 < inputs < 1 << 31:
        raise Odd(f"{module.name}.weight_shape: expected {outputs} rows, found {rows} x {inputs}")
    return inputs


def words_for(count: int, bits: int) -> int:
    return -(-count * bits // WORD)
