"""What the user asks of llm_convert.py, checked as far as that needs no model."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compiler.diagnostics import UserError
from compiler.files import checkpoint_root, nearest_existing, reason
from compiler.target.chips import chip
from compiler.target.spec import ChipSpec
from driver.rules import BITS, Rule, head_rule

MODES = ("bf16", "w8bf16", "w4bf16", "f16", "w8f16", "w4f16")
CALIBRATIONS = ("none", "search", "gptq")  # how codes are chosen, by what it costs; see the README
AUTO = "auto"  # what the weights suggest; `driver.modes` and `driver.calibration.calibrate` say what
GROUP = 64  # the default
MAX_JOBS = 1024
MAX_DEVICES = 8
ADDRESS = re.compile(r"dask://([\w.\-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", re.ASCII)  # of a scheduler
CACHE_SIZE = 20 * 10**9  # bytes
DEVICE_MEMORY = 16 * 10**9  # bytes that boards have for the most part
# What no program depends on: where things are, what is done with them, and the values of weights.
WITHOUT_PROGRAMS = (
    *("model_path", "out_dir", "dump_ir", "jobs", "verify", "dry_run"),
    *("device_memory", "executor", "cache", "cache_size", "calibrate", "calibration_text"),
    *("size", "bits"),
)


@dataclass(frozen=True)
class ConvertOptions:
    """One run of llm_convert.py. Names and defaults are those of its flags; their help is in `driver.cli`.

    Raises UserError for values that no model could be compiled with.
    """

    model_path: Path
    seq_length: int  # tokens of history, and of prefill unless max_input_length says less
    quantize: str = AUTO  # or one of MODES
    q_group_size: int | None = None  # None: GROUP, or as the checkpoint has it
    chip: str = "bm1684x"
    num_device: int = 1
    num_core: int = 0  # 0: all of the chip
    symmetric: bool = False
    lm_head_quantize: int = 16  # bits of the head's weights
    keep: Sequence[str] | None = None  # PATTERN=BITS: modules with bits of their own
    size: int | None = None  # bytes of the file, into which bits of modules are chosen to fit
    bits: float | None = None  # the same for the mean of the bits of the weights of blocks and head
    calibrate: str = AUTO  # or one of CALIBRATIONS
    calibration_text: Path | None = None  # what the model runs on to calibrate; None: its own or random
    max_input_length: int = 0  # 0: seq_length
    chunk_length: int = 0  # tokens of the shortest stage of decode; 0: only one, for seq_length
    max_pixels: Sequence[int] = ()  # of pictures of any size: a number, or height and width; () as the vendor
    embedding_disk: bool = False
    do_sample: bool = False
    out_dir: Path = Path("tmp")
    dump_ir: Path | None = None  # folder for the IR after each pass
    stop_after: str | None = None  # name of a pass
    passes: str | None = None  # a pipeline instead of the chip's
    resume_ir: Sequence[Path] | None = None  # dumps that modules go on from instead
    jobs: int = 0  # weights quantized at the same time; 0: one per CPU
    verify: bool = False
    dry_run: bool = False
    device_memory: int = DEVICE_MEMORY  # bytes, for the dry run
    executor: str | None = None  # dask://HOST:PORT, whose workers make the weights
    cache: Path | None = None  # folder of what earlier runs made
    cache_size: int = CACHE_SIZE  # bytes
    as_stored: bool = False  # weights of blocks are codes or in 16 bits already, and stay so; no flag

    def __post_init__(self) -> None:
        self._check_names()
        self._check_choices()
        self._check_numbers()
        self._check_combinations()
        self._check_folders()

    @property
    def spec(self) -> ChipSpec:
        return chip(self.chip)

    @property
    def core_count(self) -> int:
        """Cores of the chip that share a model."""
        return self.num_core or self.spec.cores

    @property
    def for_programs(self) -> dict[str, object]:
        """What programs may depend on."""
        return {name: value for name, value in vars(self).items() if name not in WITHOUT_PROGRAMS}

    @property
    def half(self) -> str:
        """The 16-bit type of activations, "bf16" or "f16"."""
        return self.quantize.removeprefix("w4").removeprefix("w8")

    @property
    def weight_bits(self) -> int:
        """Bits of a block's linear weights: 4, 8, or 16 when they are not quantized."""
        return {"w4": 4, "w8": 8}.get(self.quantize[:2], 16)

    @property
    def rules(self) -> list[Rule]:
        """Which modules have bits of their own; of several that apply to one, the last counts."""
        head = [head_rule(self.lm_head_quantize)] if self.lm_head_quantize < 16 else []
        return [*head, *map(Rule.parse, self.keep or ())]

    @property
    def budget(self) -> str | None:
        """The flag by which bits of modules are chosen."""
        if self.size is not None:
            return "--size"
        return None if self.bits is None else f"--bits {self.bits:g}"

    @property
    def group(self) -> int:
        """Weights that share a scale."""
        return self.q_group_size or GROUP

    @property
    def input_length(self) -> int:
        """Tokens of one prefill."""
        return self.max_input_length or self.seq_length

    @property
    def shorter_histories(self) -> list[int]:
        """Tokens that further stages of decode hold, the most first: doubles of the chunk below -s."""
        found = []
        length = self.chunk_length
        while 0 < length < self.seq_length:
            found.append(length)
            length *= 2
        return found[::-1]

    @property
    def job_count(self) -> int:
        return self.jobs or os.cpu_count() or 1

    @property
    def bmodel_name(self) -> str:
        """As the vendor's tool names its output, without the time. A model in a hub's cache is called by its
        repository.
        """
        base = checkpoint_root(self.model_path).name.lower().removesuffix(".gguf")
        if base.startswith("models--"):
            base = base.rpartition("--")[2]
        chip = self.spec
        tail = chip.bmodel_tail.format(devices=self.num_device, cores=self.core_count)
        if self.num_device > 1 and "{devices}" not in chip.bmodel_tail:
            tail = f"{self.num_device}dev_{tail}"
        return f"{base}_{self.quantize}_seq{self.seq_length}_{chip.name}_{tail}_static.bmodel"

    def _check_names(self) -> None:
        for flag, path in (("-m", self.model_path), ("-o", self.out_dir), ("--dump-ir", self.dump_ir)):
            _require("\0" not in str(path), f"{flag} {str(path)!r}: not the name of a folder")

    def _check_choices(self) -> None:
        if self.quantize not in (AUTO, *MODES):
            raise UserError(f"-q {self.quantize}: expected one of {', '.join((AUTO, *MODES))}")
        if self.lm_head_quantize not in BITS:
            raise UserError(f"--lm_head_quantize {self.lm_head_quantize}: expected 16, 8 or 4 bits")
        if self.calibrate not in (AUTO, *CALIBRATIONS):
            known = ", ".join((AUTO, *CALIBRATIONS))
            raise UserError(f"--calibrate {self.calibrate}: expected one of {known}")
        if self.calibration_text is not None and self.calibrate == "none" and self.budget is None:
            raise UserError("--calibration_text has no use with --calibrate none: leave it out")
        if self.rules and self.passes is not None:
            raise UserError(f"{self.rules[0].flag} is for the default passes: say it in --passes instead")

    def _check_numbers(self) -> None:
        _require(self.seq_length >= 2, f"-s {self.seq_length}: expected at least two tokens")
        _require(
            self.q_group_size is None or self.q_group_size >= 1,
            f"-g {self.q_group_size}: expected a count of weights, such as {GROUP}",
        )
        _require(
            self.max_input_length == 0 or 2 <= self.max_input_length <= self.seq_length,
            f"--max_input_length {self.max_input_length}: expected 0 (as -s) or 2 to {self.seq_length}",
        )
        most = self.seq_length // 2
        _require(
            self.chunk_length == 0 or 1 <= self.chunk_length <= most,
            f"--chunk_length {self.chunk_length}: expected 0 (one stage) or 1 to {most}, half of -s",
        )
        cores = self.spec.cores
        _require(
            0 <= self.num_core <= cores,
            f"--num_core {self.num_core}: {self.spec.name} has {cores} {'core' if cores == 1 else 'cores'}",
        )
        _require(
            1 <= self.num_device <= MAX_DEVICES,
            f"--num_device {self.num_device}: expected 1 to {MAX_DEVICES}",
        )
        _require(
            0 <= self.jobs <= MAX_JOBS,
            f"--jobs {self.jobs}: expected 1 to {MAX_JOBS} threads, or 0 for one per CPU",
        )

    def _check_combinations(self) -> None:
        dry, stops = (self.dry_run, "--dry_run writes nothing"), (self.stop_after, "--stop-after ends early")
        for (given, text), other, flag in (
            (dry, self.verify, "--verify"),
            (dry, self.dump_ir, "--dump-ir"),
            (stops, self.verify, "--verify"),
            (stops, self.dry_run, "--dry_run"),
        ):
            _require(not (given and other), f"{text}: leave out {flag}")
        self._check_budget()
        self._check_devices()

    def _check_budget(self) -> None:
        """Weights are read to choose, and file sizes known when all is compiled."""
        _require(self.size is None or self.bits is None, "--size and --bits: give one of them")
        _require(self.bits is None or 0 < self.bits < float("inf"), f"--bits {self.bits}: expected 4 to 16")
        for given, flag in (
            (self.dry_run, "--dry_run"),
            (self.stop_after, "--stop-after"),
            (self.passes is not None, "--passes"),
            (self.resume_ir, "--resume-ir"),
        ):
            _require(self.budget is None or not given, f"{self.budget}: leave out {flag}")

    def _check_devices(self) -> None:
        """What goes with one device only: a cascade has one stage, and passes are given for whole nets."""
        for given, flag in (
            (self.chunk_length, "--chunk_length"),
            (self.do_sample, "--do_sample"),
            (self.passes is not None, "--passes"),
            (self.resume_ir, "--resume-ir"),
        ):
            alone = self.num_device == 1 or not given
            _require(alone, f"--num_device {self.num_device}: leave out {flag}, which is for one device")

    def _check_folders(self) -> None:
        """What is known of them without looking at what they hold; that is for `driver.output`."""
        if not self.dry_run and not self.stop_after:
            _check_outside("-o", self.out_dir, "the checkpoint", self.model_path)
        if self.dump_ir is not None:
            _check_outside("--dump-ir", self.dump_ir, "the checkpoint", self.model_path)
            _check_outside("--dump-ir", self.dump_ir, "-o", self.out_dir)
            _check_writable("--dump-ir", self.dump_ir)
        if self.cache is not None:
            _check_outside("--cache", self.cache, "the checkpoint", self.model_path)
            _check_outside("--cache", self.cache, "-o", self.out_dir)
            _check_writable("--cache", self.cache)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UserError(message)


def _check_outside(flag: str, folder: Path, name: str, other: Path) -> None:
    """A checkpoint is only read, and an output folder holds only what goes with a bmodel."""
    source = Path(os.path.realpath(other))
    for target in (folder, folder / "config"):
        if Path(os.path.realpath(target)).is_relative_to(source):
            raise UserError(f"{flag} {folder} writes into {name} {other}: give a folder outside of it")


def _check_writable(flag: str, folder: Path) -> None:
    try:
        existing = nearest_existing(folder)
    except OSError as error:
        raise UserError(f"{flag} {folder}: {reason(error)}") from None
    if not existing.is_dir():
        raise UserError(f"{flag} {folder}: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {folder}: no permission to write in {existing}")
