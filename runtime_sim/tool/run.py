"""`run`: one net with arrays from a file."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from compiler.bmodel import TensorInfo, read_bmodel
from compiler.bmodel.writer import atomic_file
from compiler.diagnostics import UserError
from compiler.files import open_file
from runtime_sim.arrays import Array
from runtime_sim.launch.orders import shuffled
from runtime_sim.launch.queues import Choose
from runtime_sim.launch.runtime import NUMPY_TYPES, Runtime

ARRAY_BYTES = 4 << 30  # of all inputs of a net
HEADER_BYTES = 1 << 16  # of an array in the file


def run(arguments: Namespace) -> int:
    check_output(arguments.output)
    order = drawn_order(arguments.order)
    runtime = Runtime(read_bmodel(arguments.file), exact=arguments.exact, order=order)
    net = runtime.net(arguments.net)
    given = load_arrays(arguments.input)
    inputs = {buffer.info.name: to_input(buffer.info, given) for buffer in net.inputs}
    outputs = runtime.run(arguments.net, inputs)
    with atomic_file(arguments.output) as file:
        save_arrays(file, {name: widen(array) for name, array in outputs.items()})
    return 0


def drawn_order(seed: int | None) -> Choose | None:
    """The order of --order; UserError for numbers below 0."""
    if seed is not None and seed < 0:
        raise UserError(f"--order {seed}: expected 0 or more")
    return None if seed is None else shuffled(seed)


def check_output(path: Path) -> None:
    """UserError, before any work, when a file of that name could not be written."""
    if path.exists() and not path.is_file():
        raise UserError(f"cannot write {path}: it is there and not a regular file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {path}: {path.parent} is no folder that can be written to")


def load_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz; never pickled objects, and no more than a net could take."""
    with open_file(path) as file:
        try:
            _check_archive(path, file)
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (
            OSError,
            ValueError,
            EOFError,
            SyntaxError,
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
        ) as error:
            raise UserError(f"{path} cannot be read as .npz: {str(error)[:200]}") from None


def _check_archive(path: Path, file: IO[bytes]) -> None:
    """UserError for an archive that is more when unpacked, or says so of an array, than a net could take."""
    with zipfile.ZipFile(file) as archive:
        size = sum(member.file_size for member in archive.infolist())
        if size > ARRAY_BYTES:
            raise UserError(f"{path} holds {size} bytes, expected at most {ARRAY_BYTES}")
        for member in archive.infolist():
            with archive.open(member) as array:
                _check_array(member, array)
    file.seek(0)


def _check_array(member: zipfile.ZipInfo, array: IO[bytes]) -> None:
    """ValueError when the member is no array of its own size, so that nothing is allocated for it."""
    version = np.lib.format.read_magic(array)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
        version
    )
    if read is None:
        raise ValueError(f"'{member.filename}' is of the format {version}")
    shape, _, dtype = read(array, max_header_size=HEADER_BYTES)
    if dtype.hasobject:
        raise ValueError(f"'{member.filename}' holds pickled objects")
    if math.prod(shape) * dtype.itemsize > member.file_size:
        raise ValueError(f"'{member.filename}' has fewer bytes than its shape {list(shape)}")


def save_arrays(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    keywords: dict[str, Any] = dict(arrays)
    np.savez(file, **keywords)


def to_input(info: TensorInfo, given: Mapping[str, Array]) -> Array:
    """The array for an input, rounded to its type; numpy files hold 16-bit floats widened to f32."""
    for name in (info.name, f"in.{info.name}"):
        if name in given:
            if given[name].shape != info.shape:
                raise UserError(f"'{name}' has the shape {given[name].shape}, {info.name} is {info.shape}")
            if given[name].dtype.kind not in "biuf":
                raise UserError(f"'{name}' holds {given[name].dtype}, {info.name} is {info.dtype}")
            return given[name].astype(NUMPY_TYPES[info.dtype])
    raise UserError(
        f"there is no array '{info.name}' ({info.dtype} {list(info.shape)}) among {sorted(given)!a:.300}"
    )


def widen(array: Array) -> Array:
    """A type that numpy can store: bf16 becomes f32, without change of value."""
    return array.astype(np.float32) if array.dtype == NUMPY_TYPES["bf16"] else array
