"""What `--calibrate gptq` takes: a model that writes tokens and runs on them, and codes that make up for each
other's errors, layer by layer; and what dividing inputs takes, which `search` does too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from tempfile import TemporaryFile

import numpy as np

from compiler.ir.core import Value
from compiler.ir.module import walk
from compiler.ir.types import F32
from compiler.weights import equalize
from compiler.weights.feedback import ROWS, Rounding, Span
from compiler.weights.groups import quantize
from compiler.weights.moments import spans
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized
from dialects import llm
from driver.ahead.run_cost import Run, RunCost, Step, rates, seconds_of
from driver.calibration.calibrate import WRITTEN
from driver.calibration.folds import Fold
from driver.calibration.graphs import folds_of_layers, folds_of_norms, stored_plainly
from driver.calibration.kept import Shelf
from driver.groups import table_of
from driver.job import Job
from frontend.imported import NetGroup
from frontend.writing import HEAD_ROWS, PARTS, noise

SAMPLE_WIDTH = 1024  # inputs of a factor that stands for all, at most
SAMPLE_GROUPS = 2  # of columns that stand for all
DRAWS = 1 << 16


@dataclass(frozen=True)
class Inputs:
    """What some weights of a layer are multiplied by; none of them is known to be in another order."""

    width: int
    scheme: Scheme
    rows: tuple[int, ...]  # of each of the weights
    folded: bool  # whether they may be divided by factors

    @property
    def widths(self) -> list[int]:
        """Of the squares of their products."""
        return [span.stop - span.start for span in spans(self.width, self.scheme.group)]

    @property
    def squares(self) -> int:
        return sum(width**2 for width in self.widths)

    @property
    def weights(self) -> int:
        return self.width * sum(self.rows)


def inputs_in(job: Job, folds: Sequence[Fold]) -> Iterator[tuple[list[Inputs], int]]:
    """Of a layer, or of the head, and how many layers are like it."""
    schemes = stored_plainly(job)
    folded = {name for fold in folds for name in fold.readers}
    for group in job.model.nets:
        found = []
        for names in read_alike(group):
            known = [name for name in names if name in schemes]
            if known:
                rows = tuple(job.weights.shape(name)[0] for name in known)
                width = job.weights.shape(known[0])[1]
                found.append(Inputs(width, schemes[known[0]], rows, folded.issuperset(known)))
        if found:
            yield found, len(group.instances)


def read_alike(group: NetGroup) -> list[list[str]]:
    """The parameters of the first layer of a group that are multiplied by the same."""
    function, *_ = group.module.functions()
    found: dict[Value, list[str]] = {}
    for op in walk(function):
        if isinstance(op, llm.LinearOp) and (weight := op.weight.defining(llm.WeightOp)):
            found.setdefault(op.x, []).append(group.instances[0].parameter_name(weight.name))
    return [*found.values()]


@dataclass(frozen=True)
class Rates:
    """Seconds, by samples of weights of one scheme."""

    rounding: float  # of a weight, apart from what is next
    multiply: float  # of two numbers, to add what other columns come to
    search: float  # of a weight, for the choice of factors
    codes: float  # to have a weight from its codes in a file

    @staticmethod
    @cache
    def of(scheme: Scheme) -> Rates:
        columns = SAMPLE_GROUPS * scheme.group
        weight = np.random.default_rng(0).standard_normal((ROWS, columns), np.float32)
        span = Span.of(0, np.identity(columns, np.float32), scheme.group, columns)
        errors = np.ones((SAMPLE_WIDTH, ROWS), np.float32)
        follow = np.ones((SAMPLE_WIDTH, columns), np.float32)[:, : scheme.group]
        some, importance = weight[: equalize.ROWS], np.ones(columns, np.float32)
        return Rates(
            seconds_of(lambda: Rounding(span, weight, scheme).run()) / weight.size,
            seconds_of(lambda: follow.T @ errors) / (errors.size * scheme.group),
            seconds_of(lambda: quantize(some, scheme, importance)) / some.size,
            seconds_of_codes(quantize(weight, scheme)) / weight.size,
        )


def seconds_of_codes(weight: Quantized) -> float:
    with TemporaryFile() as file:
        stored = Shelf(file).put(None, weight)  # type: ignore[arg-type]  # which nothing reads here
        return seconds_of(lambda: stored.read().dequantize())


@cache
def seconds_of_factor(width: int, group: int) -> float:
    """Of the inputs' products, which takes their cube, apart from what takes their square."""
    whole = -(-min(width, SAMPLE_WIDTH) // group) * group
    square = np.identity(whole, np.float32)
    cube = seconds_of(lambda: np.linalg.cholesky(square.astype(np.float64)))
    rest = seconds_of(lambda: Span.of(0, square, group, whole)) - cube
    times = width / whole
    return max(0.0, rest) * times**2 + cube * times**3


def settling(inputs: Inputs, read: float) -> Iterator[Step]:
    """To put codes in the place of a layer's weights that are multiplied by some inputs."""
    known = Rates.of(inputs.scheme)
    factors = sum(seconds_of_factor(width, inputs.scheme.group) for width in inputs.widths)
    alone = inputs.weights * read + factors
    if inputs.folded:
        alone += inputs.weights * read + tried(inputs, inputs.squares * known.multiply)
    yield Step(alone)
    for rows in inputs.rows:
        seconds = rows * (inputs.width * known.rounding + inputs.squares / 2 * known.multiply)
        yield Step(seconds, -(-rows // ROWS))


def tried(inputs: Inputs, more: float) -> float:
    """Seconds to choose the factors of inputs; with `more` for each row, beside its codes."""
    sampled = sum(len(range(0, rows, max(1, rows // equalize.ROWS))) for rows in inputs.rows)
    row = inputs.width * Rates.of(inputs.scheme).search + more
    return len(equalize.EXPONENTS) * sampled * row


def dividing(job: Job, run: Run) -> Iterator[Step]:
    """For codes that are chosen each by itself: weights are read to choose factors, and multiplied."""
    for found, count in inputs_in(job, folds_of_layers(job)):
        for inputs in found:
            if inputs.folded:
                yield Step(count * (2 * inputs.weights * run.read + tried(inputs, 0.0)), count)


def writing(job: Job, run: Run) -> Iterator[Step]:
    """For a model to write tokens, one after the other in some sequences."""
    count, length = WRITTEN
    table, vocabulary = table_of(job.model).y.type.size, table_of(job.model).y.type.shape[0]
    _, few = rates(job, count // PARTS, run.largest)
    _, all_ = rates(job, count, table)
    drawing = seconds_of(lambda: noise((DRAWS,), np.random.default_rng(0))) / DRAWS
    times = length - 1
    yield Step(times * run.read * (run.items + 2 * table))  # as the embedding and as the head
    yield Step(times * few * PARTS * run.items, PARTS)
    yield Step(times * (all_ * table + drawing * count * vocabulary))


def feedback_cost(job: Job, run: Run) -> RunCost:
    """The model runs twice, layer by layer: to measure, and on what was made of that."""
    layers = [*inputs_in(job, folds_of_norms(job))]
    steps, most = [], [0]
    if job.options.calibration_text is None:
        steps, most = [*writing(job, run)], [writing_memory(job, run)]
    for found, count in layers:
        for inputs in found:
            measuring = Step(run.product * run.batches * inputs.squares, run.batches)
            again = Step(Rates.of(inputs.scheme).codes * inputs.weights)
            steps += [step.times(count) for step in (measuring, again, *settling(inputs, run.read))]
    reading, products = run.steps
    most += [measuring_memory(found, job, run) for found, _ in layers]
    return RunCost((*steps, reading, products.times(2)), run.memory + max(most))


def writing_memory(job: Job, run: Run) -> int:
    """Bytes beside a layer's weights: keys and values of all layers; rows of the head, and their logits."""
    table = table_of(job.model).y.type
    head = min(HEAD_ROWS, table.shape[0]) * (table.shape[1] + WRITTEN[0])
    layers = [group for group in job.model.nets if group.of_layers]
    kept = sum(len(group.instances) * kept_in(group) for group in layers)
    return F32.bytes * (head + run.tokens * kept)


def kept_in(group: NetGroup) -> int:
    """Items of the keys and values of a token in a layer."""
    _, *kept = group.module.functions()[0].terminator.operands
    return sum(prod(each.type.shape[2:]) for each in kept)


def measuring_memory(found: Sequence[Inputs], job: Job, run: Run) -> int:
    """Bytes beside a layer's weights: states before and after it; of each batch under way its products and
    what linears make of it; products so far, and with those of one more.
    """
    jobs = min(job.options.job_count, run.batches)
    states = 2 * run.tokens * table_of(job.model).y.type.shape[1]
    products = (jobs + 2) * sum(inputs.squares for inputs in found)
    made = jobs * -(-run.tokens // run.batches) * sum(sum(inputs.rows) for inputs in found)
    return F32.bytes * (states + products + made)
