"""What `--dry_run` says: what a file would be, take and do, before a weight was read.

Programs do not depend on the values of weights, so they are compiled as always; sizes and memory of the
device are those of the finished file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from compiler.bmodel import BModel, Net
from compiler.bmodel.memory import DeviceMemory, device_memory
from compiler.bmodel.writer import size_of_file
from compiler.client_nets import BLOCK, kind_of, net_name
from compiler.sizes import human
from dialects.weights import RopeTable, Table
from driver.ahead.boards import Board, nearest
from driver.ahead.calibration_cost import calibration_cost
from driver.ahead.host_cost import HostCost, host_cost
from driver.job import Job
from driver.write import embedding_bytes, named_embedding
from frontend.config import ModelConfig
from runtime_sim.launch.loader import Program
from runtime_sim.tool.measured import Measured, measure_file
from runtime_sim.tool.timing import text_of

STEP = 64  # the longest -s is told in whole multiples of so many tokens


def cost_of(job: Job, bmodel: BModel, config: ModelConfig, compile_seconds: float) -> Iterator[str]:
    """Lines of text. The programs took so many seconds to compile."""
    file_bytes = size_of_file(named_embedding(bmodel, job.options))
    measured = measure_file(Program(bmodel))
    yield from net_lines(bmodel)
    yield ""
    yield f"file: {file_bytes:,} bytes"
    if job.options.embedding_disk:
        yield f"config/embedding.bin: {embedding_bytes(job):,} bytes"
    for device in range(bmodel.device_num):
        yield from memory_lines(DeviceUse.of(job, bmodel, device), job, config)
    cost = host_cost(job, compile_seconds, calibration_cost(job, config), file_bytes)
    yield host_line(cost, file_bytes + embedding_bytes(job))
    yield ""
    yield from text_of(measured)
    yield from board_lines(measured, job)


def net_lines(bmodel: BModel) -> Iterator[str]:
    """Names and shapes; layers that look alike together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for net in bmodel.nets:
        groups.setdefault((kind_of(net.name)[0], shapes(net)), []).append(net.name)
    for (_, text), names in groups.items():
        more = f" .. {names[-1]} ({len(names)} nets)" if len(names) > 1 else ""
        yield f"{names[0]}{more}: {text}"


def shapes(net: Net) -> str:
    stage = net.stages[0]
    sides = (
        ", ".join(f"{tensor.name} {tensor.dtype}{list(tensor.shape)}" for tensor in side)
        for side in (stage.inputs, stage.outputs)
    )
    return " -> ".join(sides) + (f", {len(net.stages)} stages" if len(net.stages) > 1 else "")


@dataclass(frozen=True)
class DeviceUse:
    """Memory of a device at the length that was compiled, and what of it grows with the length."""

    device: int
    memory: DeviceMemory
    tokens: int
    tables: int  # bytes of weights, a row for each position
    mask: int  # bytes of scratch memory that grow with the square of a prompt
    whole_prompt: bool  # whether a prompt is as long as a conversation

    @staticmethod
    def of(job: Job, bmodel: BModel, device: int) -> DeviceUse:
        first = bmodel.first_of(net_name(BLOCK, 0))
        mask = first.stages[0].inputs[2].size if first and len(first.stages[0].inputs) > 2 else 0
        options = job.options
        whole = options.input_length == options.seq_length
        tables = sum(table_bytes(job, device))
        return DeviceUse(device, device_memory(bmodel, device), options.seq_length, tables, mask, whole)

    def at(self, tokens: int) -> int:
        """Bytes with another -s: exact at that which was compiled, close at others."""
        memory, times = self.memory, tokens / self.tokens
        fixed = memory.weights - self.tables + memory.io
        scratch = float(memory.scratch)
        if self.whole_prompt:
            scratch = (memory.scratch - self.mask) * times + self.mask * times**2
        return int(fixed + scratch + (self.tables + memory.caches + memory.instructions) * times)

    def longest(self, limit: int, most: int) -> int:
        """The largest -s, at most `most`, that fits into `limit` bytes; 0 where none does."""
        low, high = 0, most // STEP
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.at(middle * STEP) <= limit else (low, middle - 1)
        return most if self.at(most) <= limit else low * STEP


def table_bytes(job: Job, device: int) -> Iterator[int]:
    """Of the tables of positions of all layers."""
    for group in job.nets:
        for instance in group.instances:
            if instance.device in (None, device):
                pieces = job.pieces(group.module, instance)
                yield sum(piece.size for piece in pieces if isinstance(piece.source, RopeTable | Table))


def memory_lines(use: DeviceUse, job: Job, config: ModelConfig) -> Iterator[str]:
    memory, options = use.memory, job.options
    name = f"memory of device {use.device}" if options.num_device > 1 else "device memory"
    parts = ("weights", "caches", "io", "scratch", "instructions")
    kinds = ", ".join(f"{part} {human(getattr(memory, part))}" for part in parts)
    yield f"{name}: {memory.total:,} bytes: {kinds}"
    yield f"  {fitting(use, options.device_memory, config.max_positions)}"


def fitting(use: DeviceUse, limit: int, most: int | None) -> str:
    """Whether it fits, and how long a conversation could be."""
    word = "fits" if use.memory.total <= limit else "does not fit"
    longest = use.longest(limit, most or 1 << 20)
    if longest == most:
        reach = f"so would -s {most}, all that the model can"
    elif longest:
        reach = f"the longest -s that would is about {longest}"
    else:
        reach = "nor would any -s"
    return f"{word} {human(limit)}; {reach}"


def host_line(cost: HostCost, disk: int) -> str:
    run = f"{cost.run.cpu_seconds:.1f} to choose codes, " if cost.run.cpu_seconds else ""
    return (
        f"to compile: about {cost.seconds:.1f} s with nothing beside it, {cost.cpu_seconds:.1f} s of CPU: "
        f"{cost.compile_seconds:.1f} for programs, as now, {run}{cost.weight_seconds:.1f} for weights, "
        f"{cost.jobs} at once, {cost.write_seconds:.1f} to write; {human(cost.memory)} of memory, "
        f"{human(disk)} of disk"
    )


def board_lines(measured: Measured, job: Job) -> Iterator[str]:
    """What is published of a model that reads about as much a token."""
    if not measured.model.is_whole:
        return
    token_bytes = sum(net.work.ddr_read for net in measured.model.decode())
    options = job.options
    chip = measured.spec.chip
    board = nearest(chip, options.core_count, options.num_device, token_bytes, options.seq_length)
    if board is not None:
        yield ""
        yield from told(board, token_bytes * options.num_device)


def told(board: Board, token_bytes: float) -> Iterable[str]:
    devices = f"{board.devices} " if board.devices > 1 else ""
    cores = f", {board.cores} cores" if board.cores > 1 else ""
    yield (
        f"nearest published: {board.model}, {board.bits} bits, {board.tokens} tokens, "
        f"{devices}{board.chip}{cores}: first token {board.first_token:.3g} s, {board.rate:.3g} tokens/s"
    )
    if board.vendor_rate is not None:
        yield (
            f"  the vendor's program for it by the cautious estimate: {board.vendor_first_token:.3g} s, "
            f"{board.vendor_rate:.3g} tokens/s"
        )
    yield f"  it reads about {human(int(board.token_bytes))} a token, this model {human(int(token_bytes))}"
    yield "  from the READMEs of sophgo/sophon-demo and sophgo/LLM-TPU, which agree to about 10%"
