"""Chip functions before and after they have addresses, and what a run shows of itself."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.types import F32, TensorType
from compiler.target.chips.bm1684x import BM1684X
from compiler.target.chips.bm1688 import BM1688
from dialects.chip import GlobalOp, GlobalType, Instruction, LocalOp, View
from dialects.weights import Floats
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.chip import ChipProgram, core_programs, run_cores, run_function
from runtime_sim.machine.errors import SimulationError
from tests.helpers import parse_ir
from tests.passes.two_cores import PLACING, two_cores

ROWS = 70  # of 16 numbers, so two rows of lanes
VIEW = "#chip.view<dtype = f32>"


def program(local_bytes: int = 128):
    """y = (x + 1) * w, by way of local memory."""
    load_all()
    local, ddr = f"!chip.local<bytes = {local_bytes}>", f"!chip.global<bytes = {ROWS * 64}>"

    def dma(target: str, source: str, types: str) -> str:
        return f"""
          "chip.dma"({target}, {source}) <{{kind = "copy", shape = array<i64: 1, {ROWS}, 1, 16>, res = {VIEW},
              opd0 = {VIEW}}}> : ({types}) -> ()
        """

    def add(target: str, source: str) -> str:
        return f"""
          "chip.ar"({target}, {source}) <{{kind = "add", shape = array<i64: 1, {ROWS}, 1, 16>, res = {VIEW},
              opd0 = {VIEW}, opd1 = #chip.const<dtype = f32, bits = {0x3F800000}>, round = 0 : i64,
              operandSegmentSizes = array<i32: 1, 1, 0>}}> : ({local}, {local}) -> ()
        """

    tensor = f"tensor<{ROWS}x16xf32>"
    text = f"""
      %x = "chip.global"() <{{space = "input", index = 0 : i64, tensor = {tensor}}}> : () -> {ddr}
      %y = "chip.global"() <{{space = "output", index = 0 : i64, tensor = {tensor}}}> : () -> {ddr}
      %w = "chip.global"() <{{space = "weight", source = #weights.floats<values = [2.0, 3.0]>}}> : () -> {ddr}
      %a = "chip.local"() : () -> {local}
      %b = "chip.local"() : () -> {local}
      %c = "chip.local"() : () -> {local}
      {dma("%a", "%x", f"{local}, {ddr}")}
      {dma("%c", "%w", f"{local}, {ddr}")}
      {add("%b", "%a")}
      "chip.ar"(%b, %b, %c) <{{kind = "mul", shape = array<i64: 1, {ROWS}, 1, 16>, res = {VIEW}, opd0 = {VIEW},
          opd1 = {VIEW}, round = 0 : i64, operandSegmentSizes = array<i32: 1, 1, 1>}}>
          : ({local}, {local}, {local}) -> ()
      {dma("%y", "%b", f"{ddr}, {local}")}
    """
    module, _ = parse_ir(text)
    return module, module.functions()[0]


X = np.arange(ROWS * 16, dtype=np.float32).reshape(ROWS, 16)
W = np.linspace(-3, 3, ROWS * 16, dtype=np.float32)


def weights(source: Floats) -> np.ndarray:
    assert source == Floats((2.0, 3.0))
    return W


def test_a_program_runs_at_every_stage():
    module, function = program()
    wanted = (X + 1) * W.reshape(ROWS, 16)
    for step in ("", "allocate-local", "assign-addresses", "insert-waits"):
        PassManager(parse_pipeline(step)).run(module)
        (found,) = run_function(function, BM1684X, [X], weights)
        np.testing.assert_array_equal(found, wanted)


def test_buffers_without_addresses_may_be_larger_than_the_chip():
    _, function = program(local_bytes=200 * 1024)
    (found,) = run_function(function, BM1684X, [X], weights)
    np.testing.assert_array_equal(found, (X + 1) * W.reshape(ROWS, 16))


def test_addresses_are_used_once_there_are_any():
    module, function = program()
    PassManager(parse_pipeline("allocate-local,assign-addresses")).run(module)
    a, _, c = (op for op in function.block.ops if isinstance(op, LocalOp))
    c.offset = a.offset - 64  # the second row of weights now lies on the first of x
    (found,) = run_function(function, BM1684X, [X], weights)
    assert (found != (X + 1) * W.reshape(ROWS, 16)).any()


def test_an_observer_sees_what_each_instruction_wrote():
    _, function = program()
    seen = []
    run_function(function, BM1684X, [X], weights, observe=lambda op, array: seen.append((op, array)))
    assert [op for op, _ in seen] == [op for op in function.block.ops if isinstance(op, Instruction)]
    assert [array.shape for _, array in seen] == [(1, ROWS, 1, 16)] * 5
    np.testing.assert_array_equal(seen[2][1].reshape(ROWS, 16), X + 1)


def test_reading_goes_round_the_lanes():
    _, function = program()
    run = ChipProgram(function, BM1684X, weights)
    run.run([X])
    buffer = next(op.buffer for op in function.block.ops if isinstance(op, LocalOp))
    np.testing.assert_array_equal(run.read(buffer, View(F32, lane=3), (1, 61, 1, 16)).reshape(61, 16), X[3:64])
    np.testing.assert_array_equal(run.read(buffer, View(F32, offset=64), (1, 6, 1, 16)).reshape(6, 16), X[64:])


@pytest.mark.parametrize(
    ("array", "message"),
    [(X[:5], r"float32 \[5, 16\] given for tensor<70x16xf32>"), (X.astype(np.float64), "float64")],
)
def test_inputs_of_another_kind_are_refused(array, message):
    _, function = program()
    with pytest.raises(SimulationError, match=message):
        run_function(function, BM1684X, [array], weights)


def test_regions_of_unknown_content_are_refused():
    _, function = program()
    with pytest.raises(SimulationError, match=r"nothing says what .* holds"):
        run_function(function, BM1684X, [X])


def test_a_write_behind_a_region_is_refused():
    _, function = program()
    output = next(op for op in function.block.ops if isinstance(op, GlobalOp) and op.space == "output")
    output.buffer.type, output.tensor = GlobalType(69 * 64), TensorType((69, 16), F32)
    with pytest.raises(SimulationError, match="64 bytes after region 'output'"):
        run_function(function, BM1684X, [X], weights)


@pytest.mark.parametrize("stage", ["", PLACING])
def test_cores_run_side_by_side_and_see_what_the_others_stored(stage):
    module = two_cores()
    PassManager(parse_pipeline(stage)).run(module)
    a, b = (np.random.default_rng(seed).standard_normal((1, 32, 1, 16)).astype(np.float32) for seed in range(2))
    programs = core_programs(module.functions(), BM1688)
    for found in run_cores(programs, [a, b]):
        np.testing.assert_array_equal(found, a + b)


def test_without_a_meeting_a_core_sees_what_was_there_before():
    programs = core_programs(two_cores(without=("middle",)).functions(), BM1688)
    a, b = (np.ones((1, 32, 1, 16), np.float32) for _ in range(2))
    assert (run_cores(programs, [a, b])[0] != a + b).all()


def test_cores_that_disagree_on_where_a_region_lies_are_refused():
    module = two_cores()
    PassManager(parse_pipeline(PLACING)).run(module)
    second = module.functions()[1]
    next(op for op in second.block.ops if isinstance(op, GlobalOp) and op.space == "shared").address += 4096
    with pytest.raises(SimulationError, match="cores disagree on where"):
        core_programs(module.functions(), BM1688)
