"""What the compiler asks of a parameter, however a checkpoint stores it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from compiler.weights.scheme import Scheme
from compiler.weights.stored import Weight


class Source(Protocol):
    """Where the values of one parameter come from.

    Equal sources give the same values, as those of tied parameters do. Making one reads no values.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the parameter."""

    @property
    def scheme(self) -> Scheme | None:
        """How it is stored as codes; None when `read` gives floats, to be stored as a pass says."""

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The type of the stored floats; None of codes."""

    @property
    def nbytes(self) -> int:
        """What the checkpoint keeps for it."""

    @property
    def key(self) -> str:
        """The key, or the first of several, that messages name."""

    @property
    def path(self) -> Path:
        """The file of that key."""

    def read(self, rows: slice = slice(None)) -> Weight:
        """The values, or those of some rows (first axis, step 1), in memory of their own: floats, or codes of
        `scheme`. UserError when the file cannot be read, or holds what no program computes with.
        """
