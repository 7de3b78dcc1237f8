"""Models on several devices: they say what one device says, each has weights of its own, and checks see errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from compiler.bmodel import BModel, Net, read_bmodel
from compiler.diagnostics import UserError
from driver.convert import convert
from driver.options import ConvertOptions
from runtime_sim.check.cascades import cascade_problems
from runtime_sim.check.contract import check_file
from runtime_sim.launch.loader import Program
from runtime_sim.launch.runtime import Runtime
from runtime_sim.launch.session import Session
from runtime_sim.tool.chat import open_session
from runtime_sim.tool.verify import verify_file

CASES = {  # family, mode, devices, checkpoint, options
    "two": ("llama", "bf16", 2, {"layers": 1}, {}),
    "four, two of which have one head of keys": ("qwen2", "w4bf16", 4, {"layers": 1, "tied": True}, {}),
    "codes of 8 bit": ("qwen3", "w8f16", 2, {"layers": 1}, {}),
    "three, of unequal blocks": (
        "llama", "bf16", 3,
        {"layers": 1, "hidden": 288, "heads": 9, "kv_heads": 3, "head_dim": 32, "intermediate": 320, "vocab": 1000}, {},
    ),
    "an embedding on disk": ("qwen2", "w4f16", 2, {"layers": 1, "tied": True}, {"embedding_disk": True}),
}  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tiny_checkpoint, tmp_path_factory) -> Callable[[str, int], Path]:
    """The file of a case, for so many devices; 0 for those of the case."""

    @cache
    def compile_(case: str, devices: int = 0) -> Path:
        family, mode, several, checkpoint, flags = CASES[case]
        folder, out = tiny_checkpoint(family, **checkpoint), tmp_path_factory.mktemp("compiled") / "out"
        options = ConvertOptions(folder, 24, mode, num_device=devices or several, out_dir=out, **flags)
        file = convert(options)
        assert file is not None
        return file

    return compile_


def session_of(file: Path) -> Session:
    return open_session(file, file.parent / "config", exact=False)


def tokens_of(session: Session) -> list[int]:
    return session.generate([3, 17, 400, 5, 90], 8)


@pytest.mark.parametrize("case", CASES)
def test_devices_say_together_what_one_says(compiled, case):
    file = compiled(case)
    assert f"_{CASES[case][2]}dev_" in file.name
    assert check_file(Program(read_bmodel(file))) == []
    assert tokens_of(session_of(file)) == tokens_of(session_of(compiled(case, 1)))


@pytest.mark.parametrize("case", ["two", "four, two of which have one head of keys"])
def test_each_net_computes_what_the_reference_does(compiled, tiny_checkpoint, case, capsys):
    family, _, _, checkpoint, _ = CASES[case]
    assert verify_file(compiled(case), tiny_checkpoint(family, **checkpoint)) == 0


def weights(bmodel: BModel, device: int) -> dict[str, int]:
    """Bytes by the main name of the net."""
    nets = [net for net in bmodel.nets if net.device == device and net.stages[0].coeff]
    return {net.main_name: net.stages[0].coeff.size for net in nets if net.stages[0].coeff}


def test_each_device_has_its_own_weights_only(compiled):
    one, two = (read_bmodel(compiled("two", devices)) for devices in (1, 2))
    (whole,) = (net.stages[0].coeff for net in one.nets if net.name == "block_0")
    shares = [weights(two, device) for device in range(2)]
    for share in shares:
        assert 0.5 <= share["block_0"] / whole.size < 0.52  # norms and rope tables are on both
        assert 1024 // 2 * 256 * 2 <= share["lm_head"] < 1024 // 2 * 256 * 2 + 6144  # with the final norm
    codes = {net.stages[0].coeff.check_code for net in two.nets if net.main_name == "block_0" and net.stages[0].coeff}
    assert len(codes) == 2
    assert "embedding" in shares[0]
    assert "embedding" not in shares[1]


def test_devices_that_do_the_same_have_one_program(compiled):
    nets = {net.name: net for net in read_bmodel(compiled("four, two of which have one head of keys")).nets}
    streams = [nets[f"block_cache_0_{device}"].stages[0].cores for device in range(4)]
    assert streams[1] == streams[2] == streams[3] != streams[0]


def test_the_head_is_called_on_the_first_device(compiled):
    head = session_of(compiled("two")).lm_head
    assert [buffer.info.name for buffer in head.inputs + head.outputs] == ["hidden_states.0.0", "token_id.0.0"]


# ---- mistakes ----


def swapped(model: BModel, main: str) -> BModel:
    """The weights of the first two devices in the place of each other's, in one net."""
    blobs = {net.device: net.stages[0].coeff for net in model.nets if net.main_name == main}
    return changed(model, main, lambda net: replace(net.stages[0], coeff=blobs[1 - net.device]))


def changed(model: BModel, main: str, change: Callable[[Net], object]) -> BModel:
    nets = [replace(net, stages=[change(net)]) if net.main_name == main else net for net in model.nets]
    return replace(model, nets=nets)


def renamed_input(model: BModel, part: str, old: str, new: str) -> BModel:
    (stage,) = model.net(part).stages
    inputs = [replace(info, name=new) if info.name == old else info for info in stage.inputs]
    nets = [replace(net, stages=[replace(stage, inputs=inputs)]) if net.name == part else net for net in model.nets]
    return replace(model, nets=nets)


def test_the_weights_of_another_device_show(compiled):
    model = read_bmodel(compiled("two"))
    wanted = tokens_of(Session(Runtime(model)))
    assert tokens_of(Session(Runtime(swapped(model, "block_cache_0")))) != wanted


def test_a_term_that_is_added_twice_is_told(compiled):
    model = renamed_input(read_bmodel(compiled("two")), "block_0_1_1", "all_reduce0_0a.0", "all_reduce0_0a.1")
    assert any("two inputs or two outputs have the same name" in each for each in check_file(Program(model), hashes=False))


def test_a_term_of_another_step_is_told(compiled):
    model = renamed_input(read_bmodel(compiled("two")), "block_0_1_1", "all_reduce0_0a.0", "all_reduce1_0a.0")
    told = list(cascade_problems(model))
    assert told == ["cascade block_0: net block_0_1_1 reads all_reduce1_0a.0, which no earlier step gives"]


def test_without_spares_a_step_may_write_over_what_others_read(compiled):
    def without(net: Net) -> object:
        (stage,) = net.stages
        return replace(stage, outputs=[info for info in stage.outputs if not info.name.startswith("spare")])

    model = read_bmodel(compiled("two"))
    told = list(cascade_problems(changed(model, "block_cache_0", without)))
    assert len(told) == 2
    assert any("write all_reduce1_0a.0 over all_reduce0_0a.0 before block_cache_0_1_1 reads it" in each for each in told)


def test_counts_that_do_not_divide_are_refused_before_any_work(tiny_checkpoint, tmp_path):
    options = ConvertOptions(tiny_checkpoint("llama"), 24, "bf16", num_device=3, out_dir=tmp_path / "out")
    with pytest.raises(UserError, match="--num_device 3: does not divide num_attention_heads = 4"):
        convert(options)
    assert not (tmp_path / "out").exists()
