"""How codes were chosen, beside dumps: these can then be run with the weights that the file has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compiler.diagnostics import UserError
from compiler.files import reason
from compiler.weights.stored import Floats

NAME = "chosen.npz"
METHOD = "method"  # among names of parameters, all of which have dots


def keep(folder: Path, method: str, importance: Mapping[str, Floats]) -> None:
    """Of inputs, by parameter, as `Materializer` has it."""
    try:
        np.savez(folder / NAME, allow_pickle=False, **{METHOD: np.array(method), **importance})
    except OSError as error:
        raise UserError(f"{folder / NAME}: {reason(error)}") from None


def kept(folder: Path) -> dict[str, Floats]:
    """UserError where codes depend on each other, so that no weight can be made by itself."""
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
    return found
