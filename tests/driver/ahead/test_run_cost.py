"""What running a model to calibrate is foretold to take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from driver.ahead import run_cost as costs
from driver.ahead.run_cost import RunCost, run_cost, sizes_of_layers
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
    job, config = given
    monkeypatch.setattr(costs, "rates", lambda job, tokens, largest: (1e-6, 3e-6))
    monkeypatch.setattr(costs, "seconds_of", lambda action, times: 5.0)
    found = run_cost(job, config)
    assert found.read_seconds == pytest.approx(5 + 2e-6 * LAYER)
    assert (found.product_seconds, found.batches) == (pytest.approx(6e-6 * LAYER), 1)
    assert found.memory == 4 * LAYER + 2 * 512 * 256
    monkeypatch.setattr(costs, "BATCH_TOKENS", 64)
    assert run_cost(job, config).product_seconds == pytest.approx(12e-6 * LAYER)


def test_batches_are_shared_by_the_jobs():
    cost = RunCost(1, 6, batches=3)
    assert [cost.seconds(jobs) for jobs in (1, 2, 4)] == [7, 4, 3]
    assert cost.cpu_seconds == 7


@pytest.mark.parametrize("method", ["none", "gptq"])
def test_other_methods_are_not_foretold(given, method):
    job, config = given
    job.options = replace(job.options, calibrate=method)
    assert run_cost(job, config) == RunCost()
