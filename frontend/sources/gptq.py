"""What AutoGPTQ and GPTQModel pack, and others after them: words hold 32 / bits inputs of one output.

Zero points are stored less one in the first version of the format, and as they are in the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.weights.stored import Array
from frontend.checkpoint import StoredTensor
from frontend.sources.module import SCALES, Module, Odd
from frontend.sources.packed import PackedLinear
from frontend.sources.words import WORD, fields, transposed

NEEDS = ("qweight", "qzeros", "scales")
MOST_INPUTS = 1 << 16  # what a program counts in 16 bits
ALL_ONES = {4: 0x11111111, 8: 0x01010101}  # by bits: one in each field of a word


@dataclass(frozen=True)
class GptqLinear(PackedLinear):
    """qweight [inputs * bits / 32, outputs], qzeros [groups, outputs * bits / 32], scales [groups, outputs],
    g_idx [inputs] with the group of each input.
    """

    zero_shift: int = 1  # what was subtracted from zero points

    def codes(self) -> Array:
        return fields(transposed(self.words.read()), self.bits)

    def zero_points(self) -> Array:
        """Of the two ways to subtract one from fields, that from the word as a whole is undone here: it
        borrows from the next field where a zero point is 0. See `is_ambiguous`.
        """
        assert self.zeros is not None
        words = self.zeros.read().view(np.uint32) + np.uint32(ALL_ONES[self.bits] * self.zero_shift)
        return transposed(fields(words, self.bits))

    def scale_rows(self) -> Array:
        return transposed(self.scales.read())

    def is_ambiguous(self) -> bool:
        """Whether a stored field is all ones, which writers that subtract from each field by itself, and
        writers that subtract from words, mean different zero points by.
        """
        assert self.zeros is not None
        return bool(self.zero_shift and (fields(self.zeros.read(), self.bits) == (1 << self.bits) - 1).any())


def fits(module: Module) -> bool:
    """Whether words go along the inputs, by shapes alone."""
    return module.shape("qweight")[1] == module.shape("scales")[1]


def gptq_linear(module: Module) -> GptqLinear:
    (rows, outputs), (groups, _) = module.shape("qweight"), module.shape("scales")
    bits = bits_of(module, outputs)
    inputs = rows * WORD // bits
    module.expect("qweight", (rows, outputs), "int32")
    module.expect("qzeros", (groups, outputs * bits // WORD), "int32")
    module.expect("scales", (groups, outputs), *SCALES)
    group = module.group(inputs, groups, "scales")
    g_idx = shuffled(module, "g_idx", inputs, group)
    words, zeros, scales = (module.tensors[name] for name in NEEDS)
    shift = 1 if module.settings is None else module.settings.zero_shift
    return GptqLinear(words, scales, zeros, (outputs, inputs), bits, group, g_idx, zero_shift=shift)


def bits_of(module: Module, outputs: int) -> int:
    """The width of a code, by how many words the zero points of all outputs take."""
    width = module.shape("qzeros")[1] * WORD
    bits, rest = divmod(width, outputs)
    if rest or bits not in ALL_ONES:
        found = f"{width / outputs:g}"
        raise Odd(f"{module.name}.qzeros: expected 4 or 8 bits for each of {outputs} outputs, found {found}")
    return bits


def shuffled(module: Module, suffix: str, inputs: int, group: int) -> StoredTensor | None:
    """The group of each input where they do not come one after the other, by the tensor of that name."""
    g_idx = module.tensors.get(suffix)
    if g_idx is None:
        return None
    module.expect(suffix, (inputs,), "int32", "int64")
    found, in_order = g_idx.read(), np.arange(inputs) // group
    if np.array_equal(found, in_order):
        return None
    if inputs > MOST_INPUTS or not np.array_equal(np.sort(found), in_order):
        few = f"in groups of {group}, of at most {MOST_INPUTS}"
        raise Odd(f"{module.name}.{suffix}: expected each of {inputs} inputs {few}, found others")
    return g_idx
