"""One file per chip: everything that is its own. A chip is found by its place, as passes are.

The file `bm1684x.py` holds the record `BM1684X`, a `ChipSpec`, each number with its unit and source. What is
common to all chips is beside this folder: `spec.py` says what the fields mean, `families.py` what the
instruction sets share, `costs.py` what costs are counted in.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from compiler.diagnostics import UserError
from compiler.target.spec import ChipSpec

__all__ = ["CHIPS", "chip", "chip_of_file"]


def records(folders: Iterable[str]) -> dict[str, ChipSpec]:
    """The chips whose files lie in these folders of the package, by name."""
    files = [module.name for module in pkgutil.iter_modules(folders)]
    return {name: getattr(importlib.import_module(f"{__name__}.{name}"), name.upper()) for name in files}


CHIPS: dict[str, ChipSpec] = records(__path__)


def chip(name: str) -> ChipSpec:
    """The chip of that name, in any case; UserError names the known ones."""
    key = name.lower()
    for spec in CHIPS.values():
        if key in (spec.name, *spec.aliases):
            return spec
    also = ", ".join(f"{alias} is {spec.name}" for spec in CHIPS.values() for alias in spec.aliases)
    raise UserError(f"unknown chip '{name}': known chips are {', '.join(CHIPS)} ({also})")


def chip_of_file(text: str) -> ChipSpec:
    """The chip that a bmodel's `chip` field names; UserError names the known ones."""
    for spec in CHIPS.values():
        if spec.chip == text:
            return spec
    known = ", ".join(spec.chip for spec in CHIPS.values())
    raise UserError(f"it is for the chip '{text}'; known here are {known}")
