"""Passes over the toy dialect, for tests of what runs passes."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir.module import Module, walk
from compiler.ir.rewrite import apply_patterns
from passes.manager import Pass
from tests.compiler.ir.toy import NormOp, SiluOp, fuse_swiglu

IR = """
    %a = "toy.silu"(%gate) : (tensor<4x8xbf16>) -> tensor<4x8xbf16> loc("mlp.act")
    %y = "toy.mul"(%a, %up) : (tensor<4x8xbf16>, tensor<4x8xbf16>) -> tensor<4x8xbf16>
"""


class Fuse(Pass):
    """toy -> toy. Fuse."""

    name = "toy-fuse"

    def run(self, module: Module) -> None:
        apply_patterns(module, [fuse_swiglu])


@dataclass(frozen=True)
class Options(Pass):
    """toy -> toy. Mark every silu."""

    name = "toy-options"

    count: int
    share: float = 0.5
    fast: bool = False
    word: str = "none"
    sizes: tuple[int, ...] = ()
    limit: int | None = None

    def run(self, module: Module) -> None:
        for op in walk(module):
            if isinstance(op, SiluOp):
                op.attributes["bm.count"] = self.count


class Refuse(Pass):
    """toy -> toy. Fail on the first silu."""

    name = "toy-refuse"

    def run(self, module: Module) -> None:
        for op in walk(module):
            if isinstance(op, SiluOp):
                op.fail("is not wanted")


class Break(Pass):
    """toy -> toy. Leave invalid IR."""

    name = "toy-break"

    def run(self, module: Module) -> None:
        first = module.function("test").block.ops[0]
        first.parent.insert_before(first, NormOp(*first.operands * 2, eps=1.0))


class Crash(Pass):
    """toy -> toy. Our own mistake."""

    name = "toy-crash"

    def run(self, module: Module) -> None:
        raise AssertionError("ours")
