"""Nets of several devices on the vendor's runtime, which the model of the chip has one of.

Each device's nets run in a runtime of their own, and what goes from step to step is handed on here; the bits
are those of the simulator, which does as the runtime does with all devices. Of cascades themselves, the
runtime shows what can be seen with one device.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from compiler.bmodel import AddrMode, BModel, Cascade, Net, Stage, TensorInfo, read_bmodel, write_bmodel
from compiler.bmodel.cascade import main_nets
from driver.convert import convert
from driver.options import ConvertOptions
from runtime_sim.launch.runtime import Runtime
from tests.conformance.same import assert_equal_bits
from tests.conformance.vendor_runtime import VendorRuntime
from tests.runtime_sim.check.programs import ADD_TILES, DDR, SPEC, Assembler, Layout, add_program

Arrays = dict[str, np.ndarray]

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]

CASES = {  # family, mode, devices, checkpoint
    "two": ("llama", "bf16", 2, {}),
    "codes, and a head of keys on two": ("qwen3", "w4bf16", 4, {"kv_heads": 2}),
}
SMALL = {"layers": 1, "hidden": 128, "head_dim": 32, "intermediate": 256, "vocab": 512}


@pytest.fixture(scope="module")
def compiled(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def make(case: str) -> Path:
        family, mode, devices, checkpoint = CASES[case]
        folder, out = tiny_checkpoint(family, **SMALL, **checkpoint), tmp_path_factory.mktemp("compiled") / "out"
        options = ConvertOptions(folder, 16, mode, q_group_size=32, num_device=devices, out_dir=out)
        bmodel = convert(options)
        assert bmodel is not None
        return bmodel

    return make


def of_device(model: BModel, device: int) -> BModel:
    """Its nets as those of a file for one, each by itself."""
    nets = [net for net in model.nets if net.device == device]
    return replace(model, nets=[replace(net, cascade=None) for net in nets], device_num=1)


def inputs_of(model: BModel, main: str) -> Arrays:
    """What a client gives to all devices, by the names in the file: the same states and masks, own caches."""
    found: Arrays = {}
    (called,) = (each for each in main_nets(model.nets) if each.name == main)
    for part in called.inputs:
        name, (dtype, shape) = part.info.name, (part.info.dtype, part.info.shape)
        own = part.net.device if "history" in name else 0
        rng = np.random.default_rng([own, *name.partition(".")[0].encode()])
        if dtype == "i32":
            found[name] = np.arange(shape[-1], dtype=np.int32).reshape(shape) + (0 if shape[-1] > 1 else 7)
        elif "mask" in name:
            hidden = np.triu(np.ones(shape[-2:]), 1) if shape[-2] > 1 else np.arange(shape[-1])[None] == 9
            found[name] = np.where(hidden, -9984.0, 0).reshape(shape).astype(ml_dtypes.bfloat16)
        else:
            found[name] = rng.standard_normal(shape).astype(ml_dtypes.bfloat16)
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_steps_of_each_device_give_the_same_bits(compiled, case, tmp_path):
    path = compiled(case)
    model = read_bmodel(path)
    ours = Runtime(model, exact=True)
    with ExitStack() as stack:
        vendors = []
        for device in range(model.device_num):
            write_bmodel(tmp_path / f"{device}.bmodel", of_device(model, device))
            vendors.append(stack.enter_context(VendorRuntime(tmp_path / f"{device}.bmodel")))
        for main in main_nets(model.nets):
            known = inputs_of(model, main.name)
            given = {buffer.info.name: known[buffer.info.name.rpartition(".")[0]] for buffer in ours.net(main.name).inputs}
            wanted = ours.run(main.name, given)
            for net in (net for step in main.steps for net in step if net.stages[0].outputs):
                inputs = {info.name: known[info.name] for info in net.stages[0].inputs}
                known |= vendors[net.device].run(net.name, inputs)
            for name, array in wanted.items():
                assert_equal_bits(f"{main.name}.{name}", array, known[name.rpartition(".")[0]])


@pytest.mark.parametrize("case", CASES)
def test_the_runtime_takes_the_file(compiled, case):
    """As far as it looks at it when it loads."""
    with VendorRuntime(compiled(case)):
        pass


# ---- what the runtime does with cascades, seen on one device ----

SHAPE = (ADD_TILES, 64, 48)
Tensors = tuple[tuple[str, bool, int], ...]  # name, whether it is hidden, and its place


def adding(step: int, inputs: Tensors, outputs: Tensors) -> Net:
    layout = Layout()
    size = 2 * int(np.prod(SHAPE))
    taken = [TensorInfo(n, "bf16", layout.take(size), SHAPE, hidden=h, index=i) for n, h, i in inputs]
    address = layout.take(size)
    given = [TensorInfo(n, "bf16", address, SHAPE, hidden=h, index=i) for n, h, i in outputs]
    streams = add_program((taken[0].address, taken[1].address), address).streams()
    stage = Stage(taken, given, DDR, layout.address - DDR, [streams])
    return Net(f"sum_0_{step}", AddrMode.BASIC, [stage], Cascade("sum", 0, step))


def test_steps_leave_what_they_have_in_one_buffer(tmp_path):
    """So that the first step's sum is lost to the third, unless the first leaves a spare before it; and an
    input that two steps read is one input. In the simulator as in the runtime.
    """
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-8, 8, SHAPE).astype(ml_dtypes.bfloat16) for _ in range(2))
    for spare in (False, True):
        left: Tensors = (("spare", True, 0), ("first", True, 0)) if spare else (("first", True, 0),)
        nets = [
            adding(0, (("a", False, 0), ("b", False, 1)), left),
            adding(1, (("first", True, 0), ("b", False, 1)), (("second", True, 0),)),
            adding(2, (("first", True, 0), ("second", True, 0)), (("y", False, 0),)),
        ]
        write_bmodel(tmp_path / "m.bmodel", BModel(SPEC.chip, nets))
        ours = Runtime(read_bmodel(tmp_path / "m.bmodel")).run("sum", {"a.0": a, "b.0": b})["y.0"]
        with VendorRuntime(tmp_path / "m.bmodel") as vendor:
            theirs = vendor.call("sum", [a, b])[0]
        first, second = a + b, a + b + b
        assert_equal_bits("y", ours, (first if spare else second) + second)
        assert_equal_bits("y", np.frombuffer(theirs, ours.dtype).reshape(SHAPE), ours)


def test_a_net_without_instructions_may_be_in_a_step(tmp_path):
    """As those that keep the runtime from replacing steps; see `driver.devices.idle`."""
    (stage,) = adding(0, (("a", False, 0), ("b", False, 1)), (("y", False, 0),)).stages
    nothing = replace(stage, inputs=[], outputs=[], cores=[Assembler().streams()])
    nets = [Net("sum_0", AddrMode.BASIC, [stage], Cascade("sum")), Net("sum_idle", AddrMode.BASIC, [nothing], Cascade("sum"))]
    write_bmodel(tmp_path / "m.bmodel", BModel(SPEC.chip, nets))
    a, b = (np.full(SHAPE, x, ml_dtypes.bfloat16) for x in (1, 2))
    with VendorRuntime(tmp_path / "m.bmodel") as vendor:
        (theirs,) = vendor.call("sum", [a, b])
    assert set(np.frombuffer(theirs, ml_dtypes.bfloat16).astype(float)) == {3.0}

