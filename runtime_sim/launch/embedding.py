"""The embedding of files compiled with --embedding_disk: a table of rows in `config/embedding.bin`.

It belongs to one bmodel, which has its sha256; files of the vendor's compiler have not.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from compiler.bmodel import BModel, TensorInfo
from compiler.client_nets import BLOCK_CACHE, EMBEDDING, net_name
from compiler.diagnostics import UserError
from compiler.files import open_file
from runtime_sim.arrays import Array
from runtime_sim.launch.runtime import NUMPY_TYPES

NAME = "embedding.bin"
STEP = net_name(BLOCK_CACHE, 0)  # whose first input is a row
_CHUNK = 1 << 22


def needs_table(bmodel: BModel) -> bool:
    """Whether the file is part of a language model whose embedding is not among its nets."""
    return bool(bmodel.embedding_sha256) and bmodel.first_of(EMBEDDING) is None


def open_table(path: Path, bmodel: BModel, state: TensorInfo) -> Array:
    """The rows [vocabulary, hidden], mapped from the file; UserError when it is not the bmodel's.

    `state` is an input that takes a row.
    """
    if not path.exists():
        raise UserError(
            f"{path} is missing: this file was compiled with --embedding_disk, which wrote that too"
        )
    with open_file(path) as file:
        size, row = os.fstat(file.fileno()).st_size, state.size
        if not size or not row or size % row:
            raise UserError(
                f"{path} has {size} bytes, not rows of {row}: it is the embedding of another model"
            )
        if bmodel.embedding_sha256 and _sha256(path) != bmodel.embedding_sha256:
            raise UserError(
                f"{path} is not the embedding that this file was compiled with (sha256): "
                "put that one there, or compile again with --embedding_disk"
            )
        items = np.memmap(file, NUMPY_TYPES[state.dtype], mode="r")
    return items.reshape(-1, state.shape[-1])


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_file(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def table_problem(path: Path, bmodel: BModel) -> str:
    """Why the table is not the one that a sound file has beside it; empty when it is, or none is needed."""
    step = bmodel.first_of(STEP)
    if not needs_table(bmodel) or step is None:
        return ""
    try:
        open_table(path, bmodel, step.stages[0].inputs[0])
    except UserError as error:
        return error.message
    return ""
