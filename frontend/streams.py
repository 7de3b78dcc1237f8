"""Positions that come in several streams, and which of them each column of a table follows.

Models that see give a token three positions (time, height and width), and pick each section of their rotary
tables by one of them. How they do is not read but tried: in one more run, a token at a time stands far away
in one stream alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from compiler.diagnostics import UserError
from dialects.llm import Streams

# Positions at which the slowest angle of any known model (2e-7 a position) is one that cosines show; several,
# since one of them may be a whole number of turns of some angle.
FAR = (1 << 20, (1 << 20) + 1, 3 << 19)
MOVED = 1e-4  # of a cosine or sine; rounding differs by less, see `tables.TOLERANCE`


def stream_count(model: Any) -> int:
    """How many positions a token has: rotary modules of the library that take several know their sections
    by one name.
    """
    sections = [getattr(module, "mrope_section", None) for module in model.modules()]
    return max((len(each) for each in sections if isinstance(each, Sequence)), default=1)


def told_apart(count: int) -> np.ndarray:
    """Positions [streams, tokens]: one token at 0, then for each stream some that are far in it alone."""
    far = np.kron(np.eye(count, dtype=np.int64), FAR)
    return np.pad(far.reshape(count, -1), ((0, 0), (1, 0)))


def streams_of(rows: np.ndarray, path: str) -> Streams:
    """Which stream each column follows, by its values [tokens, columns] at `told_apart`."""
    moved = np.abs(rows[1:] - rows[0]) > MOVED
    follows = moved.reshape(-1, len(FAR), rows.shape[1]).any(axis=1)
    if (follows.sum(axis=0) != 1).any():
        column = int((follows.sum(axis=0) != 1).argmax())
        raise UserError(
            f"cannot import the model: column {column} of a constant follows {follows[:, column].sum()} of "
            f"{len(follows)} streams of positions, expected one, in {path}"
        )
    sections = [(int(number), len([*columns])) for number, columns in groupby(follows.argmax(axis=0))]
    return Streams(tuple(number for number, _ in sections), tuple(width for _, width in sections))
