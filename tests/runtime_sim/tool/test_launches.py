"""What `verify` launches: every position of every net, in files of any length, of the same model only."""

import pytest
import torch

from compiler.diagnostics import UserError
from runtime_sim.launch.session import Session
from runtime_sim.tool import launches
from tests.runtime_sim.launch.fake_runtime import FakeRuntime


@pytest.mark.parametrize("position", [1, 7, 15])
def test_a_block_that_is_wrong_at_one_position_is_found(report, runtime, position):
    damage_rotation(runtime, position, with_history=False)
    assert f"block_0 out1 (cosine 0.000000 at token {position}," in report()[1].splitlines()[-1]


@pytest.mark.parametrize("position", [1, 9, 22, 23])
def test_a_cache_net_that_is_wrong_at_one_position_is_found(report, runtime, position):
    damage_rotation(runtime, position, with_history=True)
    assert f"block_cache_0 out1 (cosine 0.000000 at token {position}," in report()[1].splitlines()[-1]


def damage_rotation(runtime, position, with_history):
    """Zeros in a row of the rope tables of one kind of net."""
    layer = runtime._layer

    def run(index, x, positions, mask, *history):
        damaged = positions == position if bool(history) == with_history else positions < 0
        hook = runtime.base.rotary_emb.register_forward_hook(
            lambda module, given, output: tuple(torch.where(damaged[..., None], 0, part) for part in output)
        )
        try:
            return layer(index, x, positions, mask, *history)
        finally:
            hook.remove()

    runtime._layer = run


@pytest.mark.parametrize(("rows", "history"), [(1, 1), (1, 2), (5, 12), (16, 16)])
def test_right_nets_of_any_length_agree(folder, report, rows, history):
    assert report(FakeRuntime(folder, rows, history))[0] == 0


def test_another_number_of_layers_is_refused(report, tiny_checkpoint):
    with pytest.raises(UserError, match="the file has 2 layers, the reference 1"):
        report(reference=tiny_checkpoint("qwen3", layers=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 128, "intermediate": 256}, "the file has 256 values in a state, the reference 128"),
        ({"vocab": 512}, "the file has 1024 rows in the embedding, the reference 512"),
        ({"kv_heads": 4}, r"keys of \[2, 64\], the reference has \[4, 64\]"),
    ],
)
def test_another_size_is_refused(report, runtime, tiny_checkpoint, monkeypatch, options, message):
    monkeypatch.setattr(Session, "vocabulary", 1024)
    with pytest.raises(UserError, match=f"not the same model: .*{message}"):
        report(reference=tiny_checkpoint("qwen3", **options))


def test_every_stage_of_every_layer_is_run(folder, report):
    code, out = report(FakeRuntime(folder, history=12, shorter=(6, 3)))
    assert code == 0
    names = [line.split()[0] for line in out.splitlines() if line.startswith("block_cache")]
    assert names == [f"block_cache_{layer}{stage}" for stage in ("", ".1", ".2") for layer in (0, 1)]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_wrong_stage_is_named(folder, report, stage):
    runtime = FakeRuntime(folder, history=12, shorter=(6, 3))
    compute, wrong = runtime._compute, runtime.stages("block_cache_1")[stage].name

    def run(name, inputs):
        outputs = compute(name, inputs)
        return [-outputs[0], *outputs[1:]] if name == wrong else outputs

    runtime._compute = run
    code, out = report(runtime)
    assert code == 1
    assert f"first at {wrong} out0" in out.splitlines()[-1]


def positions_of(runtime, report):
    """Those that the cache nets of the first layer are given, by name."""
    seen, launch = {}, runtime.launch

    def spy(net, *given):
        launch(net, *given)
        if net.name.startswith("block_cache_0"):
            seen.setdefault(net.name, []).append(int(net.inputs[1].array.flat[0]))

    runtime.launch = spy
    report(runtime)
    return seen


def test_a_stage_is_run_up_to_the_last_row_that_clients_use_it_for(folder, report):
    """At every position that its layer's block has not shown."""
    runtime = FakeRuntime(folder, rows=2, history=12, shorter=(6,))
    seen = positions_of(runtime, report)
    assert max(seen["block_cache_0.1"]) == 5
    assert max(seen["block_cache_0"]) == 11
    assert {1, 3, 5} <= set(seen["block_cache_0.1"])


@pytest.mark.parametrize(("most", "given"), [(11, range(1, 12)), (6, range(1, 12, 2)), (3, range(1, 12, 4))])
def test_positions_of_long_caches_are_spread(folder, report, monkeypatch, most, given):
    """Beside the one in the middle, the second and the last."""
    monkeypatch.setattr(launches, "POSITIONS", most)
    seen = positions_of(FakeRuntime(folder, rows=2, history=12), report)["block_cache_0"]
    assert sorted(seen) == sorted({6, 1, 11, *given})
