"""What the errors of each parameter as codes do to a model, by estimate."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TypeAlias

import numpy as np

from compiler.ir.types import element
from compiler.progress import note
from compiler.weights.groups import quantize
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Floats, to_float32
from driver.calibration.calibrate import given_or_random, longest_of, sequences
from driver.calibration.running import Running
from driver.job import Job
from driver.options import AUTO, ConvertOptions
from driver.rules import BITS
from frontend.fisher import run_back
from frontend.load import OpenedModel

TOKENS = (8, 64)  # sequences and tokens of them, random or of the text
SAMPLE = 1 << 22  # weights of a parameter of a layer whose errors are looked at
Losses: TypeAlias = Mapping[str, Floats]  # by parameter: of all of it, in each of BITS


def scheme(options: ConvertOptions, bits: int) -> Scheme:
    return Scheme(bits, options.group, bits == 4 and not options.symmetric, element(options.half))


def measured(job: Job, opened: OpenedModel, names: Container[str]) -> Losses:
    """The divergence that each parameter adds, by estimate, per token."""
    options, running = job.options, Running(job, opened.config)
    shape = TOKENS[0], min(TOKENS[1], longest_of(opened.config))
    tokens = given_or_random(running, shape, shape)
    note(f"run {options.model_path} forward and back on {tokens.size} tokens")
    losses: dict[str, Floats] = {}

    def take(name: str, rows: slice, fisher: Floats) -> None:
        weight = to_float32(job.weights.read_floats(name, rows))
        lost = errors(weight, fisher, options, 1 if rows != slice(None) else max(1, weight.size // SAMPLE))
        losses[name] = losses.get(name, np.zeros(len(BITS))) + lost

    beside = sequences(running, "search") if options.calibrate in (AUTO, "search") else None
    job.importance = run_back(running.native, job.weights, tokens, names, take, beside)
    return losses


def errors(weight: Floats, fisher: Floats, options: ConvertOptions, step: int) -> Floats:
    """Half the squared errors of weights [..., rows, columns] as codes, times what they count, in each of
    BITS, by one of `step` rows. They are none in 16 bits, and unknown where no codes hold such weights.
    """
    columns = weight.shape[-1]
    rows, counts = (each.reshape(-1, columns)[::step] for each in (weight, fisher))
    importance = None if options.calibrate == "none" else counts.mean(axis=0)
    found = np.zeros(len(BITS))
    for index, bits in enumerate(BITS[:-1]):
        form = scheme(options, bits)
        if form.problem_in(rows.shape) is None:
            rounded = quantize(rows, form, importance).dequantize()
            found[index] = 0.5 * step * np.sum(counts * (rounded - rows) ** 2, dtype=np.float64)
    return found
