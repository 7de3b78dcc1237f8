"""One model on its way: nets in the order of the file, one tuning for layers that differ little."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from compiler.bmodel import AddrMode, Net
from compiler.diagnostics import UserError
from compiler.target.attribute import set_target
from dialects.nets import net_of
from driver.job import LEAST, LESS_AHEAD, Job, for_all_functions, kind_of
from driver.options import ConvertOptions
from driver.pipelines import Effort, Efforts, default_pipeline
from frontend.binding import Weights
from frontend.imported import NetGroup
from frontend.importer import import_model
from passes import load_all
from passes.chip.allocate_local import DoesNotFit
from passes.manager import parse_pipeline
from passes.options import ByFunction
from tests.frontend.oracle import SMALL

OF_PREFILL, OF_ONE_TOKEN = [f"block_{layer}" for layer in range(3)], [f"block_cache_{layer}" for layer in range(3)]


@pytest.fixture
def job(tmp_path) -> Job:
    """Of a model with three layers, of which the last turns nothing, and so is a module of its own."""
    options = ConvertOptions(tmp_path / "model", 8, "bf16", out_dir=tmp_path / "out")
    settings = {**SMALL, "model_type": "smollm3", "no_rope_layers": [1, 1, 0]}
    return Job(options, import_model(settings, 8), Weights({}))


@pytest.fixture
def blocks(job) -> list[NetGroup]:
    return [group for group in job.model.nets if group.of_layers]


def test_nets_of_one_name_follow_each_other_by_layer(job, monkeypatch):
    def bound(self, module, instance):
        for function in module.functions():
            net = net_of(function)
            yield net.name, Net(net.name_for(instance.layer), AddrMode.BASIC, [])

    monkeypatch.setattr(Job, "bound", bound)
    job.nets = [NetGroup(group.module, group.instances[::-1]) for group in job.model.nets]
    names = [net.name for net in job.bmodel().nets]
    assert names == ["embedding", "embedding_cache", "lm_head", *OF_PREFILL, *OF_ONE_TOKEN]


@pytest.fixture
def staged(tmp_path) -> Job:
    options = ConvertOptions(tmp_path / "model", 8, "bf16", chunk_length=2, out_dir=tmp_path / "out")
    model = import_model({**SMALL, "model_type": "llama"}, 8, shorter=options.shorter_histories)
    return Job(options, model, Weights({}))


def test_trials_are_made_without_further_stages(staged, monkeypatch):
    seen = []

    def stop(self, name, module, pipeline, trial=False):
        seen.extend(net_of(function).stage_name for function in module.functions())
        raise DoesNotFit("enough")

    monkeypatch.setattr(Job, "run_passes", stop)
    block = next(group for group in staged.model.nets if group.of_layers)
    with pytest.raises(DoesNotFit):
        staged.searched(block)
    assert seen == ["block", "block_cache"]
    names = [net_of(function).stage_name for function in block.module.functions()]
    assert names == ["block", "block_cache", "block_cache.1", "block_cache.2"]


def test_time_left_is_by_what_passes_took_in_trials(staged, monkeypatch):
    load_all()
    shown, done = {}, Counter()

    @contextmanager
    def steps(title, seconds):
        shown[title] = seconds
        yield lambda: done.update([title])

    monkeypatch.setattr("driver.job.steps", steps)
    group = next(group for group in staged.model.nets if group.of_layers)
    set_target(group.module, staged.options.spec)
    staged.compiled(group)
    ((title, seconds),) = shown.items()
    passes = parse_pipeline(default_pipeline(staged.options))
    assert (title, done[title], len(seconds)) == ("compile block_0", len(passes), len(passes))
    assert {each.name for each, took in zip(passes, seconds, strict=True) if took == LEAST} <= {"canonicalize"}
    assert seconds[-1] == staged._seconds[passes[-1].name]


def test_further_stages_are_compiled_as_the_first(staged):
    module = next(group.module for group in staged.model.nets if group.of_layers)
    prefill, decode = Effort(tokens=64), Effort(fill=0.5)
    efforts = for_all_functions({"block": prefill, "block_cache": decode}, module, 1)
    assert [efforts[function.sym_name] for function in module.functions()] == [prefill, decode, decode, decode]
    assert for_all_functions({"block": prefill, "block_cache": prefill}, module, 1) == ByFunction(prefill)


def test_all_cores_of_a_net_are_compiled_as_the_first_is(staged):
    prefill, decode = Effort(tokens=32), Effort(keep=1)
    module = next(group.module for group in staged.model.nets if group.of_layers)
    efforts = for_all_functions({"block.core0": prefill, "block_cache": decode}, module, 2)
    assert efforts["block.core1"] == efforts["block.core0"] == prefill
    assert efforts["block_cache"] == efforts["block_cache.1"] == decode


class Runs:
    """Records searches and pipelines instead of compiling; a module whose turn it is in `tight` does not fit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *tight: int) -> None:
        self.tight = tight
        self.searched: list[str] = []
        self.compiled: list[tuple[str, str]] = []
        monkeypatch.setattr(Job, "searched", self.search)
        monkeypatch.setattr(Job, "run_passes", self.run_passes)

    def search(self, group: NetGroup) -> Efforts:
        self.searched.append(group.name)
        return ByFunction(Effort(tokens=64 * len(self.searched)))

    def run_passes(self, name: str, module: object, pipeline: str) -> object:
        self.compiled.append((name, pipeline))
        if len(self.compiled) - 1 in self.tight:
            raise DoesNotFit("too large")
        return module


def test_layers_that_differ_little_are_tuned_once(job, blocks, monkeypatch):
    runs = Runs(monkeypatch)
    first, last = blocks
    assert kind_of(first, {}) == kind_of(last, {})
    assert [job.compiled(group) for group in blocks] == [first.module, last.module]
    assert runs.searched == ["block_0"]
    (_, once), (_, again) = runs.compiled
    assert "tokens=64" in once
    assert once == again


def test_a_layer_that_does_not_fit_with_the_tuning_of_another_gets_its_own(job, blocks, monkeypatch):
    runs = Runs(monkeypatch, 1)
    for group in [*blocks, blocks[0]]:
        job.compiled(group)
    assert runs.searched == ["block_0", "block_2"]
    assert [name for name, _ in runs.compiled] == ["block_0", "block_2", "block_2", "block_0"]
    assert ["tokens=128" in pipeline for _, pipeline in runs.compiled] == [False, False, True, True]


@pytest.mark.parametrize(
    "changes",
    [
        {"intermediate_size": 192},
        {"num_key_value_heads": 4},
        {"model_type": "mistral", "sliding_window": 4},
    ],
)
def test_layers_that_differ_much_are_tuned_each_by_itself(blocks, changes):
    other = import_model({**SMALL, "model_type": "llama"} | changes, 8)
    group = next(group for group in other.nets if group.of_layers)
    assert kind_of(group, {}) != kind_of(blocks[0], {})
    assert kind_of(blocks[0], {"mlp.down_proj": 8}) != kind_of(blocks[0], {})


def test_what_fits_in_a_few_runs_but_not_in_all_loads_less_ahead(job, blocks, monkeypatch):
    runs = Runs(monkeypatch, 0, 1)
    for group in blocks:
        job.compiled(group)
    assert runs.searched == ["block_0"]
    fills = [re.findall(r"hoist-loads{fill=(.*?)}", pipeline)[0] for _, pipeline in runs.compiled]
    assert fills == ["0.85", "0.8", "0.75", "0.75"], "the next layer begins with what fits"


def test_what_fits_with_no_tuning_is_told_by_what_the_user_can_change(job, blocks, monkeypatch):
    Runs(monkeypatch, *range(2 * (1 + len(LESS_AHEAD))))
    problem = "hidden_size is 64: too large; use a narrower model on bm1684x"
    with pytest.raises(UserError, match=f"^{Path(job.options.model_path)}: {problem}$"):
        job.compiled(blocks[0])
    (head,) = (group for group in job.model.nets if group.name == "lm_head")
    with pytest.raises(UserError, match=f"^{Path(job.options.model_path)}: "):
        job.compiled(head)
