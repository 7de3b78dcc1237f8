"""What running a model to calibrate is foretold to take."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from driver.ahead import calibration_cost as costs
from driver.ahead import run_cost
from driver.ahead.calibration_cost import calibration_cost
from driver.ahead.run_cost import Run, RunCost, Step, sizes_of_layers
from driver.convert import compiled_job
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from frontend.load import open_model
from passes import load_all

LAYER = 2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256


@pytest.fixture
def given(tiny_checkpoint):
    load_all()
    options = ConvertOptions(tiny_checkpoint("llama", layers=2), 64, "w4bf16")
    options = replace(options, passes=default_pipeline(options))
    opened = open_model(options.model_path)
    return compiled_job(options, opened), opened.config


def test_linears_of_layers_are_counted_once(given):
    assert sizes_of_layers(given[0]) == ({0: LAYER, 1: LAYER}, 512 * 256)


def test_seconds_and_memory_grow_with_the_weights_and_batches(given, monkeypatch):
    monkeypatch.setattr(run_cost, "rates", lambda job, tokens, largest: (1e-6, 3e-8 * tokens))
    run = Run.of(given[0], 1000, 4)
    assert run.steps == (Step(pytest.approx(2e-6 * LAYER)), Step(pytest.approx(2 * 3e-5 * LAYER), 4))
    assert run.memory == 4 * LAYER + 2 * 512 * 256


def test_a_search_builds_a_model_and_runs_it_once(given, monkeypatch):
    job, config = given
    run = Run(Counter({0: 10}), 10, 128, 1, 1.0, 2.0)
    monkeypatch.setattr(costs.Run, "of", lambda job, tokens, batches: replace(run, tokens=tokens, batches=batches))
    monkeypatch.setattr(costs, "seconds_of", lambda action, times: 5.0)
    monkeypatch.setattr(costs, "dividing", lambda job, run: [Step(7.0)])
    found = calibration_cost(job, config)
    assert found == RunCost((Step(5.0), Step(10.0), Step(20.0, 1), Step(7.0)), run.memory)
    monkeypatch.setattr(costs, "BATCH_TOKENS", 64)
    assert calibration_cost(job, config).steps[-2] == Step(40.0, 2)
    job.importance = {"some": np.ones(1)}
    assert calibration_cost(job, config) == RunCost((Step(7.0),))
    job.options = replace(job.options, calibrate="none")
    assert calibration_cost(job, config) == RunCost()


def test_what_has_several_ways_is_shared_by_the_jobs():
    cost = RunCost((Step(1), Step(6, 3)))
    assert [cost.seconds(jobs) for jobs in (1, 2, 4)] == [7, 4, 3]
    assert cost.cpu_seconds == 7
    assert Step(6, 3).times(2) == Step(12, 3)
