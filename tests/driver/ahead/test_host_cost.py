"""What a compile is foretold to take of its machine."""

from __future__ import annotations

import resource
import tracemalloc
from dataclasses import replace

import pytest

from compiler.weights.scheme import Scheme
from driver.ahead.host_cost import HostCost, WeightWork, host_cost, most_at_once, sampler, works_of
from driver.ahead.run_cost import RunCost, Step
from driver.calibration.graphs import stored_plainly
from driver.convert import compiled_job
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from frontend.load import open_model
from passes import load_all


def job_of(folder, **changes):
    load_all()
    options = ConvertOptions(folder, 64, "w4bf16", q_group_size=32, jobs=2, **changes)
    options = replace(options, passes=default_pipeline(options))
    return compiled_job(options, open_model(folder))


@pytest.fixture
def job(tiny_checkpoint):
    return job_of(tiny_checkpoint("llama", layers=2))


def works(job):
    return {group.name: list(works_of(job, group.module, group.instances[0])) for group in job.nets}


def test_every_weight_is_counted_once(job):
    """Those of the linears of a layer, by their shapes."""
    shapes = job.weights
    names = [name for name in shapes.tensors if name.startswith("model.layers.0.") and "proj" in name]
    wanted = sum(shapes.shape(name)[0] * shapes.shape(name)[1] for name in names)
    found = [work for work in works(job)["block_0"] if work.sample is not None]
    assert sum(work.items for work in found) == wanted
    assert all(isinstance(work.form[0], Scheme) and work.code_bytes == 1 for work in found)


def test_blobs_are_made_of_what_is_counted(job):
    for group in job.nets:
        pieces = job.pieces(group.module, group.instances[0])
        assert sum(work.size for work in works(job)[group.name]) == sum(piece.size for piece in pieces)


def test_a_sample_is_a_tile_of_the_form_that_it_stands_for(job):
    for work in works(job)["block_0"]:
        if work.sample is not None:
            made = sampler(work, job)()
            assert made.nbytes == work.sample.tile.total_bytes


def test_memory_of_the_largest_weight_is_about_what_making_it_takes(tiny_checkpoint):
    job = job_of(tiny_checkpoint("llama", layers=1, hidden=512, heads=4, kv_heads=4, intermediate=4096))
    module, instance = job.nets[-1].module, job.nets[-1].instances[0]
    work = max(works_of(job, module, instance), key=lambda each: each.peak)
    materializer = job.materializer(instance)
    sources = [p.source for p in job.pieces(module, instance) if getattr(p.source, "names", ()) == work.sample.names]
    tracemalloc.start()
    list(materializer.pieces(sources))
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert work.peak == pytest.approx(taken, rel=0.5)


def test_as_many_weights_are_in_memory_as_there_are_jobs():
    small, large = (WeightWork("x", None, items, items, 1, items // 2, False) for items in (100, 1_000))
    assert (small.peak, large.peak) == (300, 3_000)
    assert most_at_once([small, large, small], 1) == 3_000 + 50
    assert most_at_once([large, small, large], 2) == 6_000 + 50
    assert most_at_once([], 2) == 0


def test_weights_are_shared_by_the_jobs_and_nothing_else_is():
    cost = HostCost(compile_seconds=5, run=RunCost((Step(3), Step(4, 2))), weight_seconds=8, write_seconds=1, memory=0, jobs=4)
    assert (cost.seconds, cost.cpu_seconds) == (13, 21)


def test_weights_that_feedback_settles_are_only_packed(job):
    module, instance = job.nets[-1].module, job.nets[-1].instances[0]
    packed = [work for work in works_of(job, module, instance, stored_plainly(job)) if work.sample is not None]
    assert packed
    assert all(work.taken_over for work in packed)
    assert not any(work.taken_over for work in works_of(job, module, instance))


def test_all_layers_are_counted(job, monkeypatch):
    monkeypatch.setattr("driver.ahead.host_cost.seconds_of", lambda action: 1.0)
    one = host_cost(job, 3.0, RunCost(), 1 << 20)
    instances = job.nets[-1].instances
    job.nets[-1].instances.append(instances[0])
    assert host_cost(job, 3.0, RunCost(), 1 << 20).weight_seconds > one.weight_seconds
    assert one.compile_seconds == 3.0


def test_running_the_model_and_making_weights_take_memory_one_after_the_other(job, monkeypatch):
    """Beside what the process has taken so far, which grows from call to call."""
    taken = resource.getrusage(resource.RUSAGE_SELF)
    monkeypatch.setattr(resource, "getrusage", lambda who: taken)
    one, large = (host_cost(job, 3.0, RunCost(memory=size), 1 << 20).memory for size in (0, 1 << 32))
    assert one < 1 << 32 < large < one + (1 << 32)
