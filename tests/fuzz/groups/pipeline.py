"""Pipelines: order, options and text of passes, for llm_convert.py --passes and llm_opt.py -p."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

from passes.manager import PASSES, parse_pipeline
from tests.fuzz.case import Case
from tests.fuzz.checks import computes_as_the_model, reads_again
from tests.fuzz.mutate import FLOATS, NUMBERS, short, spoil_text
from tests.fuzz.samples import FLAGS, MODES, Samples, pipeline

OPTIONS = ("bits", "group", "tokens", "tail", "bytes", "keep", "fill", "symmetric", "x", "")
VALUES = ("", "true", "x", "none", "1,2", "9" * 5000, *map(str, NUMBERS), *map(str, FLOATS))
ODD = ("", ",", ",,", " ", "{}", "canonicalize{", "canonicalize}", "a{b{c}}", "canonicalize,,canonicalize", "x" * 5000,
       "\x1b[31m", "canonicalize\n,canonicalize", "canonicalize{=}", "quantize-weights{bits=3}")  # fmt: skip


def make(rng: Random, folder: Path, samples: Samples) -> Case:
    mode = rng.choice(MODES)
    text, what = draw(rng, mode)
    what = f"pipeline: {what}"
    if rng.random() < 0.6:
        samples.copy_checkpoint(folder)
        flags = [*FLAGS, "-q", mode, "--passes", text]
        return Case(what, "llm_convert", flags, results=("out",), check=computes_as_the_model)
    dump = rng.choice([path for path in samples.dumps if path.parent.name == mode])
    shutil.copy(dump, folder / "in.mlir")
    flags = ["in.mlir", "-p", text, "-o", "out.mlir"]
    what += f" on {mode}/{dump.name}"
    return Case(what, "llm_opt", flags, results=("out.mlir",), check=partial(reads_again, "out.mlir"))


def draw(rng: Random, mode: str) -> tuple[str, str]:
    if rng.random() < 0.1:
        text = rng.choice(ODD)
        return text, short(text)
    if rng.random() < 0.15:
        return spoil_text(rng, pipeline(mode))
    passes = [str(step) for step in parse_pipeline(pipeline(mode))]
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        edit = rng.choice(EDITS)
        done.append(f"{edit.__name__} {edit(rng, passes)}")
    return ",".join(passes), "; ".join(done)


def moved(rng: Random, passes: list[str]) -> str:
    at, to = rng.randrange(len(passes)), rng.randrange(len(passes))
    step = passes.pop(at)
    passes.insert(to, step)
    return f"{step} from {at} to {to}"


def swapped(rng: Random, passes: list[str]) -> str:
    at = rng.randrange(len(passes) - 1)
    passes[at : at + 2] = passes[at + 1], passes[at]
    return f"{passes[at]} and {passes[at + 1]}"


def dropped(rng: Random, passes: list[str]) -> str:
    return passes.pop(rng.randrange(len(passes)))


def added(rng: Random, passes: list[str]) -> str:
    step, at = rng.choice(sorted(PASSES)), rng.randrange(len(passes) + 1)
    passes.insert(at, step)
    return f"{step} at {at}"


def repeated(rng: Random, passes: list[str]) -> str:
    at = rng.randrange(len(passes))
    passes.insert(at, passes[at])
    return passes[at]


def with_option(rng: Random, passes: list[str]) -> str:
    at = rng.randrange(len(passes))
    name, _, options = passes[at].rstrip("}").partition("{")
    given = dict(item.split("=") for item in options.split() if item.count("=") == 1)
    key = rng.choice([*given, *given, rng.choice(OPTIONS)])
    given[key] = rng.choice(VALUES)
    passes[at] = f"{name}{{{' '.join(f'{key}={value}' for key, value in given.items())}}}"
    return short(passes[at])


EDITS: tuple[Callable[[Random, list[str]], str], ...] = (
    moved, swapped, dropped, added, repeated, with_option, with_option,
)  # fmt: skip
