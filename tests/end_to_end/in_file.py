"""The weights of linears as they lie in a finished file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from compiler.weights.part import of_expert
from compiler.weights.stored import Quantized
from compiler.weights.tile import unpack
from dialects.chip import GlobalOp
from dialects.weights import Packed
from runtime_sim.launch.loader import Region
from tests.end_to_end.tiny import Net, Tiny


def weights_in_file(model: Tiny, net: Net, rows: dict[str, int]) -> dict[str, Quantized]:
    """All weights of a net that are codes, by name, put together from their tiles; `rows` that each has."""
    found: dict[str, dict[tuple[int, int], Quantized]] = {}
    regions = [op for op in net.stages["placed"].block.ops if isinstance(op, GlobalOp)]
    for op in regions:
        if isinstance(op.source, Packed) and op.source.tile.scheme is not None:
            for source, start in tiles_of(op.source, op.address - model.options.spec.coeff_base):
                for name, row, part in shares(source, tile_at(model, net, source, start), rows):
                    found.setdefault(name, {})[row, source.column] = part
    return {name: together(parts) for name, parts in found.items()}


def tiles_of(source: Packed, start: int) -> Iterator[tuple[Packed, int]]:
    """A region's tiles and where each begins: it has one, or one for each expert."""
    if not source.experts:
        yield source, start
    for expert in range(source.experts):
        names = tuple(of_expert(name, expert) for name in source.names)
        yield replace(source, names=names, experts=0), start + expert * source.tile.total_bytes


def tile_at(model: Tiny, net: Net, source: Packed, start: int) -> Quantized:
    tile = source.tile
    blob = model.runtime.net(net.name).memories[Region.COEFF]
    data = np.array(blob[start : start + tile.total_bytes]).reshape(source.pieces, tile.lanes, -1)
    found = unpack(tile, data.swapaxes(0, 1).reshape(tile.lanes, -1))
    assert isinstance(found, Quantized)
    return found


def shares(source: Packed, tile: Quantized, rows: dict[str, int]) -> list[tuple[str, int, Quantized]]:
    """What a tile holds of each weight: its name, the first row, and the codes."""
    parts, start, taken = [], source.row, 0
    each = source.tile.rows // len(source.names) if source.each else source.tile.rows
    for name in source.names:
        first = source.row if source.each else max(start, 0)
        stop = min(first + each if source.each else start + each, rows[name.partition("@")[0]])
        count = max(0, stop - first)
        if count:
            parts.append((name, first, cut(tile, slice(taken, taken + count))))
        taken += count
        start -= 0 if source.each else rows[name.partition("@")[0]]
    return parts


def cut(tile: Quantized, rows: slice) -> Quantized:
    zeros = None if tile.zeros is None else tile.zeros[rows]
    return Quantized(tile.codes[rows], tile.scales[rows], zeros, tile.scheme)


def together(parts: dict[tuple[int, int], Quantized]) -> Quantized:
    """Tiles by their first row and column as one weight; none may be missing."""
    columns = sorted({column for _, column in parts})
    rows = sorted({row for row, _ in parts})
    one = parts[0, 0]

    def join(part: str) -> np.ndarray:
        return np.block([[getattr(parts[row, column], part) for column in columns] for row in rows])

    zeros = None if one.zeros is None else join("zeros")
    return Quantized(join("codes"), join("scales"), zeros, one.scheme)
