"""`run`: one net with arrays from a file."""

from __future__ import annotations

import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from compiler.bmodel import TensorInfo, read_bmodel
from compiler.bmodel.writer import atomic_file
from compiler.diagnostics import UserError
from runtime_sim.runtime import NUMPY_TYPES, Runtime


def run(arguments: Namespace) -> int:
    runtime = Runtime(read_bmodel(arguments.file), exact=arguments.exact)
    net = runtime.net(arguments.net)
    given = load_arrays(arguments.input)
    inputs = {buffer.info.name: to_input(buffer.info, given) for buffer in net.inputs}
    outputs = runtime.run(arguments.net, inputs)
    with atomic_file(arguments.output) as file:
        save_arrays(file, {name: widen(array) for name, array in outputs.items()})
    return 0


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as .npz: {error}") from None


def save_arrays(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    keywords: dict[str, Any] = dict(arrays)
    np.savez(file, **keywords)


def to_input(info: TensorInfo, given: Mapping[str, np.ndarray]) -> np.ndarray:
    """The array for an input, rounded to its type; numpy files hold 16-bit floats widened to f32."""
    for name in (info.name, f"in.{info.name}"):
        if name in given:
            if given[name].shape != info.shape:
                raise UserError(f"'{name}' has the shape {given[name].shape}, {info.name} is {info.shape}")
            return given[name].astype(NUMPY_TYPES[info.dtype])
    raise UserError(
        f"there is no array '{info.name}' ({info.dtype} {list(info.shape)}) among {sorted(given)}"
    )


def widen(array: np.ndarray) -> np.ndarray:
    """A type that numpy can store: bf16 becomes f32, without change of value."""
    return array.astype(np.float32) if array.dtype == NUMPY_TYPES["bf16"] else array
