"""What running the model before weights become codes takes of this machine, by samples of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from compiler.weights.stored import Floats, to_float32
from driver.groups import table_of
from driver.job import Job
from driver.precision import linears_of
from frontend.calibration import sample_product
from frontend.values import exceeds

SAMPLE_WEIGHTS = 1 << 23  # of a product that stands for all, at most
READS = 3  # into memory that is new, and then into the same


@dataclass(frozen=True)
class Step:
    """CPU seconds of some work, and how many jobs may share it."""

    seconds: float
    ways: int = 1

    def times(self, count: int) -> Step:
        return Step(count * self.seconds, self.ways)


@dataclass(frozen=True)
class RunCost:
    """Steps one after the other, and bytes."""

    steps: tuple[Step, ...] = ()
    memory: int = 0

    @property
    def cpu_seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    def seconds(self, jobs: int) -> float:
        return sum(step.seconds / min(jobs, step.ways) for step in self.steps)


@dataclass(frozen=True)
class Run:
    """A model on its way through some tokens, with a layer in memory at a time."""

    layers: Counter[int]  # weights that linears of each multiply by
    largest: int  # those of the largest linear
    tokens: int
    batches: int
    read: float  # seconds for a weight
    product: float  # for a weight and a batch

    @staticmethod
    def of(job: Job, tokens: int, batches: int) -> Run:
        layers, largest = sizes_of_layers(job)
        return Run(layers, largest, tokens, batches, *rates(job, -(-tokens // batches), largest))

    @property
    def items(self) -> int:
        return sum(self.layers.values())

    @property
    def steps(self) -> tuple[Step, Step]:
        """To read all weights, and to multiply by them."""
        products = self.product * self.batches * self.items
        return Step(self.read * self.items), Step(products, self.batches)

    @property
    def memory(self) -> int:
        """Floats of a layer, and what they are made of."""
        return 4 * max(self.layers.values()) + 2 * self.largest


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

    reading = seconds_of(lambda: [read() for _ in range(READS)])
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
