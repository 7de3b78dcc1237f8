"""Random arrays, and the check that instructions compute what the tensor level says."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from runtime_sim.check.waits import find_race
from tests.compare import compare
from tests.passes.programs import PLACING, Program, core_program

BF = ml_dtypes.bfloat16
RNG = np.random.default_rng(0)
START = RNG.bit_generator.state


def normal(*shape: int, dtype: object = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def check(program: Program, tolerance: float = 0.0) -> None:
    """The chip computes what the tensor level says, before it has addresses and after, and waits enough."""
    wanted = program.interpreted()
    program.lower("tensor-to-chip")
    loose = program.executed()
    for found, expected in zip(loose, wanted, strict=True):
        difference = compare(found, expected)
        scale = float(np.abs(expected.astype(np.float64)).max(initial=1e-30))
        assert difference.max_error <= tolerance * scale, str(difference)
    program.lower(PLACING)
    tight = program.chip()
    assert [a.tobytes() for a in tight.run(program.inputs)] == [a.tobytes() for a in loose]
    assert find_race([core_program(tight)], program.spec) is None


def kinds(program: Program) -> list[str]:
    """The instructions, by name and kind."""
    return [f"{op.opname.removeprefix('chip.')}.{op.isa_kind()}" for op in program.instructions()]
