"""Nets that make up one: what a client sees of them, and where the runtime keeps what they hide from it."""

from compiler.bmodel import AddrMode, Cascade, Net, TensorInfo, read_bmodel, write_bmodel
from compiler.bmodel.cascade import main_nets
from tests.compiler.bmodel.models import DDR, model, stage
from tests.runtime_sim.check.cascades import toy_cascade


def info(name, index=0, hidden=False, size=30):
    return TensorInfo(name, "i8", DDR, (size,), hidden=hidden, index=index)


def part(device, step, inputs, outputs):
    made = stage(inputs=inputs, outputs=outputs)
    return Net(f"net_{device}_{step}", AddrMode.BASIC, [made], Cascade("net", device, step))


def test_a_cascade_is_read_back(tmp_path):
    written = toy_cascade()
    write_bmodel(tmp_path / "m.bmodel", written)
    read = read_bmodel(tmp_path / "m.bmodel")
    assert read.device_num == 2
    for ours, theirs in zip(written.nets, read.nets, strict=True):
        assert (ours.name, ours.cascade) == (theirs.name, theirs.cascade)
        assert (ours.stages[0].inputs, ours.stages[0].outputs) == (theirs.stages[0].inputs, theirs.stages[0].outputs)


def test_a_net_by_itself_is_called_by_its_name():
    (main,) = main_nets(model(stage()).nets)
    assert (main.name, main.is_cascade, len(main.steps)) == ("net_0", False, 1)


def test_inputs_and_outputs_are_those_of_one_device_after_another():
    x, ids = info("x", 1), info("ids")
    first = [part(0, 0, [x, ids], [info("k", 1)]), part(1, 0, [x, ids], [info("k", 1)])]
    second = [part(0, 1, [ids], [info("y")]), part(1, 1, [ids], [info("y")])]
    (main,) = main_nets([*first, *second])
    assert [(each.info.name, each.net.name) for each in main.inputs] == [
        ("ids", "net_0_0"), ("x", "net_0_0"), ("ids", "net_1_0"), ("x", "net_1_0"),
    ]  # fmt: skip
    assert [(each.info.name, each.net.name) for each in main.outputs] == [
        ("y", "net_0_1"), ("k", "net_0_0"), ("y", "net_1_1"), ("k", "net_1_0"),
    ]  # fmt: skip
    assert main.steps == [first, second]


def test_each_step_leaves_its_hidden_outputs_from_the_start_of_the_buffer():
    steps = [
        part(0, 0, [], [info("a", hidden=True, size=5000), info("y"), info("b", hidden=True)]),
        part(1, 0, [], [info("c", hidden=True)]),
        part(0, 1, [], [info("d", hidden=True)]),
    ]
    (main,) = main_nets(steps)
    assert main.hidden_places() == {
        ("a", 0): range(5000), ("b", 0): range(8192, 8222), ("c", 1): range(30), ("d", 0): range(30),
    }  # fmt: skip
