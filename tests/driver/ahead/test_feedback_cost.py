"""What --calibrate gptq is foretold to take."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from compiler.ir.types import BF16
from compiler.weights.scheme import Scheme
from driver.ahead import feedback_cost as costs
from driver.ahead.feedback_cost import (
    Inputs,
    Rates,
    dividing,
    feedback_cost,
    inputs_in,
    settling,
    tried,
    writing,
    writing_memory,
)
from driver.ahead.run_cost import Run, Step
from driver.calibration.graphs import folds_of_norms
from driver.convert import compiled_job
from driver.options import ConvertOptions
from frontend.load import open_model
from passes import load_all

SCHEME = Scheme(4, 32, True, BF16)
SIZES = {"layers": 3, "hidden": 128, "heads": 2, "kv_heads": 1, "intermediate": 256, "vocab": 320}
RUN = Run(Counter({0: 10, 1: 10}), 10, tokens=100, batches=2, read=1.0, product=5.0)


@pytest.fixture
def job(tiny_checkpoint):
    load_all()
    folder = tiny_checkpoint("llama", **SIZES)
    options = ConvertOptions(folder, 64, "w4bf16", q_group_size=32, calibrate="gptq", lm_head_quantize=8, jobs=1)
    return compiled_job(options, open_model(folder))


@pytest.fixture
def known(monkeypatch):
    """One second for each of what is counted."""
    monkeypatch.setattr(Rates, "of", lambda scheme: Rates(1.0, 100.0, 10_000.0, 1_000_000.0))
    monkeypatch.setattr(costs, "seconds_of_factor", lambda width, group: 1000.0 * width)


def test_weights_are_found_by_what_they_are_multiplied_by(job):
    layer = [
        Inputs(128, SCHEME, (128, 64, 64), True),
        Inputs(128, SCHEME, (128,), False),
        Inputs(128, SCHEME, (256, 256), True),
        Inputs(256, SCHEME, (128,), False),
    ]
    head = [Inputs(128, Scheme(8, 32, False, BF16), (320,), False)]
    found = [*inputs_in(job, folds_of_norms(job))]
    assert {count for inputs, count in found if inputs == layer} == {3}
    assert [inputs for inputs, _ in found if inputs != layer] == [head]


def test_inputs_are_in_squares_of_whole_groups():
    inputs = Inputs(18_944, SCHEME, (3584, 3584), False)
    assert (sum(inputs.widths), max(inputs.widths)) == (18_944, 3808)
    assert inputs.squares == sum(width**2 for width in inputs.widths)
    assert inputs.weights == 2 * 3584 * 18_944


def test_codes_take_the_weights_and_the_squares_of_inputs(known):
    """Rows are shared, in blocks; what serves all of them is not."""
    alone, small, large = settling(Inputs(64, SCHEME, (64, 2048), False), read=0.5)
    assert alone == Step(0.5 * 64 * 2112 + 1000 * 64)
    assert small == Step(64 * (64 + 100 * 64 * 64 / 2), 1)
    assert large == Step(2048 * (64 + 100 * 64 * 64 / 2), 2)


def test_factors_are_tried_on_some_rows(known):
    inputs = Inputs(64, SCHEME, (64, 2048), True)
    alone, *rest = settling(inputs, read=0.5)
    assert rest == [*settling(replace(inputs, folded=False), 0.5)][1:]
    assert alone.seconds == 2 * 0.5 * 64 * 2112 + 1000 * 64 + 4 * (32 + 32) * (10_000 * 64 + 100 * 64 * 64)


def test_what_is_divided_is_read_twice_and_shared_by_layer(job, known):
    """Of three layers: inputs of q, k and v, of gate and up, of down."""
    *found, last = dividing(job, RUN)
    assert [step.ways for step in found] == [3, 3]
    down = Inputs(256, SCHEME, (128,), True)
    assert last == Step(3 * (2 * 1.0 * 256 * 128 + 4 * 32 * 256 * 10_000), 3)
    assert tried(down, 5.0) - tried(down, 0.0) == 4 * 32 * 5


def test_the_model_runs_twice_and_writes_what_no_text_gives(job, known, tmp_path):
    weights, squares = 64 * 64, 64 * 64
    inputs = Inputs(64, SCHEME, (64,), False)
    job.options = replace(job.options, calibration_text=tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "inputs_in", lambda job, folds: [([inputs], 2)])
        found = feedback_cost(job, RUN)
        assert found.steps[:2] == (Step(2 * 5.0 * 2 * squares, 2), Step(2 * 1e6 * weights))
        assert found.steps[2:-2] == tuple(step.times(2) for step in settling(inputs, 1.0))
        assert found.memory == RUN.memory + 4 * (2 * 100 * 128 + (1 + 2) * squares + 50 * 64)
        assert found.steps[-2:] == (Step(20.0), Step(2 * 5.0 * 2 * 20, 2))
        job.options = replace(job.options, calibration_text=None)
        assert feedback_cost(job, RUN).steps[3:] == found.steps
    assert len([*writing(job, RUN)]) == 3


def test_memory_has_keys_and_values_of_all_tokens_that_are_written(job):
    """Of one head of 64 in each of three layers, beside logits of the vocabulary."""
    assert writing_memory(job, RUN) == 4 * (320 * (128 + 128) + 100 * 3 * 2 * 64)


def test_samples_take_some_time():
    found = Rates.of(SCHEME)
    assert min(found.rounding, found.multiply, found.search, found.codes) > 0
    assert costs.seconds_of_factor(64, 32) > 0
