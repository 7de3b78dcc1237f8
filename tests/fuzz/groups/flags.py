"""Command lines of the three commands: values, names, order and characters of arguments."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.mutate import NUMBERS, short
from tests.fuzz.samples import FLAGS, MODES, TOOL, Samples

WORDS = ("", " ", "-", "--", "-1", "0", "x", "x" * 300, "y" * 5000, "a\nb", "\x1b[31mred", "\udcff\udcfe", "\u202e",
         "%s", "{}", "a,b", "=", "-h", "--help", "--version", "--unknown", "-s16", "NaN", "1e999", "1" * 5000,
         "0x10", "1_6", "\u0661\u0666", " 16 ", "16.0", *map(str, NUMBERS))  # fmt: skip
PATHS = ("model", "model/config.json", "model/sub", ".", "./out", "out/a/b", "absent", "/dev/null", "/dev/full",
         "/proc/self/mem", "/proc/nothing", "n" * 300, "d/" * 60 + "x", "out\nput", "file", "file/x")  # fmt: skip
SWITCHES: dict[str, tuple[str, ...]] = {
    "llm_convert": ("--symmetric", "--embedding_disk", "--dry_run", "--verify", "-v"),
    "llm_opt": ("--print-ir-after-change", "--verify-each", "--no-verify-each", "--time-passes", "--list-passes", "-"),
    "bmodel_tool": ("--json", "--no-hash", "--exact", "--raw"),
}
OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "llm_convert": {
        "-m": PATHS,
        "-s": ("2", "3", "15", "512", "513", "2048"),
        "--seq_length": ("1", "16"),
        "--max_input_length": ("0", "1", "2", "8", "16", "17"),
        "--chunk_length": ("0", "1", "2", "4", "8", "9"),
        "-q": (*MODES, "w4", "int4", "W4BF16", "w8bf16"),
        "-g": ("1", "2", "3", "16", "32", "64", "128", "256", "0"),
        "-c": ("bm1684x", "BM1684X", "bm1688", "cv186x", "bm1690", "bm1684"),
        "--num_device": ("0", "1", "2"),
        "--num_core": ("0", "1", "2"),
        "--executor": ("dask://", "tcp://127.0.0.1:1", "dask://127.0.0.1:1", "x"),
        "--cache": ("cache", *PATHS),
        "--cache_size": ("1GB", "0", "x"),
        "--device_memory": ("16GB", "8 GiB", "1", "0", "-1GB", "x", "9" * 40),
        "-o": PATHS,
        "--dump-ir": ("ir", *PATHS),
        "--stop-after": ("canonicalize", "tile-weights", "insert-waits", "fuse"),
        "--passes": ("canonicalize", ",", "", "insert-waits"),
        "-j": ("0", "1", "3", "1000"),
    },
    "llm_opt": {
        "-c": ("bm1684x", "bm1688", "CV186X", "bm1690"),
        "-p": ("canonicalize", "", ",", "x"),
        "-o": ("out.mlir", *PATHS),
        "--stop-after": ("canonicalize", "x"),
        "--print-ir-after": ("canonicalize", "x"),
        "--dump-ir": ("ir", *PATHS),
    },
    "bmodel_tool": {
        "--net": ("block_0", "absent"),
        "--html": ("out.html", *PATHS),
        "--ir": PATHS,
        "--engine": ("tiu", "dma", "x"),
        "--input": ("in.npz", "model.bmodel", *PATHS),
        "--output": ("out.npz", *PATHS),
        "--reference": ("model", "config", *PATHS),
        "--prompt": ("", "hello", "long " * 50),
        "--min-cosine": ("0.5", "2", "nan"),
        "--bisect": ("block_0", "absent"),
        "--max-tokens": ("0", "-1", "1", "99"),
        "--config": ("config", "model", *PATHS),
    },
}

TALKING = ("-v", "--time-passes", "--print-ir")

Edit = Callable[[Random, list[str], str], list[str]]


def make(rng: Random, folder: Path, samples: Samples) -> Case:
    (folder / "file").write_text("a file\n")
    command = rng.choice(("llm_convert", "llm_convert", "llm_opt", "bmodel_tool", "bmodel_tool"))
    line = STARTS[command](rng, folder, samples)
    for _ in range(rng.choice((1, 1, 2, 3))):
        line = rng.choice(EDITS)(rng, line, command)
    line = [harmless(word) for word in line]
    return Case(
        f"flags: {short(line, 300)}",
        command,
        line,
        results=(".",),
        dumps=("ir",),
        free_text=True,
        verbose=any(word.startswith(TALKING) for word in line),
        may_find=command == "bmodel_tool",
    )


def harmless(word: str) -> str:
    """No output goes to a place outside of the case's folder."""
    return word if not word.startswith("/") or word.startswith(("/dev/", "/proc/")) else word[1:]


def converting(rng: Random, folder: Path, samples: Samples) -> list[str]:
    samples.copy_checkpoint(folder)
    return [*FLAGS, "-q", rng.choice(MODES)]


def optimizing(rng: Random, folder: Path, samples: Samples) -> list[str]:
    samples.copy_checkpoint(folder)
    shutil.copy(rng.choice([path for path in samples.dumps if ".llm-to-tensor" not in path.name]), folder / "in.mlir")
    return ["in.mlir", "-o", "out.mlir"]


def looking(rng: Random, folder: Path, samples: Samples) -> list[str]:
    samples.copy_bmodel(folder, rng.choice(MODES))
    return list(rng.choice(list(TOOL.values())))


STARTS = {"llm_convert": converting, "llm_opt": optimizing, "bmodel_tool": looking}


def option_added(rng: Random, line: list[str], command: str) -> list[str]:
    """Two times in three one with a value, else a switch."""
    if rng.random() < 0.33:
        return [*line, rng.choice(SWITCHES[command])]
    name = rng.choice(list(OPTIONS[command]))
    return [*line, name, rng.choice(OPTIONS[command][name])]


def option_of_another(rng: Random, line: list[str], command: str) -> list[str]:
    return option_added(rng, line, rng.choice(list(OPTIONS)))


def word_replaced(rng: Random, line: list[str], command: str) -> list[str]:
    at = rng.randrange(len(line))
    return [*line[:at], rng.choice(WORDS), *line[at + 1 :]]


def word_dropped(rng: Random, line: list[str], command: str) -> list[str]:
    at = rng.randrange(len(line))
    return line[:at] + line[at + 1 :] or ["x"]


def word_repeated(rng: Random, line: list[str], command: str) -> list[str]:
    at = rng.randrange(len(line))
    return [*line[: at + 1], *line[at:]]


def words_swapped(rng: Random, line: list[str], command: str) -> list[str]:
    changed = list(line)
    a, b = rng.randrange(len(line)), rng.randrange(len(line))
    changed[a], changed[b] = changed[b], changed[a]
    return changed


EDITS: tuple[Edit, ...] = (
    option_added, option_added, option_added, option_of_another,
    word_replaced, word_replaced, word_dropped, word_repeated, words_swapped,
)  # fmt: skip
