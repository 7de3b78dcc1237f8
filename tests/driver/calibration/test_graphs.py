"""What the graphs of a job tell of its parameters."""

from __future__ import annotations

from dataclasses import replace

from compiler.ir.types import BF16
from compiler.weights.scheme import Scheme
from driver.calibration.graphs import folds_of_layers, folds_of_norms, stored_plainly
from driver.convert import compiled_job
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from frontend.load import open_model
from passes import load_all


def test_folds_and_schemes_are_those_of_the_program(tiny_checkpoint, tmp_path):
    folder = tiny_checkpoint("llama", layers=2, hidden=128, heads=2, kv_heads=1, intermediate=128, vocab=320)
    load_all()
    options = ConvertOptions(folder, 64, "w4bf16", out_dir=tmp_path / "out", jobs=1)
    job = compiled_job(replace(options, passes=default_pipeline(options)), open_model(folder))
    schemes = stored_plainly(job)
    assert len(schemes) == 2 * 7
    assert set(schemes.values()) == {Scheme(4, 64, True, BF16)}
    folds = folds_of_layers(job)
    assert len(folds) == 2 * 3
    assert len(folds_of_norms(job)) == 2 * 2
    assert all(name in job.weights.tensors for fold in folds for name in fold.names)
