"""IR text: dumps of real compilations, edited and continued."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz.case import Case, write_text
from tests.fuzz.checks import reads_again
from tests.fuzz.mutate import NUMBERS, spoil_text
from tests.fuzz.samples import Samples


def make(rng: Random, folder: Path, samples: Samples) -> Case:
    dump = rng.choice(samples.dumps)
    text, what = dump.read_text(), f"IR: {dump.parent.name}/{dump.name}"
    for _ in range(rng.choice((1, 1, 2, 4))):
        text, change = rng.choice((spoil_text, spoil_text, other_type, other_alias, other_attribute, other_operand))(rng, text)
        what += f", {change}"
    write_text(folder / "in.mlir", text)
    flags = ["in.mlir", "-o", "out.mlir"]
    return Case(what, "llm_opt", flags, results=("out.mlir",), check=partial(reads_again, "out.mlir"))


def other_type(rng: Random, text: str) -> tuple[str, str]:
    """One type of a tensor is another of the same text, or has another size."""
    found = list(re.finditer(r"tensor<[^<>]*>|![\w.]+<[^<>]*>", text))
    if not found:
        return spoil_text(rng, text)
    old, new = rng.choice(found), rng.choice(found)[0]
    if rng.random() < 0.5:
        new = re.sub(r"\d+(?=x)", lambda match: rng.choice((match[0], str(rng.choice(NUMBERS)))), old[0])
    return text[: old.start()] + new + text[old.end() :], f"{old[0]} -> {new}"


def other_alias(rng: Random, text: str) -> tuple[str, str]:
    """A definition or a use of an alias has the name of another, or none that is defined."""
    found = list(re.finditer(r"[#!]\w+(?![\w.])", text))
    if not found:
        return spoil_text(rng, text)
    old, new = rng.choice(found), rng.choice((rng.choice(found)[0], "#nothing", "!nothing"))
    return text[: old.start()] + new + text[old.end() :], f"{old[0]} -> {new}"


def other_attribute(rng: Random, text: str) -> tuple[str, str]:
    """One attribute of an op has another value."""
    found = list(re.finditer(r"(?<= = )(-?\d[\w.+-]*|\"[^\"]*\"|\[[^\]]*\])", text))
    if not found:
        return spoil_text(rng, text)
    old = rng.choice(found)
    new = rng.choice((rng.choice(found)[0], str(rng.choice(NUMBERS)), "[]", '""', "unit", "-0.0", "0x7fc0"))
    return text[: old.start()] + new + text[old.end() :], f"{old[0]} -> {new}"


def other_operand(rng: Random, text: str) -> tuple[str, str]:
    """One use of a value is a use of another."""
    found = list(re.finditer(r"%\w+", text))
    if not found:
        return spoil_text(rng, text)
    old, new = rng.choice(found), rng.choice(found)[0]
    return text[: old.start()] + new + text[old.end() :], f"{old[0]} -> {new}"
