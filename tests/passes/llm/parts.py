"""Nets in parts, run in lockstep, beside the whole ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

import runtime_sim.interpret.llm
import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.ir.module import Function, Module, walk
from compiler.ir.types import I32, TensorType
from compiler.target.attribute import set_target
from compiler.target.chips.bm1684x import BM1684X
from compiler.target.spec import ChipSpec
from dialects import llm
from dialects.builtin import ModuleOp
from dialects.nets import net_of, stages_of
from dialects.weights import view_of_name
from frontend.imported import ImportedModel
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.rules import interpret, interpret_parts, no_codes

BEFORE = (
    "canonicalize,recognize-activations,recognize-norms,recognize-rope,canonicalize,"
    "fuse-swiglu,fuse-residual,skip-before-argmax,fold-take"
)
AFTER = "fuse-qkv,fuse-gate-up,canonicalize"
HIDDEN = -9984.0

Array = np.ndarray[Any, Any]


def fused(module: Module, spec: ChipSpec = BM1684X) -> ModuleOp:
    """A copy as `partition` takes it."""
    copy = module.clone()
    assert isinstance(copy, ModuleOp)
    set_target(copy, spec)
    return after(copy, BEFORE)


def after(module: Module, pipeline: str) -> ModuleOp:
    load_all()
    copy = module.clone()
    assert isinstance(copy, ModuleOp)
    PassManager(parse_pipeline(pipeline)).run(copy)
    return copy


def random_weights(module: Module) -> Callable[[str], Array]:
    """Small numbers for each parameter that a module names, by its name alone."""
    shapes, numbers = {}, set()
    for op in walk(module):
        if isinstance(op, llm.WeightOp):
            view = view_of_name(op.name)
            shapes[view.tensor] = op.y.type.shape[::-1] if view.transposed else op.y.type.shape
        if isinstance(op, llm.IndicesOp):
            shapes[op.name] = op.y.type.shape
            numbers.add(op.name)

    def read(name: str) -> Array:
        rng = np.random.default_rng(sum(name.encode()))
        if name in numbers:
            return rng.permutation(shapes[name][0])
        values = rng.standard_normal(shapes[name]).astype(np.float32)
        return values / np.float32(shapes[name][-1] ** 0.5) if len(shapes[name]) > 1 else 1 + values / 4

    return read


def random_inputs(function: Function, seed: int = 0) -> list[Array]:
    """By the types of the arguments: positions and ids, a causal mask, and activations."""
    rng = np.random.default_rng(seed)
    stated = zip(net_of(function).inputs, function.args, strict=True)
    return [random_input(each.name, arg.type, rng) for each, arg in stated]


def random_input(name: str, type_: TensorType, rng: np.random.Generator) -> Array:
    if type_.element == I32:
        return np.arange(type_.size, dtype=np.int32).reshape(type_.shape)
    if name == "attention_mask":
        *_, queries, keys = type_.shape
        seen = np.arange(keys) <= np.arange(keys - queries, keys)[:, None]
        return np.where(seen, 0, HIDDEN).reshape(type_.shape).astype(type_.element.numpy)
    return rng.standard_normal(type_.shape).astype(type_.element.numpy)


def nets_of(module: Module) -> list[list[Function]]:
    """The functions of each net, whole or in parts."""
    return stages_of(module.functions())


def own_inputs(part: Function, inputs: Sequence[Array]) -> list[Array]:
    """What a device has of the inputs: all, or its own heads of keys and values."""
    place = net_of(part).part
    found = []
    for array, arg in zip(inputs, part.args, strict=True):
        for axis, (size, own) in enumerate(zip(array.shape, arg.type.shape, strict=True)):
            if size != own:
                first = place.device * size // place.devices
                array = np.take(array, range(first, first + own), axis)
        found.append(array)
    return found


def run_parts(
    parts: Sequence[Function], inputs: Sequence[Array], weights: Any, tables: Any, codes: Any = no_codes
) -> list[Array]:
    """The net's outputs: what cores wrote of each, all alike; or what devices have of each, joined.

    A KV head that several devices have is the same on all of them.
    """
    own = [own_inputs(part, inputs) for part in parts]
    given = interpret_parts(parts, own, weights, tables, codes=codes)
    net = net_of(parts[0])
    by_name: dict[str, list[Array]] = {output.name: [] for output in net.outputs}
    for part, arrays in zip(parts, given, strict=True):
        for output, array in zip(net_of(part).written, arrays, strict=True):
            by_name[output.name].append(array)
    return [joined(name, arrays, net.part.devices) for name, arrays in by_name.items()]


def joined(name: str, arrays: list[Array], devices: int) -> Array:
    assert arrays, f"nobody writes {name}"
    if devices > 1 and len(arrays) == devices and name.endswith("_cache"):
        distinct = [arrays[0]]
        distinct += [b for a, b in pairwise(arrays) if not np.array_equal(a, b)]
        assert len(distinct) > 1 or arrays[0].shape[2] == 1, f"every device has all heads of {name}"
        return np.concatenate(distinct, axis=2)
    for other in arrays[1:]:
        np.testing.assert_array_equal(other, arrays[0], err_msg=name)
    return arrays[0]


def check_parts(whole: Module, split: Module, model: ImportedModel, error: float = 2e-6) -> None:
    """Each net of the parts computes what the whole one does."""
    weights = random_weights(whole)
    for functions, parts in zip(nets_of(whole), nets_of(split), strict=True):
        (function,) = functions
        inputs = random_inputs(function)
        wanted = interpret(function, inputs, weights, model.tables)
        found = run_parts(parts, inputs, weights, model.tables)
        for ours, theirs, output in zip(found, wanted, net_of(function).outputs, strict=True):
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            off = np.abs(ours.astype(np.float64) - theirs).max() / max(1e-9, np.abs(theirs).max())
            assert off <= error, f"{output.name} of {function.sym_name} is off by {off}"
