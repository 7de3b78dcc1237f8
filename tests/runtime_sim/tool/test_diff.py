"""`diff`: what differs between two files."""

import re
from dataclasses import replace

from compiler.bmodel import write_bmodel
from tests.runtime_sim.check.cores import core_program, model_of, sum_model
from tests.runtime_sim.check.programs import add_model, changed_model, toy_model


def test_diff(tool, tmp_path):
    write_bmodel(tmp_path / "other.bmodel", changed_model(add_model(), "tiu", 2, cmd_id_dep=3))
    code, out, _ = tool(add_model(), "diff", tmp_path / "other.bmodel")
    assert (code, out) == (1, "net add: tiu 2: ar.add cmd_id_dep 4 | 3\n")
    write_bmodel(tmp_path / "other.bmodel", add_model())
    assert tool(add_model(), "diff", tmp_path / "other.bmodel")[0] == 0
    write_bmodel(tmp_path / "other.bmodel", toy_model())
    out = tool(replace(toy_model(), nets=toy_model().nets[1:]), "diff", tmp_path / "other.bmodel")[1]
    assert out == "net embedding: only in the second\n"


def test_diff_of_stages(tool, tmp_path):
    write_bmodel(tmp_path / "other.bmodel", toy_model(histories=(12, 5)))
    out = tool(toy_model(histories=(12, 6)), "diff", tmp_path / "other.bmodel")[1]
    stages = "net block_cache_0.1 .. block_cache_1.1 (2 nets)"
    assert {line.split(":")[0] for line in out.splitlines()} == {stages}


def test_cycles_are_told_in_both_estimates_with_their_change(tool, tmp_path):
    write_bmodel(tmp_path / "other.bmodel", changed_model(add_model(), "dma", 1, src_wsize=480))
    lines = tool(add_model(), "diff", tmp_path / "other.bmodel")[1].splitlines()
    assert lines[0] == "net add: dma 1: dma_tensor.copy src_wsize 48 | 480"
    both = [re.fullmatch(rf"net add: cycles, {name}: ([\d,]+) \| ([\d,]+) \(\+[\d.]+%\)", line)
            for name, line in zip(("plain", "cautious"), lines[1:], strict=True)]  # fmt: skip
    assert all(int(found[1].replace(",", "")) < int(found[2].replace(",", "")) for found in both)


def test_shapes_are_told(tool, tmp_path):
    write_bmodel(tmp_path / "other.bmodel", toy_model(histories=(13,)))
    lines = tool(toy_model(histories=(12,)), "diff", tmp_path / "other.bmodel")[1].splitlines()
    nets = "net block_cache_0 .. block_cache_1 (2 nets)"
    assert f"{nets}: old_k bf16[1, 12, 1, 2] at 0x100003000 | old_k bf16[1, 13, 1, 2] at 0x100003000" in lines


def test_tensors_that_only_lie_elsewhere_are_counted(tool, tmp_path):
    net = add_model().nets[0]
    moved = [replace(tensor, address=tensor.address + 4096) for tensor in net.stages[0].inputs]
    other = replace(add_model(), nets=[replace(net, stages=[replace(net.stages[0], inputs=moved)])])
    write_bmodel(tmp_path / "other.bmodel", other)
    assert tool(add_model(), "diff", tmp_path / "other.bmodel")[1] == "net add: inputs: 2 at other addresses\n"


def test_diff_of_a_core_names_it(tool, tmp_path):
    other = model_of([core_program(0).streams(), core_program(1, messages=(30, 29, 32)).streams()])
    write_bmodel(tmp_path / "other.bmodel", other)
    _, out, _ = tool(sum_model(), "diff", tmp_path / "other.bmodel")
    assert out.splitlines() == [
        f"net sum: core 1 dma {number}: dma_sys.{kind} constant_value 543 | 541"
        for number, kind in ((6, "send"), (7, "wait"))
    ]
