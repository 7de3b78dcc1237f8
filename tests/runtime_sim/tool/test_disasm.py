"""`disasm`: operands, waits, engines."""

from tests.runtime_sim.check.cores import sum_model
from tests.runtime_sim.check.programs import ADD_TILES, add_model, toy_model


def test_disasm_shows_operands_and_waits(tool):
    code, out, _ = tool(add_model(), "disasm", "add")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == ADD_TILES * 4 + 2
    (add,) = (line for line in lines if line.startswith("tiu     2"))
    assert (
        add.split()
        == (
            "tiu 2 after dma 4 ar.add res0 bf16[1, 64, 1, 48]@0x18000 opd0 bf16@0x10000 opd1 bf16@0x14000 tsk_opd_num=2"
        ).split()
    )
    (store,) = (line for line in lines if line.startswith("dma     7"))
    assert "dst [1, 64, 1, 48]@neuron+0xc000" in store


def test_disasm_of_one_engine(tool):
    _, out, _ = tool(add_model(), "disasm", "add", "--engine", "tiu")
    assert {line.split()[0] for line in out.splitlines()} == {"tiu"}


def test_disasm_of_a_stage(tool):
    model = toy_model(histories=(12, 6))
    assert tool(model, "disasm", "block_cache_1.1")[0] == 0
    code, _, errors = tool(model, "disasm", "block_cache_1.2")
    assert (code, "there is no net 'block_cache_1.2'" in errors) == (2, True)


def test_disasm_names_the_core_and_the_message(tool):
    _, out, _ = tool(sum_model(), "disasm", "sum", "--engine", "dma")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:3] == [
        "0 dma 1 dma_sys.send message 30 of 2",
        "1 dma 1 dma_sys.send message 30 of 2",
        "0 dma 2 dma_sys.wait message 30 of 2",
    ]
    assert "1 dma 8 dma_tensor.copy src bf16[1, 32, 1, 16]@neuron+0x3000" in "\n".join(lines)
