"""Matrices read back from the bytes that the compiler packs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compiler.bmodel.container import WeightLocation
from compiler.diagnostics import UserError
from compiler.ir.types import BF16, F16
from compiler.target.chips import chip
from compiler.weights.groups import quantize
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized
from compiler.weights.tile import Tile
from dialects.weights import Joined, Packed, region_name
from driver.blob import Materializer
from runtime_sim.launch.loader import Region
from runtime_sim.tool.stored import matrix
from tests.helpers import random_tensor

ROWS, COLUMNS = 300, 192
WEIGHT = random_tensor(ROWS, COLUMNS, dtype=BF16.numpy)
SCHEMES = {
    "w4": Scheme(4, 64, True, BF16),
    "symmetric": Scheme(4, 32, False, F16),
    "w8": Scheme(8, 96, False, BF16),
    "w8 with zeros": Scheme(8, 64, True, F16),
}


def net_of(sources: list[Joined | Packed], target: str, read: Any = {"/head.weight": WEIGHT}.__getitem__) -> Any:
    """A net whose coefficients hold these, each behind some bytes of something else."""
    regions, blob = [], bytearray()
    for source in sources:
        blob += b"\xff" * 64
        data = np.ascontiguousarray(Materializer(read, {}).bytes_of(source)).tobytes()
        regions.append(WeightLocation(region_name(source), len(blob), len(data)))
        blob += data
    stage = SimpleNamespace(coeff=SimpleNamespace(locations=regions))
    memories = {Region.COEFF: np.frombuffer(bytes(blob), np.uint8)}
    return SimpleNamespace(
        name="lm_head", program=SimpleNamespace(stage=stage, spec=chip(target)), memories=memories
    )


def tiles(stored: Any, target: str, name: str = "/head.weight", pieces: int = 1) -> list[Packed]:
    """The weight in tiles of 128 rows and all or half of its columns."""
    spec = chip(target)
    native = spec.native_int4 and isinstance(stored, Scheme) and stored.bits == 4
    across = 96 if isinstance(stored, Scheme) and 96 % stored.group == 0 else COLUMNS
    return [
        Packed(
            (name,),
            row,
            column,
            Tile(min(128, ROWS - row), across, stored, spec.lanes, spec.eu_bytes, native),
            pieces=pieces,
        )
        for row in range(0, ROWS, 128)
        for column in range(0, COLUMNS, across)
    ]


@pytest.mark.parametrize("target", ["bm1684x", "bm1688"])
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_codes_are_decoded(target, scheme):
    found = matrix(net_of(tiles(scheme, target), target), ROWS, COLUMNS)
    wanted = quantize(WEIGHT, scheme)
    assert isinstance(wanted, Quantized)
    np.testing.assert_array_equal(found, wanted.dequantize())


@pytest.mark.parametrize("pieces", [1, 2])
def test_weights_of_16_bits_are_as_they_were(pieces):
    found = matrix(net_of(tiles(BF16, "bm1684x", pieces=pieces), "bm1684x"), ROWS, COLUMNS)
    np.testing.assert_array_equal(found, WEIGHT.astype(np.float32))


def test_rows_as_they_lie_are_read():
    shares = [Joined((f"/head.weight{{{rows}:1}}",), BF16) for rows in ("0:100", "100:300")]
    np.testing.assert_array_equal(matrix(net_of(shares, "bm1684x"), ROWS, COLUMNS), WEIGHT.astype(np.float32))


def test_what_the_file_does_not_tell_is_an_error():
    some = tiles(SCHEMES["w4"], "bm1684x")[1:]
    with pytest.raises(UserError, match=r"does not tell where the matrix \[300, 192\] of lm_head is"):
        matrix(net_of(some, "bm1684x"), ROWS, COLUMNS)
