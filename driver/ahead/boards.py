"""What boards are published to do, to hold an estimate against; see `boards.csv` for where it is from."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from math import log
from pathlib import Path

TABLE = Path(__file__).with_suffix(".csv")
STORED = {4: 0.547, 8: 1.03, 16: 2.0}  # bytes of a weight in a block, scales included
LENGTH = 0.25  # how much the length matters beside the size, where something near is looked for


@dataclass(frozen=True)
class Board:
    """A published figure: seconds to the first token and tokens a second, of the vendor's program.

    `vendor_` figures are by the cautious estimate of that program; None where it was not measured.
    """

    chip: str  # as in the file
    cores: int
    devices: int
    model: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    bits: int
    tokens: int
    first_token: float
    rate: float
    vendor_first_token: float | None
    vendor_rate: float | None

    @property
    def block_weights(self) -> int:
        """Of one layer's linears: queries, keys and values, output, and a gated MLP."""
        attention = 2 * self.hidden * self.head_size * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def token_bytes(self) -> float:
        """What a step of decode reads: all weights, the head in 16 bits, and the caches."""
        cache = 2 * 2 * self.tokens * self.kv_heads * self.head_size
        blocks = self.layers * (self.block_weights * STORED[self.bits] + cache)
        return blocks + 2 * self.vocabulary * self.hidden

    def distance(self, token_bytes: float, tokens: int) -> float:
        length = abs(log(max(tokens, 1) / self.tokens))
        return abs(log(token_bytes / self.token_bytes)) + LENGTH * length


@cache
def boards() -> tuple[Board, ...]:
    with TABLE.open(encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return tuple(_board(row) for row in rows)


def nearest(chip: str, cores: int, devices: int, token_bytes: float, tokens: int) -> Board | None:
    """Of what is published of this chip, and of as many of them and of their cores where there is any, what
    reads about as much for a token; of equally near ones, one that the estimate is known for.
    """
    found = [board for board in boards() if board.chip == chip]
    for name, wanted in (("devices", devices), ("cores", cores)):
        found = [board for board in found if getattr(board, name) == wanted] or found
    near = [(board.distance(token_bytes, tokens), board.vendor_rate is None, board) for board in found]
    return min(near, key=lambda each: each[:2], default=(0, False, None))[2]


def _board(row: dict[str, str]) -> Board:
    floats = ("first_token", "rate", "vendor_first_token", "vendor_rate")
    known = {name: float(row[name]) if row[name] else None for name in floats}
    numbers = {name: int(text) for name, text in row.items() if name not in (*floats, "chip", "model")}
    return Board(chip=row["chip"], model=row["model"], **numbers, **known)  # type: ignore[arg-type]
