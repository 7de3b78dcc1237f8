"""What many tests need: IR before and after a pass, and random arrays."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

import numpy as np

import dialects
import passes
from compiler.ir.core import Value
from compiler.ir.define import OPS
from compiler.ir.module import Module
from compiler.ir.parser import parse_body, parse_module
from compiler.ir.printer import print_module
from compiler.ir.types import FunctionType, Type
from compiler.ir.verify import verify
from compiler.target.attribute import TARGET as BM_TARGET
from compiler.target.chips import chip
from compiler.target.spec import ChipSpec
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized
from dialects.nets import KEY, NetAttr, NetInput, NetOutput
from passes.manager import PassManager, parse_pipeline

TARGET = chip("bm1684x")  # of modules that do not say theirs


def check_pass(
    pipeline: str,
    before: str,
    after: str,
    target: ChipSpec = TARGET,
    state: Callable[[Module], None] | None = None,
) -> None:
    """Run passes on ``before``, compare with ``after`` by structure: value names and locations do not count.

    Either side is a list of ops or a whole module. In a list, values that nothing defines become arguments of
    the function around it, and values that nothing reads are returned, so that no pass takes them for dead.
    Both sides are for the chip `target`, where they do not say one. ``state`` puts more on both first, such
    as `as_net`.
    """
    passes.load_all()
    module, args = parse_ir(before, "before", target=target)
    expected, _ = parse_ir(after, "after", args, target)
    for each in (module, expected) if state else ():
        state(each)
    verify(expected)
    PassManager(parse_pipeline(pipeline)).run(module)
    got = print_module(module, names=False, locations=False)
    want = print_module(expected, names=False, locations=False)
    assert got == want, f"after {pipeline}:\n{print_module(module)}\nexpected:\n{print_module(expected)}"


def as_net(module: Module, axes: Mapping[int, int] = {3: 1}) -> None:
    """Let the only function say that it is a net, with tokens on these axes of arrays of so many axes."""
    (function,) = module.functions()
    types = function.function_type
    inputs = tuple(NetInput(f"input_{i}", axes.get(type.rank)) for i, type in enumerate(types.inputs))
    outputs = tuple(NetOutput(f"output_{i}", axes.get(type.rank)) for i, type in enumerate(types.results))
    function.attributes[KEY] = NetAttr("test", inputs=inputs, outputs=outputs)


def parse_ir(
    text: str, file: str = "test", args: Sequence[tuple[str, Type]] | None = None, target: ChipSpec = TARGET
) -> tuple[Module, list[tuple[str, Type]]]:
    """A module of test IR, and its implicit arguments by name; ``args`` are those of a text it must match."""
    dialects.load_all()
    text = textwrap.dedent(text).strip("\n")
    whole = text.lstrip().startswith(('"builtin.module"', '"func.func"'))
    module, names = (parse_module(text, file), []) if whole else _wrap_body(text, file, args)
    module.attributes.setdefault(BM_TARGET, target.name)
    return module, names


def _wrap_body(
    text: str, file: str, args: Sequence[tuple[str, Type]] | None
) -> tuple[Module, list[tuple[str, Type]]]:
    region = parse_body(text, file, args)
    block = region.block
    if not (block.ops.last and block.ops.last.is_terminator):
        unread: list[Value] = [v for op in block.ops for v in op.results if not v.has_uses()]
        block.append(OPS["func.return"](*unread))
    inputs = tuple(arg.type for arg in block.args)
    results = tuple(value.type for value in block.terminator.operands)
    function = OPS["func.func"](sym_name="test", function_type=FunctionType(inputs, results), body=region)
    module = OPS["builtin.module"]()
    assert isinstance(module, Module)
    module.block.append(function)
    return module, [(arg.name_hint or "", arg.type) for arg in block.args]


def random_codes(shape: tuple[int, int], scheme: Scheme, seed: int = 0) -> Quantized:
    """Codes as others chose them: few and off the middle in 4 bits, all over the range in 8."""
    rng = np.random.default_rng(seed)
    lowest, highest = (3, 8) if scheme.bits == 4 else (-100 if scheme.signed else 0, scheme.highest)
    codes = rng.integers(lowest, highest + 1, shape).astype(scheme.codes)
    groups = (shape[0], shape[1] // scheme.group)
    step = 1 / 64 if scheme.bits == 4 else 1 / 2048
    scales, minimums = ((rng.standard_normal(groups) * step).astype(scheme.scale.numpy) for _ in range(2))
    most = 16 if scheme.bits == 4 else 255
    zeros = rng.integers(0, most + 1, groups).astype(np.uint8) if scheme.zeros else None
    return Quantized(codes, scales, zeros, scheme, minimums if scheme.minimum else None)


def random_tensor(*shape: int, dtype: object = np.float32, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Standard normal numbers times ``scale``; integer dtypes get the whole range of the type."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)  # type: ignore[call-overload]
    if kind.kind in "iu":
        info = np.iinfo(kind)
        return rng.integers(info.min, info.max, shape, dtype=kind, endpoint=True)
    return (rng.standard_normal(shape) * scale).astype(kind)
