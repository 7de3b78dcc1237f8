"""How far a net may be from the reference, by what the file says of its weights."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.bmodel import Coeff, Stage, WeightLocation
from compiler.ir.types import BF16, F32
from compiler.weights.scheme import Scheme
from compiler.weights.tile import Tile
from dialects.weights import Joined, Packed, WeightSource, region_name
from runtime_sim.tool.agreement import LIMITS, Agreement, weight_bits


def packed(stored: object) -> WeightSource:
    return Packed(("w",), 0, 0, Tile(64, 64, stored, 64, 64))


FOUR, EIGHT, HALF = packed(Scheme(4, 64, True, BF16)), packed(Scheme(8, 64, False, BF16)), packed(BF16)
TABLE, NORM = Joined(("w",), BF16), Joined(("w",), F32)


def stage_of(names: list[str]) -> Stage:
    locations = tuple(WeightLocation(name, 0, 64) for name in names)
    return Stage([], [], 0, 0, [], coeff=Coeff(0, None, locations))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sources", "bits"),
    [
        ([FOUR, EIGHT, NORM], 4),
        ([EIGHT, HALF, NORM], 8),
        ([HALF, NORM], 16),
        ([TABLE, NORM], 16),
        ([NORM], 4),
        ([], 4),
    ],
)
def test_a_net_is_judged_by_its_coarsest_weights(sources, bits):
    assert weight_bits(stage_of([region_name(source) for source in sources])) == bits
    assert bits in LIMITS


def test_files_of_others_are_judged_by_the_widest_limits():
    assert weight_bits(stage_of(["model.layers.0.mlp", "bits = 16"])) == 4


def test_a_token_that_rounding_may_decide_is_not_the_worst():
    wanted = np.ones((3, 4))
    given = wanted.copy()
    given[1] = -1
    for decided, broken in ((np.array([True, False, True]), False), (None, True), (np.zeros(3, bool), False)):
        found = Agreement.of(given, wanted, decided)
        assert bool([*LIMITS[16].broken_by_one(found)]) == broken
    assert Agreement.of(given, wanted, np.array([True, False, True])).worst == 0
