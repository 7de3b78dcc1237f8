"""What running the model before weights become codes takes of this machine, by a sample of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from compiler.weights.stored import Floats, to_float32
from driver.calibration.calibrate import longest_of, method_of, native_of, sequences
from driver.groups import table_of
from driver.job import Job
from driver.precision import linears_of
from frontend.calibration import BATCH_TOKENS, sample_product
from frontend.config import ModelConfig
from frontend.values import exceeds

SAMPLE_WEIGHTS = 1 << 23  # of a product that stands for all, at most
READS = 3  # into memory that is new, and then into the same


@dataclass(frozen=True)
class RunCost:
    """CPU seconds and bytes: to read weights one by one, and to multiply by them in batches that the
    jobs share.
    """

    read_seconds: float = 0
    product_seconds: float = 0
    batches: int = 1
    memory: int = 0

    @property
    def cpu_seconds(self) -> float:
        return self.read_seconds + self.product_seconds

    def seconds(self, jobs: int) -> float:
        return self.read_seconds + self.product_seconds / min(jobs, self.batches)


def run_cost(job: Job, config: ModelConfig) -> RunCost:
    """Of a search by what outputs lose; nothing for other ways to choose codes."""
    if method_of(job) != "search":
        return RunCost()
    build = seconds_of(lambda: native_of(job, config), 1)
    tokens = sequences(job, "search", None, longest_of(config)).size
    layers, largest = sizes_of_layers(job)
    batches = -(-tokens // BATCH_TOKENS)
    reading, product = rates(job, -(-tokens // batches), largest)
    items = sum(layers.values())
    memory = 4 * max(layers.values()) + 2 * largest
    return RunCost(build + reading * items, product * batches * items, batches, memory)


def sizes_of_layers(job: Job) -> tuple[Counter[int], int]:
    """Weights that linears of each layer multiply by, and those of the largest of them."""
    shapes = {
        (linear.instance.layer, linear.parameter): job.weights.shape(linear.parameter)
        for group in job.model.nets
        if group.of_layers
        for linear in linears_of(group)
    }
    found: Counter[int] = Counter()
    for (layer, _), shape in shapes.items():
        found[layer or 0] += prod(shape)
    return found, max(map(prod, shapes.values()))


def rates(job: Job, tokens: int, largest: int) -> tuple[float, float]:
    """Seconds to make float32 of a weight, and to multiply so many tokens by it."""
    columns = table_of(job.model).y.type.shape[1]
    shape = max(1, min(largest, SAMPLE_WEIGHTS) // columns), columns
    stored = np.ones(shape, job.weights.half)

    def read() -> Floats:
        values = stored.copy()
        exceeds(values, job.weights.limit)
        return to_float32(values)

    reading = seconds_of(lambda: [read() for _ in range(READS)], 1)
    product = seconds_of(sample_product(tokens, *shape))
    return reading / READS / stored.size, product / stored.size


def seconds_of(action: Callable[[], object], times: int = 3) -> float:
    """CPU time of it, the least of some."""
    found = []
    for _ in range(times):
        start = time.thread_time()
        action()
        found.append(time.thread_time() - start)
    return min(found)
