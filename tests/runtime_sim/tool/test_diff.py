"""`diff`: the first difference of two files."""

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
    assert {line.split(":")[0] for line in out.splitlines()} == {"net block_cache_0.1", "net block_cache_1.1"}


def test_diff_of_a_core_names_it(tool, tmp_path):
    other = model_of([core_program(0).streams(), core_program(1, messages=(30, 29, 30)).streams()])
    write_bmodel(tmp_path / "other.bmodel", other)
    _, out, _ = tool(sum_model(), "diff", tmp_path / "other.bmodel")
    assert out.splitlines() == [
        f"net sum: core 1 dma {number}: dma_sys.{kind} constant_value 543 | 541"
        for number, kind in ((6, "send"), (7, "wait"))
    ]
