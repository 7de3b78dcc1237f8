"""Single instructions on the vendor's C-model and on our machine, from the same lanes full of numbers.

One program holds many cases. Each loads the same image into local memory, executes its instructions, and stores the
whole image; every byte of every image must come out equal, those that should not have changed too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from compiler.bmodel import write_bmodel
from compiler.bmodel.container import AddrMode, BModel, CommandStreams, Net, Stage, TensorInfo
from compiler.target.isa import PRECISION, Instruction, isa_for, split_address
from compiler.target.spec import ChipSpec
from runtime_sim.machine.machine import Machine
from tests.conformance.vendor_runtime import VendorRuntime

IMAGE_BYTES = 8192  # of each lane
FLAT_BYTES = 1 << 18  # of DDR that cases may use besides
TYPES = {
    "i8": np.dtype(np.uint8),
    "i16": np.dtype(np.uint16),
    "i32": np.dtype(np.uint32),
    "f32": np.dtype(np.float32),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f16": np.dtype(np.float16),
}
SPECIAL_F32 = [
    0,
    1,
    0x7FFFFF,
    0x800000,
    0x3F800000,
    0x477FF000,
    0x7F7FFFFF,
    0x7F800000,
    0x7FC00000,
    0x7F800001,
]
SPECIAL_16 = [0, 1, 0x7F, 0x80, 0x3FF, 0x400, 0x3F80, 0x3C00, 0x7BFF, 0x7C00, 0x7F7F, 0x7F80, 0x7FC0, 0x7F81]

Case = Callable[["Program"], None]


class Program:
    """Two streams in which every instruction waits for all that were added before it."""

    def __init__(self, spec: ChipSpec) -> None:
        self.spec = spec
        self.isa = isa_for(spec)
        self.streams: dict[str, list[bytes]] = {"tiu": [], "dma": []}
        self.instructions: list[Instruction] = []

    def add(self, name: str, kind: str, **fields: int) -> None:
        engine, other = ("dma", "tiu") if name.startswith("dma") else ("tiu", "dma")
        fields["cmd_id_dep"] = len(self.streams[other])
        data = self.isa.encode(name, kind, fields | self._number(engine))
        self.streams[engine].append(data)
        self.instructions += self.isa.decode(engine, data)

    def _number(self, engine: str) -> dict[str, int]:
        return {"cmd_id": len(self.streams[engine]) + 1} if self.spec.command_ids else {}

    def ended(self) -> CommandStreams:
        ends = {"tiu": "sys", "dma": "dma_sys"}
        whole = {e: [*s, self.isa.encode(ends[e], "end", self._number(e))] for e, s in self.streams.items()}
        padded = {e: b"".join(s) + bytes(-len(b"".join(s)) % 128) for e, s in whole.items()}
        return CommandStreams(padded["tiu"], len(whole["tiu"]), padded["dma"], len(whole["dma"]))

    def move_image(self, flat: int, load: bool) -> None:
        """The image between DDR, lane after lane, and the start of local memory."""
        words, lanes = IMAGE_BYTES // 4, self.spec.lanes
        fields = {"stride_enable": 1, "nchw_copy": 1, "src_data_format": PRECISION["i32"]}
        for end in ("src", "dst"):
            fields |= {f"{end}_nsize": 1, f"{end}_csize": lanes, f"{end}_hsize": 1, f"{end}_wsize": words}
            fields |= {f"{end}_cstride": words, f"{end}_hstride": words, f"{end}_wstride": 1}
        ends = ("src", "dst") if load else ("dst", "src")
        self.add(
            "dma_tensor",
            "copy",
            **fields | split_address(ends[0], flat) | split_address(ends[1], self.spec.dma_local_base),
        )


def flat_address(spec: ChipSpec) -> int:
    """Where the DDR for the cases starts."""
    return _base(spec) + spec.lanes * IMAGE_BYTES


def _base(spec: ChipSpec) -> int:
    return spec.neuron_base or spec.ddr_base


def assert_equal_images(
    spec: ChipSpec, image: np.ndarray, cases: dict[str, Case], folder: Path, flat: np.ndarray | None = None
) -> None:
    """Run all cases on both; image [lanes, IMAGE_BYTES] and flat [FLAT_BYTES] are uint8."""
    data = np.concatenate([image.reshape(-1), np.zeros(FLAT_BYTES, np.uint8) if flat is None else flat])
    results = _base(spec) + len(data)
    program = Program(spec)
    for number, case in enumerate(cases.values()):
        program.move_image(_base(spec), load=True)
        case(program)
        program.move_image(results + number * image.size, load=False)
    theirs = _on_c_model(spec, program, data, results, len(cases) * image.size, folder)
    ours = _on_machine(spec, program, data, results, len(cases) * image.size)
    shape = (len(cases), spec.lanes, IMAGE_BYTES)
    counts = (theirs.reshape(shape) != ours.reshape(shape)).sum(axis=(1, 2))
    differing = {name: int(count) for name, count in zip(cases, counts, strict=True) if count}
    assert not differing, f"bytes that differ, by case: {differing}"


def _on_c_model(
    spec: ChipSpec, program: Program, data: np.ndarray, results: int, size: int, folder: Path
) -> np.ndarray:
    x = TensorInfo("x", "i32", _base(spec), (1, len(data) // 4))
    y = TensorInfo("y", "i32", results, (1, size // 4))
    stage = Stage([x], [y], _base(spec), len(data) + size, [program.ended()])
    write_bmodel(folder / "cases.bmodel", BModel(spec.chip, [Net("cases", AddrMode.BASIC, [stage])]))
    with VendorRuntime(folder / "cases.bmodel") as vendor:
        return vendor.run("cases", {"x": data.view(np.int32).reshape(1, -1)})["y"].view(np.uint8)


def _on_machine(spec: ChipSpec, program: Program, data: np.ndarray, results: int, size: int) -> np.ndarray:
    machine, out = Machine(spec), np.zeros(size, np.uint8)
    machine.ddr.map(_base(spec), data.copy())
    machine.ddr.map(results, out)
    machine.run(program.instructions)
    return out


def words(rng: np.random.Generator, dtype: str, count: int) -> np.ndarray:
    """Bit patterns of a type: ordinary numbers, any bits, and the corners of the format, as bytes."""
    item = TYPES[dtype].itemsize
    raw = np.dtype(f"u{item}")
    patterns = rng.integers(0, 1 << 8 * item, count, dtype=np.uint64).astype(raw)
    if dtype.startswith("i"):
        near = rng.integers(-130, 130, count).astype(raw)
        corners = np.array([0, 1, -1 % (1 << 8 * item), 1 << 8 * item - 1, (1 << 8 * item - 1) - 1], raw)
    else:
        with np.errstate(over="ignore"):
            halves = (rng.integers(-600, 600, count) / 2 * 10.0 ** rng.integers(-3, 3, count)).astype(
                np.float32
            )
            near = halves.astype(TYPES[dtype]).view(raw)
        corners = np.array(SPECIAL_F32 if item == 4 else SPECIAL_16, raw)
        corners = np.concatenate([corners, corners | raw.type(1 << 8 * item - 1)])
    choice = [near, patterns, rng.choice(corners, count)]
    return np.choose(rng.integers(0, 3, count), choice).astype(raw).view(np.uint8)


def image_of(spec: ChipSpec, rng: np.random.Generator, dtypes: dict[int, str]) -> np.ndarray:
    """An image of noise with, at each byte offset given, 256 items of a type in every lane."""
    image = rng.integers(0, 256, (spec.lanes, IMAGE_BYTES), dtype=np.uint8)
    for offset, dtype in dtypes.items():
        row = words(rng, dtype, spec.lanes * 256).reshape(spec.lanes, -1)
        image[:, offset : offset + row.shape[1]] = row
    return image
