"""What `verify` shows a model that sees: pictures, and a prompt about one of them.

Where a tower takes grids, one picture fills it as far as a rectangle does, and one leaves the most of it; of
tiles there are two. The prompt has a little text before and after the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt, prod

import numpy as np

from runtime_sim.arrays import Array
from runtime_sim.launch.session import Session
from runtime_sim.launch.tower import GridTower, Picture, TileTower, Tower
from runtime_sim.tool.reference import Reference, Trace

AROUND = 3  # tokens of text before a picture, and after it


@dataclass(frozen=True)
class Shown:
    """A prompt about a picture, with the reference's pass over it."""

    tokens: list[int]
    pictures: list[Picture]
    positions: Array  # [streams, tokens]
    trace: Trace


def drawn_pictures(tower: Tower) -> list[Picture]:
    """Arbitrary pictures, the same each time."""
    rng = np.random.default_rng(0)
    if isinstance(tower, TileTower):
        return [Picture(rng.standard_normal((2, *tower.tile), np.float32))]
    assert isinstance(tower, GridTower)
    values = tower.net.inputs[0].info.shape[1]
    return [
        Picture(rng.standard_normal((prod(grid), values), np.float32), grid)
        for grid in dict.fromkeys(grids_of(tower.patches, tower.merge))
    ]


def grids_of(patches: int, merge: int) -> list[tuple[int, int]]:
    """Rows and columns of the largest picture nearest to a square, and of one that is wide and low."""
    cells = patches // merge**2
    rows = isqrt(cells)
    columns = cells // rows
    return [(rows * merge, columns * merge), (-(-rows // 3) * merge, (columns - columns // 4) * merge)]


def prompt_shown(session: Session, reference: Reference, pictures: Sequence[Picture]) -> Shown | None:
    """About the largest of the pictures that leaves room for text; None where none does, or where the model's
    settings do not know the token that keeps places.
    """
    assert session.tower is not None
    room = session.sizes.prefill_rows - 2 * AROUND
    sizes = [prod(session.tower.token_grid(picture)) for picture in pictures]
    fitting = [(size, index) for index, size in enumerate(sizes) if size <= room]
    if not fitting or reference.place >= reference.vocabulary:
        return None
    size, index = max(fitting)
    picture = replace(pictures[index], start=AROUND)
    tokens = np.random.default_rng(1).integers(0, reference.vocabulary, size + 2 * AROUND)
    tokens[tokens == reference.place] = (reference.place + 1) % reference.vocabulary
    tokens[AROUND : AROUND + size] = reference.place
    given = tokens.tolist()
    positions = session.positions(len(given), [picture])
    return Shown(given, [picture], positions, reference.trace(given, [len(given) - 1], [picture]))
