"""How codes were chosen, beside dumps: these can then be run with the weights that the file has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compiler.diagnostics import UserError
from compiler.files import reason
from compiler.weights.stored import Array, Floats
from driver.calibration.kept import Scaled, Vector
from frontend.binding import Weights

NAME = "chosen.npz"
METHOD = "method"  # among names of parameters, all of which have dots
VALUES, COLUMNS, ROWS = "/values", "/columns", "/rows"  # behind names: what takes their place


def keep(folder: Path, method: str, importance: Mapping[str, Floats], weights: Weights) -> None:
    """Of inputs, by parameter, as `Materializer` has it, and what was put in the place of parameters."""
    arrays: dict[str, Array] = {METHOD: np.array(method), **importance}
    for name, made in weights.made.items():
        if isinstance(made, Vector):
            arrays[name + VALUES] = made.values
        elif isinstance(made, Scaled):
            arrays |= {name + COLUMNS: made.columns, name + ROWS: made.rows}
    try:
        np.savez(folder / NAME, allow_pickle=False, **arrays)
    except OSError as error:
        raise UserError(f"{folder / NAME}: {reason(error)}") from None


def kept(folder: Path, weights: Weights) -> dict[str, Floats]:
    """How inputs count; what was put in the place of parameters is again. UserError where codes depend on
    each other, so that no weight can be made by itself.
    """
    try:
        with np.load(folder / NAME, allow_pickle=False) as arrays:
            found = dict(arrays)
    except (OSError, ValueError) as error:
        problem = reason(error) if isinstance(error, OSError) else str(error)
        raise UserError(f"{folder / NAME}: {problem}: compile again with --dump-ir {folder}") from None
    method = str(found.pop(METHOD))
    if method == "gptq":
        raise UserError(
            f"--ir {folder}: --calibrate gptq chose the codes, each after others: compile again with "
            "--calibrate search to find a wrong pass"
        )
    for name, source in weights.tensors.items():
        if name + VALUES in found:
            weights.made[name] = Vector(source, found.pop(name + VALUES))
        if name + COLUMNS in found:
            weights.made[name] = Scaled(source, found.pop(name + COLUMNS), found.pop(name + ROWS))
    return found
