"""What a compile will take of the machine that it runs on: what it took so far, and the rest by a sample.

The programs are compiled by then, and no weight was read. What is left is to bring every weight into its
form: a tile of each form is made of random numbers and timed, and memory is counted.
"""

from __future__ import annotations

import hashlib
import resource
import sys
from collections.abc import Callable, Container, Hashable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod

import numpy as np

from compiler.weights.scheme import Scheme
from compiler.weights.stored import Array, Quantized, Weight
from dialects.builtin import ModuleOp
from dialects.weights import Joined, Packed, view_of_name
from driver.ahead.run_cost import RunCost, seconds_of
from driver.blob import Materializer, Piece, weight_of
from driver.calibration.calibrate import method_of
from driver.calibration.graphs import stored_plainly
from driver.job import Job
from frontend.imported import Instance
from frontend.values import exceeds

SAMPLE_WEIGHTS = 1 << 21  # of a tile that stands for all of its form
HASHED = bytes(16 << 20)
KB = 1024 if sys.platform != "darwin" else 1  # the unit of ru_maxrss in bytes


@dataclass(frozen=True)
class HostCost:
    """CPU seconds and bytes. Those of weights are shared by the jobs; others are one after the other."""

    compile_seconds: float
    run: RunCost
    weight_seconds: float
    write_seconds: float
    memory: int
    jobs: int

    @property
    def seconds(self) -> float:
        """Until all is done, where there is a CPU for each job and nothing else to do."""
        run = self.run.seconds(self.jobs)
        return self.compile_seconds + run + self.weight_seconds / self.jobs + self.write_seconds

    @property
    def cpu_seconds(self) -> float:
        run = self.run.cpu_seconds
        return self.compile_seconds + run + self.weight_seconds + self.write_seconds


@dataclass(frozen=True)
class WeightWork:
    """What is read, brought into a form and kept at once: tiles of the same weights."""

    form: Hashable
    sample: Packed | None
    items: int
    largest: int  # items of the largest tensor of them
    code_bytes: int  # of an item between reading and packing
    size: int  # bytes in the blob
    taken_over: bool  # whether they are codes already

    @property
    def peak(self) -> int:
        """Bytes of memory while it is worked on: floats beside codes, or codes beside tiles."""
        codes = self.code_bytes * self.items
        floats = 0 if self.code_bytes > 1 or self.taken_over else 2 * self.largest
        return codes + max(floats, self.size)


def host_cost(job: Job, compile_seconds: float, run: RunCost, file_bytes: int) -> HostCost:
    """Of a job whose programs are compiled, which took so many seconds."""
    jobs = job.options.job_count
    weighted = method_of(job) != "none"
    settled = stored_plainly(job) if method_of(job) == "gptq" else {}
    rates: dict[Hashable, float] = {}
    seconds, memory = 0.0, 0
    for group in job.nets:
        works = list(works_of(job, group.module, group.instances[0], settled))
        for work in works:
            if work.sample is not None and work.form not in rates:
                rates[work.form] = seconds_of(sampler(work, job, weighted)) / prod(sampled_shape(work.sample))
        seconds += len(group.instances) * sum(work.items * rates.get(work.form, 0) for work in works)
        memory = max(memory, most_at_once(works, jobs))
    write_seconds = seconds_of(lambda: hashlib.sha256(HASHED).digest()) / len(HASHED) * file_bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KB
    return HostCost(compile_seconds, run, seconds, write_seconds, peak + max(memory, run.memory), jobs)


def works_of(
    job: Job, module: ModuleOp, instance: Instance, settled: Container[str] = ()
) -> Iterator[WeightWork]:
    """Of one layer, or of what no layer has, in the order in which it is done. Of what is settled there are
    codes by then.
    """
    pieces = sorted(job.pieces(module, instance), key=lambda piece: piece.offset)
    for _, found in groupby(pieces, key=lambda piece: weight_of(piece.source)):
        yield work_of(list(found), job, instance, settled)


def work_of(
    pieces: list[Piece], job: Job, instance: Instance, settled: Container[str] = ()
) -> WeightWork:
    source, size = pieces[0].source, sum(piece.size for piece in pieces)
    if isinstance(source, Joined):
        return WeightWork("joined", None, size // 2, size // 2, 2, size, False)
    if not isinstance(source, Packed):
        return WeightWork("table", None, 0, 0, 0, size, False)
    tensors = [instance.parameter_name(view_of_name(name).tensor) for name in source.names]
    sizes = [int(np.prod(job.weights.shape(name))) for name in tensors]
    code_bytes = 1 if isinstance(source.tile.stored, Scheme) else 2
    taken_over = tensors[0] in job.weights.schemes or tensors[0] in settled
    form = source.tile.stored, taken_over
    if source.experts:
        sizes = [size // job.weights.shape(name)[0] for size, name in zip(sizes, tensors, strict=True)]
        items = source.tile.rows * source.tile.columns * source.experts * len(pieces)
        return WeightWork(form, source, items, max(sizes), code_bytes, size, taken_over)
    return WeightWork(form, source, sum(sizes), max(sizes), code_bytes, size, taken_over)


def most_at_once(works: list[WeightWork], jobs: int) -> int:
    """Bytes of what is under way at the same time: as many as there are jobs, and one that is done."""
    found = [0]
    for start in range(len(works)):
        window = sorted(works[start : start + jobs + 1], key=lambda work: work.peak - work.size)
        found.append(sum(work.size for work in window[:-jobs]) + sum(work.peak for work in window[-jobs:]))
    return max(found)


def sampled_shape(source: Packed) -> tuple[int, int]:
    """The tile's, or fewer of its rows where they are many."""
    tile = source.tile
    return min(tile.rows, max(1, SAMPLE_WEIGHTS // tile.columns)), tile.columns


def sampler(work: WeightWork, job: Job, weighted: bool = False) -> Callable[[], Array]:
    """Makes a tile of random weights, in the steps in which one of the model's is made; if `weighted`, from
    errors that count by their inputs.
    """
    assert work.sample is not None
    rows, columns = sampled_shape(work.sample)
    tile = replace(work.sample.tile, rows=rows)
    floats = np.random.default_rng(0).standard_normal((rows, columns), np.float32).astype(job.weights.half)
    codes = zero_codes(rows, columns, tile.scheme) if work.taken_over and tile.scheme else None
    importance = np.ones(columns, np.float32) if weighted else None

    def read(name: str) -> Weight:
        exceeds(floats, job.weights.limit)
        return codes or floats

    made = Materializer(read, {}, importance=lambda name: importance)
    alone = {"names": ("sample",), "row": 0, "column": 0, "each": False, "pieces": 1, "experts": 0}
    source = replace(work.sample, tile=tile, **alone)  # type: ignore[arg-type]
    return lambda: made.bytes_of(source)


def zero_codes(rows: int, columns: int, scheme: Scheme) -> Quantized:
    scales = np.ones((rows, columns // scheme.group), scheme.scale.numpy)
    zeros = np.zeros(scales.shape, np.uint8) if scheme.zeros else None
    codes = np.zeros((rows, columns), scheme.codes)
    return Quantized(codes, scales, zeros, scheme, scales if scheme.minimum else None)
