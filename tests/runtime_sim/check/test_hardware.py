"""Rules of the hardware on whole programs: streams, files, what we compile and what the vendor's compiler made."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from compiler.bmodel import BModel, read_bmodel
from compiler.target.isa import ALIGNED, Instruction, isa_for
from driver.convert import convert
from driver.options import ConvertOptions
from runtime_sim.check.contract import StageChecker, check_file
from runtime_sim.check.hardware import MAX_PROBLEMS, hardware_problems, problems_of
from runtime_sim.launch.loader import Program
from runtime_sim.launch.queues import CoreProgram
from tests.compiler.target.timing.test_vendor_cycles import DATA
from tests.compiler.target.timing.test_vendor_cycles import instruction as recorded_instruction
from tests.runtime_sim.check.hardware.instructions import BASES, F32, A, X, decoded, problems
from tests.runtime_sim.check.programs import DDR, add_model, add_program, changed, changed_model

PROGRAMS = Path(__file__).resolve().parents[4] / "shared/data/vendor_programs"


@pytest.mark.parametrize("base", BASES)
def test_sound_instructions_pass(base):
    assert problems(base) == []


def test_an_unknown_instruction_is_left_alone():
    (instruction,) = isa_for(X).decode("tiu", isa_for(X).encode("conv", "normal", {}))
    assert problems_of(instruction, X) == []


# ---- streams ----


def test_sentences_name_the_instruction():
    core = add_program((DDR, DDR + 0x10000), DDR + 0x20000).core()
    core = changed(core, "tiu", 3, opd0_addr=0x10020, opd1_prec=F32)
    core = changed(core, "dma", 2, dst_wstride=0)
    assert list(hardware_problems(core, X)) == [
        "tiu 3 (ar.add): mixes bf16, f32 into bf16",
        "dma 2 (dma_tensor.copy): dst_wstride is 0",
    ]


def test_equal_instructions_are_all_named_up_to_a_limit():
    core = CoreProgram([replace(decoded("add", res0_addr=A + 64))] * (MAX_PROBLEMS + 5), [])
    found = list(hardware_problems(core, X))
    assert found == [f"tiu {number + 1} (ar.add): res0 overlaps opd0" for number in range(MAX_PROBLEMS)]


def test_files_are_checked():
    broken = changed_model(add_model(), "tiu", 2, opd0_addr=0x10010)
    assert check_file(Program(add_model())) == []
    sentence = "net add: tiu 2 (ar.add): opd0 at 0x10010 is not a multiple of 64 bytes"
    assert sentence in check_file(Program(broken))


def test_the_second_core_is_named():
    stage = Program(changed_model(add_model(), "tiu", 2, opd0_addr=0x10010)).stage("add")
    twice = replace(stage, cores=[stage.cores[0]] * 2)
    found = list(StageChecker(X).problems(twice, [twice]))
    assert "core 1 tiu 2 (ar.add): opd0 at 0x10010 is not a multiple of 64 bytes" in found


# ---- compiled programs ----


@pytest.fixture(scope="module")
def compiled(tiny_checkpoint, tmp_path_factory) -> BModel:
    folder = tmp_path_factory.mktemp("model")
    path = convert(ConvertOptions(tiny_checkpoint("qwen3"), 64, "w4bf16", out_dir=folder / "out"))
    assert path is not None
    return read_bmodel(path)


def is_eu_aligned(instruction: Instruction) -> bool:
    return "res0_addr" in instruction.fields and instruction.fields.get("res0_str", ALIGNED) == ALIGNED


@pytest.mark.parametrize("name", ["block_0", "block_cache_0", "lm_head"])
def test_an_address_off_by_four_is_found_in_a_file(compiled, name):
    net = compiled.net(name)
    model = replace(compiled, nets=[net, *(other for other in compiled.nets if other.name != name)])
    assert check_file(Program(model), hashes=False) == []
    stream = Program(model).stage(name).cores[0].tiu
    numbers = [number for number, instruction in enumerate(stream, 1) if is_eu_aligned(instruction)]
    for number in numbers[:: len(numbers) // 3]:
        address = stream[number - 1].fields["res0_addr"] + 4
        found = check_file(Program(changed_model(model, "tiu", number, res0_addr=address)), hashes=False)
        start = f"net {name}: tiu {number} ("
        assert any(each.startswith(start) and each.endswith("of 64 bytes") for each in found), found


@pytest.mark.shared
@pytest.mark.parametrize("chip", ["bm1684x", "bm1688"])
@pytest.mark.parametrize("net", ["block_0", "block_cache_0"])
def test_programs_of_the_vendor_keep_the_rules(chip, net):
    path = PROGRAMS / chip / f"{net}.bmodel"
    if not path.exists():
        pytest.skip(f"NOT RUN: {path} is missing")
    program = Program(read_bmodel(path))
    for core in program.stage(net).cores:
        assert list(hardware_problems(core, program.spec)) == []


@pytest.mark.shared
def test_recorded_instructions_of_the_vendor_keep_the_rules():
    path = DATA / "vendor_cycles_bm1684x.jsonl"
    if not path.exists():
        pytest.skip(f"NOT RUN: {path} is missing")
    for line in path.read_text().splitlines():
        instruction = recorded_instruction(json.loads(line))
        assert problems_of(instruction, X) == [], instruction
