"""Programs made by the vendor's compiler, executed here: outputs recorded on its C-model, bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compiler.bmodel import read_bmodel
from runtime_sim.check.contract import check_file
from runtime_sim.check.waits import find_race
from runtime_sim.launch.loader import Program
from runtime_sim.launch.orders import alternating, core_ahead, run_ahead, shuffled
from runtime_sim.launch.queues import CoreProgram, Deadlock
from runtime_sim.launch.runtime import NUMPY_TYPES, Runtime
from tests.compare import compare
from tests.runtime_sim.check.programs import changed

PROGRAMS = Path(__file__).resolve().parents[4] / "shared/data/vendor_programs"
NETS = ("block_0", "block_cache_0")

pytestmark = pytest.mark.shared


def file_of(chip: str, net: str) -> Path:
    path = PROGRAMS / chip / f"{net}.bmodel"
    if not path.exists():
        pytest.skip(f"NOT RUN: {path} is missing")
    return path


ORDERS = {
    "alternating": alternating,
    "dma first": lambda: run_ahead("dma"),
    "core 1 first": lambda: core_ahead(1),
    "shuffled": lambda: shuffled(1),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    ("chip", "name"),
    [("bm1684x", "alternating"), ("bm1684x", "dma first"), *(("bm1688", name) for name in ORDERS)],
)
def test_outputs_are_those_of_the_c_model(chip, net, name):
    """On BM1688 with two cores."""
    path, order = file_of(chip, net), ORDERS[name]
    runtime = Runtime(read_bmodel(path), exact=True)
    with np.load(path.with_suffix(".npz")) as arrays:
        inputs = {
            buffer.info.name: arrays[f"in.{buffer.info.name}"].astype(NUMPY_TYPES[buffer.info.dtype])
            for buffer in runtime.net(net).inputs
        }
        for output_name, output in runtime.run(net, inputs, order()).items():
            wanted = arrays[f"out.{output_name}"].astype(output.dtype)
            assert compare(output, wanted).differing == 0, output_name


@pytest.mark.parametrize("chip", ["bm1684x", "bm1688"])
@pytest.mark.parametrize("net", NETS)
def test_they_are_sound(chip, net):
    """One core and two, with the barriers between them."""
    program = Program(read_bmodel(file_of(chip, net)))
    about_one_net = {"it has no lm_head", "net block_0 is beyond the 0 layers that have both of their nets"}
    assert set(check_file(program)) <= about_one_net


@pytest.mark.parametrize("net", NETS)
def test_most_of_their_waits_are_needed(net):
    program = Program(read_bmodel(file_of("bm1684x", net)))
    core = program.stage(net).cores[0]
    waits = list(new_waits(core))
    found = [wait for wait in waits if is_unsound(changed(core, *wait, cmd_id_dep=0), program)]
    assert len(found) > 0.8 * len(waits)


def new_waits(core: CoreProgram):
    """(engine, number) of the instructions that wait for more than those before them."""
    for engine in ("tiu", "dma"):
        covered = 0
        for number, instruction in enumerate(getattr(core, engine), 1):
            if instruction.fields["cmd_id_dep"] > covered:
                covered = instruction.fields["cmd_id_dep"]
                yield engine, number


def is_unsound(core: CoreProgram, program: Program) -> bool:
    try:
        return find_race([core], program.spec) is not None
    except Deadlock:
        return True


def test_a_barrier_left_out_between_two_cores_is_found():
    """Both cores' first barrier makes the inputs visible; without a later one they race for the same DDR."""
    program = Program(read_bmodel(file_of("bm1688", "block_0")))
    cores = program.stage("block_0").cores
    sends = [number for number, instruction in enumerate(cores[0].dma, 1) if instruction.kind == "send"]
    assert find_race(cores, program.spec) is None
    races = 0
    for index in range(len(sends)):
        races += find_race([without_barrier(core, index) for core in cores], program.spec) is not None
    assert races > 5


def without_barrier(core: CoreProgram, index: int) -> CoreProgram:
    """The index-th send and wait of both engines become nops; dependencies between the engines stay."""
    streams = {}
    for engine in ("tiu", "dma"):
        counts = {"send": 0, "wait": 0}
        stream = []
        for instruction in getattr(core, engine):
            what = instruction.kind.removesuffix("_msg")
            if what in counts:
                counts[what] += 1
                if counts[what] == index + 1:
                    instruction = replace(instruction, kind="nop")
            stream.append(instruction)
        streams[engine] = stream
    return CoreProgram(**streams)
