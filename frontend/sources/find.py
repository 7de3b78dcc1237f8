"""The sources of a checkpoint's parameters: its tensors, and what modules of several tensors pack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from compiler.diagnostics import log
from compiler.ir.types import ElementType
from frontend.checkpoint import StoredTensor
from frontend.sources import awq, compressed, gptq, scaled
from frontend.sources.gptq import GptqLinear
from frontend.sources.module import Module, Odd
from frontend.sources.packed import PackedLinear
from frontend.sources.settings import Settings
from frontend.sources.source import Source


class Packing(NamedTuple):
    """How a module that has the tensors `needs` may be stored."""

    needs: tuple[str, ...]
    fits: Callable[[Module], bool]
    make: Callable[[Module], Source]
    takes: tuple[str, ...] = ()  # other tensors that it reads, or that have no use here


def always(module: Module) -> bool:
    return True


FP8_EXTRAS = ("input_scale", "output_scale")  # for activations of 8 bits; ours have 16
PACKINGS = (
    Packing(awq.NEEDS, awq.fits, awq.awq_linear),
    Packing(gptq.NEEDS, gptq.fits, gptq.gptq_linear, ("g_idx",)),
    Packing(
        compressed.NEEDS,
        always,
        compressed.compressed_linear,
        ("weight_shape", "weight_zero_point", "weight_g_idx"),
    ),
    Packing(("weight", "weight_scale_inv"), scaled.fits, scaled.block_scaled, FP8_EXTRAS),
    Packing(("weight", "weight_scale"), scaled.fits, scaled.scaled, FP8_EXTRAS),
)
MARKS = {name: packing.needs for packing in PACKINGS for name in packing.needs if name != "weight"}
MARKS.pop("scales")  # also what some models call a parameter


@dataclass
class Found:
    """Sources by key, "MODULE.weight" for a packed module, and what is wrong with others by such a key."""

    sources: dict[str, Source] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def packed(self) -> dict[str, PackedLinear]:
        return {key: source for key, source in self.sources.items() if isinstance(source, PackedLinear)}


def find_sources(tensors: Mapping[str, StoredTensor], settings: Settings | None) -> Found:
    """What the tensors of a checkpoint are the parameters of, by names and shapes: few values are read.

    A module is known by its tensors, so that one which a quantizer kept in 16 bits needs no rule.
    """
    found = Found()
    for name, parts in _modules(tensors).items():
        left = _add_packed(found, Module(name, parts, settings)) if MARKS.keys() & parts.keys() else parts
        found.sources |= {f"{name}.{last}".removeprefix("."): tensor for last, tensor in left.items()}
    return found


def _modules(tensors: Mapping[str, StoredTensor]) -> dict[str, dict[str, StoredTensor]]:
    """Tensors by module, and there by the last part of their keys."""
    modules: dict[str, dict[str, StoredTensor]] = {}
    for key, tensor in tensors.items():
        name, _, last = key.rpartition(".")
        modules.setdefault(name, {})[last] = tensor
    return modules


def _add_packed(found: Found, module: Module) -> Mapping[str, StoredTensor]:
    """Add the source that a module's tensors make; returns those that are left."""
    try:
        packing = packing_of(module)
        found.sources[f"{module.name}.weight"] = packing.make(module)
    except Odd as problem:
        found.problems[f"{module.name}.weight"] = str(problem)
        return {}
    taken = {*packing.needs, *packing.takes}
    return {name: tensor for name, tensor in module.tensors.items() if name not in taken}


def packing_of(module: Module) -> Packing:
    near = [packing for packing in PACKINGS if module.tensors.keys() >= set(packing.needs)]
    if not near:
        mark = next(name for name in module.tensors if name in MARKS)
        lacking = next(name for name in MARKS[mark] if name not in module.tensors)
        raise Odd(f"{module.name}.{lacking}: expected beside {mark}, found none")
    for packing in near:
        if packing.fits(module):
            return packing
    tensors = {name: module.tensors[name] for name in near[0].needs}
    shapes = ", ".join(f"{name} {each.dtype.name} {list(each.shape)}" for name, each in tensors.items())
    kinds = "AWQ gemm or GPTQ" if "qweight" in module.tensors else "floats of 8 bits"
    raise Odd(f"{module.name}.{near[0].needs[0]}: expected {kinds}, found {shapes}")


def take_over(found: Found, settings: Settings | None, half: ElementType) -> dict[str, Source]:
    """The sources as a program in `half` stores them, with notes on what that changes.

    Zero points are left out where all weights of that many bits do without, so that layers stay alike.
    """
    packed = found.packed
    zeros = {linear.bits for linear in packed.values() if linear.needs_zeros()}
    if settings is not None:
        note_difference(packed, settings)
    note_ambiguous(packed)
    note_rounded(packed, half)
    taken = {key: linear.taken(linear.bits in zeros, half) for key, linear in packed.items()}
    for key, linear in taken.items():
        if problem := linear.scheme.problem():
            found.problems[key] = f"{linear.key}: it {problem}"
    return {**found.sources, **taken}


def note_difference(packed: Mapping[str, PackedLinear], settings: Settings) -> None:
    """Tell of weights that are stored otherwise than the configuration says."""
    if settings.bits is not None and not packed:
        told = f"{settings.path} says that weights are quantized ({settings.method})"
        log.warning("%s, but all are floats", told)
    for key, linear in packed.items():
        group = 0 if settings.group == 0 and linear.group == linear.shape[1] else linear.group
        for what, said, stored in (("bits", settings.bits, linear.bits), ("group", settings.group, group)):
            if said not in (None, stored):
                where = f"{settings.path} says {what} {said}, but that of {key} is {stored}"
                log.warning("%s: all weights are taken as they are stored", where)
                return


def note_ambiguous(packed: Mapping[str, PackedLinear]) -> None:
    keys = [key for key, each in packed.items() if isinstance(each, GptqLinear) and each.is_ambiguous()]
    if keys:
        log.warning(
            "%d weights, such as %s, have zero points that writers of GPTQ's first format store in two ways: "
            "they are read as GPTQModel does",
            len(keys),
            keys[0],
        )


def note_rounded(packed: Mapping[str, PackedLinear], half: ElementType) -> None:
    """Tell of scales that are not kept as they are."""
    other = [linear.scales for linear in packed.values() if linear.scales.dtype != half.numpy]
    if other:
        kind = other[0].dtype.name
        log.warning("the scales of %d weights are %s and are rounded to %s", len(other), kind, half.name)
