"""Nets in their memories: what a launch computes, what survives it, and what is refused."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from compiler.bmodel import AddrMode, read_bmodel, write_bmodel
from compiler.diagnostics import CompileError, UserError
from runtime_sim.launch.loader import Program
from runtime_sim.launch.orders import alternating, core_ahead, run_ahead, shuffled
from runtime_sim.launch.runtime import Runtime
from tests.runtime_sim.check import cores
from tests.runtime_sim.check.cascades import toy_cascade, with_info, with_part
from tests.runtime_sim.check.programs import ADD_TILES, SPEC, add_model, changed, toy_model, toy_table

BF16 = ml_dtypes.bfloat16
SHAPE = (ADD_TILES, 64, 48)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(SHAPE).astype(BF16) for name in "ab"}


def load(tmp_path, model):
    write_bmodel(tmp_path / "m.bmodel", model)
    return Runtime(read_bmodel(tmp_path / "m.bmodel"))


def expected(arrays):
    return (arrays["a"].astype(np.float32) + arrays["b"].astype(np.float32)).astype(BF16)


ORDERS = {
    "alternating": alternating,
    "dma first": lambda: run_ahead("dma"),
    "tiu first": lambda: run_ahead("tiu"),
    "shuffled": lambda: shuffled(3),
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_program_gives_the_same_in_every_order_the_waits_permit(tmp_path, arrays, order):
    outputs = load(tmp_path, add_model()).run("add", arrays, ORDERS[order]())
    np.testing.assert_array_equal(outputs["y"], expected(arrays))


@pytest.mark.parametrize(
    ("engine", "number", "order"),
    [("tiu", 1, "tiu first"), ("dma", 5, "dma first"), ("dma", 11, "dma first"), ("tiu", 3, "tiu first")],
)
def test_running_ahead_shows_a_missing_wait(tmp_path, arrays, engine, number, order):
    runtime = load(tmp_path, add_model())
    program = runtime.net("add").program
    object.__setattr__(program, "cores", [changed(program.cores[0], engine, number, cmd_id_dep=0)])
    outputs = runtime.run("add", arrays, ORDERS[order]())
    assert (outputs["y"] != expected(arrays)).any()


def test_circular_waits_are_reported(tmp_path, arrays):
    runtime = load(tmp_path, add_model())
    program = runtime.net("add").program
    object.__setattr__(program, "cores", [changed(program.cores[0], "dma", 1, cmd_id_dep=1)])
    with pytest.raises(CompileError, match="net add never ends"):
        runtime.run("add", arrays)


def test_a_transfer_outside_the_nets_memories_is_an_error(tmp_path, arrays):
    runtime = load(tmp_path, add_model())
    program = runtime.net("add").program
    far = changed(program.cores[0], "dma", 3, dst_start_addr_h8=2)
    object.__setattr__(program, "cores", [far])
    with pytest.raises(CompileError, match=r"net add: .* are in no mapped memory"):
        runtime.run("add", arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("b"), "needs an input 'b' of bf16"),
        (lambda a: a.update(b=a["b"][:1]), r"input 'b' is bfloat16 \[1, 64, 48\]"),
        (lambda a: a.update(b=a["b"].astype(np.float32)), "input 'b' is float32"),
    ],
)
def test_wrong_inputs_are_refused(tmp_path, arrays, change, message):
    change(arrays)
    with pytest.raises(UserError, match=message):
        load(tmp_path, add_model()).run("add", arrays)


def test_unknown_nets_are_refused(tmp_path):
    with pytest.raises(UserError, match="no net 'sub'; there are add"):
        load(tmp_path, add_model()).net("sub")


def test_basic_nets_share_memory_and_io_alone_nets_do_not(tmp_path):
    runtime = load(tmp_path, toy_model())
    blocks = [runtime.net(f"block_{i}").inputs[1].data for i in range(2)]
    caches = [runtime.net(f"block_cache_{i}").inputs[3].data for i in range(2)]
    assert np.shares_memory(*blocks)
    assert not np.shares_memory(*caches)
    assert not any(np.shares_memory(block, cache) for block in blocks for cache in caches)


def test_equal_weights_are_uploaded_once(tmp_path):
    runtime = load(tmp_path, toy_model())
    runtime.net("embedding"), runtime.net("embedding_cache")
    assert len(runtime.devices[0]._blobs) == 1
    ids = np.array([[3, 5, 0, 39, 1, 1, 2, 4]], np.int32)
    states = runtime.run("embedding", {"input_ids": ids})["states"]
    np.testing.assert_array_equal(states[0].view(np.int32), toy_table()[ids[0]])


def test_other_address_modes_are_refused(tmp_path):
    model = add_model()
    object.__setattr__(model.nets[0], "addr_mode", AddrMode.IO_RELOC)
    with pytest.raises(UserError, match="addr_mode is IO_RELOC"):
        load(tmp_path, model).net("add")


def test_equal_streams_are_decoded_once(tmp_path):
    write_bmodel(tmp_path / "m.bmodel", toy_model(3))
    program = Program(read_bmodel(tmp_path / "m.bmodel"))
    first, second = (program.stage(f"block_cache_{i}").cores[0] for i in range(2))
    assert first is second
    assert program.spec is SPEC


def test_stages_of_a_net_have_one_memory(tmp_path):
    runtime = load(tmp_path, toy_model(histories=(12, 6)))
    first, second = runtime.stages("block_cache_0")
    assert [net.name for net in (first, second)] == ["block_cache_0", "block_cache_0.1"]
    first.inputs[3].array[...] = np.arange(12 * 2).reshape(1, 12, 1, 2)
    np.testing.assert_array_equal(second.inputs[3].array, first.inputs[3].array[:, :6])
    assert runtime.has_net("block_cache_0.1")
    assert not runtime.has_net("block_cache_0.2")


def test_the_shapes_of_the_inputs_choose_the_stage(tmp_path):
    runtime = load(tmp_path, toy_model(histories=(12, 6)))
    for net in runtime.stages("block_cache_0"):
        inputs = {buffer.info.name: np.zeros(buffer.info.shape, buffer.array.dtype) for buffer in net.inputs}
        assert runtime.stage_for("block_cache_0", inputs) is net
        runtime.run("block_cache_0", inputs)
    with pytest.raises(UserError, match=r"input 'mask' is bfloat16 \[1, 1, 1, 9\], net block_cache_0 needs"):
        runtime.run("block_cache_0", inputs | {"mask": np.zeros((1, 1, 1, 9), BF16)})


def test_states_go_from_device_to_device(tmp_path):
    """What each device gives after two steps is what the other was given."""
    runtime = load(tmp_path, toy_cascade())
    net = runtime.net("block_0")
    assert [buffer.info.name for buffer in net.inputs][2:4] == ["mask.0", "x.1"]
    rng = np.random.default_rng(0)
    inputs = {buffer.info.name: np.zeros(buffer.info.shape, buffer.array.dtype) for buffer in net.inputs}
    for device in range(2):
        x = inputs[f"x.{device}"]
        x[...] = rng.standard_normal(x.shape).astype(BF16)
    outputs = runtime.run("block_0", inputs)
    assert list(outputs) == ["y.0", "k.0", "v.0", "y.1", "k.1", "v.1"]
    for device in range(2):
        np.testing.assert_array_equal(outputs[f"y.{device}"], inputs[f"x.{1 - device}"])
        keys = inputs[f"x.{device}"][..., 4:6].reshape(outputs[f"k.{device}"].shape)
        np.testing.assert_array_equal(outputs[f"k.{device}"], keys)


def test_a_step_writes_over_what_an_earlier_one_left(tmp_path):
    """The runtime's buffers are shown as they are: without the spare, the second device reads the wrong state."""
    model = toy_cascade()
    for device in range(2):
        (stage,) = model.net(f"block_0_{device}_0").stages
        stage = replace(stage, outputs=stage.outputs[1:])
        model = with_part(model, f"block_0_{device}_0", stages=[stage])
    runtime = load(tmp_path, model)
    net = runtime.net("block_0")
    for device, buffer in enumerate(net.inputs[::3]):
        buffer.array[...] = device + 1
    runtime.launch(net)
    assert [float(buffer.array.flat[0]) for buffer in net.outputs[::3]] == [2, 2]


def test_what_no_step_gives_is_told(tmp_path):
    runtime = load(tmp_path, with_info(toy_cascade(), "block_0_0_1", "inputs", 0, name="other"))
    with pytest.raises(UserError, match="net block_0 cannot be run: device 0 needs other, which no step gives"):
        runtime.launch(runtime.net("block_0"))


def test_devices_have_memories_of_their_own(tmp_path):
    runtime = load(tmp_path, toy_cascade(2))
    first, second = (runtime.net(f"block_cache_0_{device}_0").inputs[3].data for device in range(2))
    assert not np.shares_memory(first, second)
    shared = [runtime.net(f"block_{layer}_1_0").inputs[1].data for layer in range(2)]
    assert np.shares_memory(*shared)
    assert not np.shares_memory(shared[0], runtime.net("block_0_0_0").inputs[1].data)


# ---- two cores ----


def orders():
    ahead = [core_ahead(0), core_ahead(1), run_ahead("dma"), run_ahead("tiu")]
    return [alternating(), *ahead, *map(shuffled, range(10))]


def halves():
    rng = np.random.default_rng(2)
    return {name: rng.standard_normal(cores.SHAPE).astype(BF16) for name in "ab"}


def outcomes(programs=None):
    """Of a launch in each order: "right", "wrong", or what goes against the rules."""
    arrays = halves()
    for order in orders():
        runtime = Runtime(cores.sum_model())  # with memory that no launch has written yet
        if programs:
            object.__setattr__(runtime.net("sum").program, "cores", programs)
        try:
            right = (runtime.run("sum", arrays, order)["y"] == cores.wanted(**arrays)).all()
            yield "right" if right else "wrong"
        except CompileError as error:
            yield error.message


def test_two_cores_give_the_same_in_every_order_that_their_waits_permit():
    assert set(outcomes()) == {"right"}


TWO_CORES = cores.cores_of(cores.sum_model())
MUTANTS = dict(cores.mutants(TWO_CORES))


@pytest.mark.parametrize("name", MUTANTS)
def test_each_send_wait_and_dependency_of_two_cores_is_needed(name):
    assert set(outcomes(MUTANTS[name])) - {"right"}


@pytest.mark.parametrize("meeting", range(3))
def test_other_orders_show_a_meeting_left_out(meeting):
    """In the usual one, core 0 goes first: it happens to be right without the first."""
    found = list(outcomes([cores.without_meeting(core, meeting) for core in TWO_CORES]))
    assert "wrong" in found
    assert set(found) <= {"right", "wrong", *(text for text in found if "message 30 is in use" in text)}
    assert meeting or found[0] == "right"


def test_a_runtime_may_have_an_order_of_its_own():
    arrays = halves()
    runtime = Runtime(cores.sum_model(), order=core_ahead(1))
    object.__setattr__(
        runtime.net("sum").program, "cores", [cores.without_meeting(core, 0) for core in TWO_CORES]
    )
    assert (runtime.run("sum", arrays)["y"] != cores.wanted(**arrays)).any()


def test_a_core_that_never_sends_is_reported():
    (text,) = set(outcomes(MUTANTS["core 1 dma 6 send"]))
    assert "net sum never ends" in text
    assert "waits for message 31, sent 1 of 2 times" in text
