"""What a checkpoint's configuration says of how weights are stored; what is not supported is refused here.

The weights themselves are told by their tensors, module by module: mixed checkpoints need no rules. What the
tensors do not tell is taken from here, and what they tell otherwise is noted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compiler.diagnostics import UserError, shown
from compiler.files import checkpoint_root, read_json_object

CONFIG_KEYS = ("quantization_config", "compression_config")
# Written by AutoGPTQ, AutoAWQ, AutoRound and ModelOpt beside config.json; the method where a file names none.
QUANTIZER_FILES = {
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
    "quantization_config.json": "",
    "hf_quant_config.json": "modelopt",
}


@dataclass(frozen=True)
class Settings:
    """What one object of settings says; None where it says nothing, or something else for some modules."""

    path: Path
    method: str  # as messages name it
    bits: int | None = None
    group: int | None = None  # weights that share a scale; 0 for a whole row
    zero_shift: int = 0  # what was subtracted from zero points before they were stored
    block: tuple[int, int] | None = None  # of floats that share a scale


def read_settings(folder: Path, config: Mapping[str, Any]) -> Settings | None:
    """Those of a folder with that config.json; None where its weights are floats.

    UserError names a method, packing or width that is not supported, and where that is said.
    """
    for path, values, method in _found(folder, config):
        return _Reader(path, values).read(str(values.get("quant_method") or method))
    return None


def _found(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[Path, Mapping[str, Any], str]]:
    for key in CONFIG_KEYS:
        values = config.get(key)
        if values:
            path = folder / "config.json"
            if not isinstance(values, dict):
                raise UserError(f"{path}: {key} is {shown(str(values))}, expected an object")
            yield path, values, "compressed-tensors" if "config_groups" in values else ""
    for name, method in QUANTIZER_FILES.items():
        if os.path.lexists(folder / name):
            yield folder / name, read_json_object(folder / name, checkpoint_root(folder)), method


class _Reader:
    """One object of settings, read by the rules of its method."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def read(self, method: str) -> Settings:
        read = METHODS.get(method)
        if read is None:
            known = ", ".join(METHODS)
            raise self.refusal(
                f"weights quantized by '{shown(method)}' are not supported, those by {known} are\n"
                "or give the float checkpoint they were made from: -q quantizes it"
            )
        settings = read(self)
        self.check_activations(self.values)
        mixed = any(self.values.get(key) for key in ("dynamic", "extra_config"))
        return replace(settings, bits=None, group=None) if mixed else settings

    def refusal(self, problem: str) -> UserError:
        return UserError(f"{self.path}: {problem}")

    def word(self, *keys: str, default: str = "") -> str:
        """A word by the first of the keys that has one, in lower case."""
        found = next((self.values[key] for key in keys if self.values.get(key)), default)
        if not isinstance(found, str):
            raise self.refusal(f"{keys[0]} is {shown(str(found))}, expected a word")
        return found.lower()

    def number(self, values: Mapping[str, Any], *keys: str) -> int | None:
        for key in keys:
            found = values.get(key)
            if found is not None and (not isinstance(found, int) or isinstance(found, bool)):
                raise self.refusal(f"{key} is {shown(str(found))}, expected a whole number")
            if found is not None:
                return found
        return None

    def bits(self, values: Mapping[str, Any], *known: int) -> int | None:
        found = self.number(values, "bits", "w_bit", "num_bits")
        if found is not None and found not in known:
            listed = " and ".join(map(str, known))
            raise self.refusal(f"weights of {found} bits are not supported, those of {listed} bits are")
        return found

    def group(self, values: Mapping[str, Any]) -> int | None:
        found = self.number(values, "group_size", "q_group_size")
        return found if found is None else max(found, 0)  # -1 for a whole row

    def one_of(self, what: str, found: str, *known: str) -> str:
        if found not in known:
            listed = ", ".join(word for word in known if word)
            raise self.refusal(f"{what} '{shown(found)}' is not supported\nsupported: {listed}")
        return found

    def check_activations(self, values: Mapping[str, Any]) -> None:
        bits = self.number(values, "act_bits")
        if bits is not None and bits < 16:
            raise self.refusal(f"activations of {bits} bits are not supported: only weights may be quantized")


def awq(reader: _Reader) -> Settings:
    """AutoAWQ, or GPTQModel with method awq."""
    reader.one_of("AWQ version", reader.word("version", "format", default="gemm"), "gemm")
    bits, group = reader.bits(reader.values, 4), reader.group(reader.values)
    return Settings(reader.path, "awq", bits, group)


def gptq(reader: _Reader) -> Settings:
    """AutoGPTQ and GPTQModel."""
    known = ("gptq", "gptq_v2")
    form = reader.one_of("GPTQ format", reader.word("checkpoint_format", "format", default="gptq"), *known)
    if reader.values.get("is_marlin_format"):
        raise reader.refusal("GPTQ format 'marlin' is not supported\nsupported: gptq, gptq_v2")
    reader.one_of("pack_dtype", reader.word("pack_dtype", default="int32"), "int32")
    bits, group = reader.bits(reader.values, 4, 8), reader.group(reader.values)
    return Settings(reader.path, "gptq", bits, group, zero_shift=int(form == "gptq"))


PACKING_FORMATS = {  # of AutoRound: which of the other quantizers' packings it wrote
    "auto_round:auto_gptq": ("gptq", 1),
    "auto_round:gptqmodel": ("gptq", 0),
    "auto_round": ("gptq", 0),
    "auto_round:auto_awq": ("awq", 0),
}


def auto_round(reader: _Reader) -> Settings:
    """AutoRound's own format."""
    reader.one_of("data_type", reader.word("data_type", default="int"), "int")
    form = reader.word("packing_format", default="auto_round:auto_gptq")
    packing, shift = PACKING_FORMATS[reader.one_of("packing_format", form, *PACKING_FORMATS)]
    bits = reader.bits(reader.values, *((4, 8) if packing == "gptq" else (4,)))
    return Settings(reader.path, "auto-round", bits, reader.group(reader.values), zero_shift=shift)


def compressed_tensors(reader: _Reader) -> Settings:
    """llm-compressor."""
    known = ("pack-quantized", "float-quantized")
    form = reader.one_of("compressed-tensors format", reader.word("format"), *known)
    sparsity = reader.values.get("sparsity_config")
    if isinstance(sparsity, dict) and sparsity.get("format", "dense") != "dense":
        raise reader.refusal(f"sparsity_config is not supported: {shown(str(sparsity))}")
    if reader.values.get("transform_config"):
        raise reader.refusal("transform_config, weights that are turned before use, is not supported")
    groups = reader.values.get("config_groups")
    if not isinstance(groups, dict) or not all(isinstance(group, dict) for group in groups.values()):
        raise reader.refusal("config_groups is not an object of groups")
    said = {_weights_of(reader, form, group) for group in groups.values()}
    bits, group = said.pop() if len(said) == 1 else (None, None)
    return Settings(reader.path, "compressed-tensors", bits, group)


def _weights_of(reader: _Reader, form: str, group: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Bits and group of one of the config_groups."""
    for key in ("input_activations", "output_activations"):
        if group.get(key):
            raise reader.refusal(f"{key} are quantized, which is not supported: only weights may be")
    weights = group.get("weights")
    if not isinstance(weights, dict):
        raise reader.refusal("a group of config_groups has no weights")
    kind = str(weights.get("type", "int"))
    reader.one_of("the type of weights", kind, "int" if form == "pack-quantized" else "float")
    strategy = str(weights.get("strategy") or "group")
    reader.one_of("the strategy of weights", strategy, "group", "channel", "tensor", "block")
    size = reader.group(weights) if strategy == "group" else 0
    return reader.bits(weights, *((4, 8) if kind == "int" else (8,))), size


def fp8(reader: _Reader) -> Settings:
    """Floats of 8 bits with a scale for each block, or for all."""
    block = reader.values.get("weight_block_size")
    if block is None:
        return Settings(reader.path, "fp8")
    numbers = isinstance(block, list) and all(isinstance(size, int) and size > 0 for size in block)
    if not numbers or len(block) != 2:
        raise reader.refusal(f"weight_block_size is {shown(str(block))}, expected two numbers")
    return Settings(reader.path, "fp8", block=(block[0], block[1]))


METHODS: dict[str, Callable[[_Reader], Settings]] = {
    "awq": awq,
    "gptq": gptq,
    "auto-round": auto_round,
    "compressed-tensors": compressed_tensors,
    "fp8": fp8,
}
