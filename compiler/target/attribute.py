"""`bm.target`: the attribute by which a module says what chip it is for.

The driver puts it on every module before the passes run, so it is in every dump, and each pass that must know
the chip asks `target_of`.
"""

from __future__ import annotations

from compiler.diagnostics import UserError
from compiler.ir.core import Op
from compiler.ir.module import Module
from compiler.target.chips import CHIPS
from compiler.target.spec import ChipSpec

TARGET = "bm.target"


def target_of(op: Op) -> ChipSpec:
    """The chip that the module around an op is for; CompileError when the module does not say."""
    while op.parent_op is not None:
        op = op.parent_op
    if TARGET not in op.attributes:
        known = ", ".join(CHIPS)
        op.fail(f'has no {TARGET}: add {{{TARGET} = "CHIP"}} or give llm_opt.py -c CHIP; chips are {known}')
    check_target(op)
    return CHIPS[op.attributes[TARGET]]


def set_target(module: Module, spec: ChipSpec, source: str = "the module") -> None:
    """Say which chip a module is for; UserError, about `source`, when it says another already."""
    said = module.attributes.get(TARGET, spec.name)
    if said != spec.name:
        raise UserError(
            f"{source} is for {said!r} ({TARGET}), but -c asks for {spec.name!r}: "
            f"give IR for {spec.name}, or another -c"
        )
    module.attributes = {**module.attributes, TARGET: said}


def check_target(module: Op) -> None:
    """CompileError when a module is for a chip that is not known by that name; it need not say any."""
    said = module.attributes.get(TARGET)
    if said is not None and not (isinstance(said, str) and said in CHIPS):
        module.fail(f"is for {said!r} ({TARGET}); chips are {', '.join(CHIPS)}")
