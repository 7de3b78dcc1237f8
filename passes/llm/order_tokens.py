"""Tokens of a picture in the order in which they lie best: neighbours in the picture share a lane."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from compiler.ir.core import Op, Value, block_of
from compiler.ir.module import Builder, Function, Module
from compiler.target.attribute import target_of
from dialects import llm
from dialects.contents import Content
from passes.llm.tokenwise import Tokens, tokens_of
from passes.manager import Pass

ORDER = (1, 2, 4, 5, 3, 0)  # of `Grid.axes`: what is within a lane, then columns and rows of lanes


@dataclass(frozen=True)
class OrderTokens(Pass):
    """llm -> llm. Put the patches of a picture in another order, where nothing but their place depends on it.

    Token i will be on lane i modulo the number of lanes. A picture lies in DDR row by row, and towers merge
    neighbours. So each lane gets all of some neighbourhood: it loads that as rows of the picture, and what
    is merged lies in one lane. What is done to each token alone does not care, nor does attention that sees
    all. The client gets its tokens in their own order.
    """

    name = "order-tokens"
    takes = Content.LLM

    def run(self, module: Module) -> None:
        for function in module.functions():
            order_tokens(function)


@dataclass(frozen=True)
class Grid:
    """Rows and columns: of tokens, of lanes that these are shared among, and of tokens that are merged."""

    size: tuple[int, int]
    lanes: tuple[int, int]
    merged: tuple[int, int] = (1, 1)

    @property
    def tokens(self) -> int:
        return prod(self.size)

    @property
    def axes(self) -> tuple[int, ...]:
        """Of the rows and then of the columns of tokens: lanes, blocks of one lane, tokens of a block."""
        each = zip(self.size, self.lanes, self.merged, strict=True)
        return tuple(n for size, lanes, merged in each for n in (lanes, size // lanes // merged, merged))

    @property
    def behind(self) -> Grid:
        """Of what the blocks are merged into."""
        rows, columns = (size // merged for size, merged in zip(self.size, self.merged, strict=True))
        return Grid((rows, columns), self.lanes)


@dataclass(frozen=True)
class Part:
    """Ops that treat tokens alike. Of what they make others read `end` alone, and move it on to the next
    part, or to the client.
    """

    tokens: Tokens
    end: Value
    moves: Sequence[Any]

    @property
    def axis(self) -> int:
        """Of the end, where its tokens are."""
        return self.tokens.axes[self.end]

    @property
    def drops_known(self) -> bool:
        """Whether none of the tokens that were put in front is read."""
        known, first = self.tokens.known, self.moves[0] if self.moves else None
        if not known:
            return True
        wanted = (self.axis, known, known + self.tokens.count, 1)
        return isinstance(first, llm.SliceOp) and (first.axis, first.start, first.stop, first.step) == wanted


def order_tokens(function: Function) -> None:
    for op in list(function.block.ops):
        if (size := patches_of(op)) is not None:
            parts = [*parts_from(op.results[0], function)]
            grids = grids_of(size, parts, target_of(function).lanes)
            for part, grid in zip(parts, grids, strict=False):
                reorder(part, grid)


def patches_of(op: Op) -> tuple[int, int] | None:
    """How many rows and columns of patches an op makes of a picture: reshape(permute(reshape(picture)))."""
    turned = op.x.defining(llm.PermuteOp) if isinstance(op, llm.ReshapeOp) else None
    if turned is None or (split := turned.x.defining(llm.ReshapeOp)) is None or split.x.type.rank != 4:
        return None
    rows, columns, *inside = [size for size in turned.y.type.shape if size > 1]
    return (rows, columns) if op.results[0].type.shape[-2:] == (rows * columns, prod(inside)) else None


# ---- what there is ----


def parts_from(start: Value, function: Function) -> Iterator[Part]:
    """The parts of a function from there on up to its results; none where some do not treat tokens alike."""
    tokens = tokens_of(function, start, start.type.rank - 2)
    if len(tokens.read) != 1 or (tokens.shifted is None) != (tokens.put is None):
        return
    ((end, users),) = tokens.read.items()
    moves: list[Any] = []
    while len(users) == 1 and type(users[0]) in MOVED:
        moves.append(users[0])
        users = users[0].results[0].users
    is_last = users == [function.terminator]
    following = [] if is_last or not moves else [*parts_from(moves[-1].results[0], function)]
    if is_last or following:
        yield Part(tokens, end, moves)
        yield from following


def grids_of(size: tuple[int, int], parts: Sequence[Part], lanes: int) -> list[Grid]:
    """How the tokens of each part are to lie; none where they cannot. Long rows of the picture come first."""
    merged = merged_by(parts[0], size) if len(parts) == 2 else (1, 1)
    if merged is None or len(parts) not in (1, 2) or not all(part.drops_known for part in parts):
        return []
    for columns in range(1, lanes + 1):
        grid = Grid(size, (lanes // columns, columns), merged)
        if prod(grid.axes) == grid.tokens and prod(grid.lanes) == lanes:
            return [grid, grid.behind][: len(parts)]
    return []


def merged_by(part: Part, size: tuple[int, int]) -> tuple[int, int] | None:
    """How many rows and columns of tokens become one behind a part, row by row; None if it is not so."""
    numbers = moved_numbers(part)
    merged = tuple(1 + int(each.max()) for each in np.divmod(numbers[0], size[1]))
    grid = Grid(size, (1, 1), (merged[0], merged[1]))
    if prod(grid.axes) != grid.tokens or numbers.size % grid.tokens or numbers.min() < 0:
        return None
    blocks = np.arange(grid.tokens).reshape(grid.axes).transpose(0, 1, 3, 4, 2, 5)
    wanted = np.repeat(blocks.reshape(-1, prod(merged)), numbers.size // grid.tokens, axis=1)
    return grid.merged if np.array_equal(np.sort(numbers, axis=1), wanted) else None


def moved_numbers(part: Part) -> np.ndarray:
    """The number of the token that each item behind a part is of, [tokens, items]; below 0 of known ones."""
    shape = part.end.type.shape
    numbers = np.arange(shape[part.axis]) - part.tokens.known
    found = np.broadcast_to(numbers.reshape([-1 if i == part.axis else 1 for i in range(len(shape))]), shape)
    for op in part.moves:
        found = MOVED[type(op)](op, found)
    return found.reshape(-1, found.shape[-1])


MOVED: dict[type[Op], Callable[[Any, np.ndarray], np.ndarray]] = {
    llm.ReshapeOp: lambda op, x: x.reshape(op.shape),
    llm.PermuteOp: lambda op, x: x.transpose(op.order),
    llm.SliceOp: lambda op, x: x[(slice(None),) * op.axis + (slice(op.start, op.stop, op.step),)],
}


# ---- what becomes of it ----


def reorder(part: Part, grid: Grid) -> None:
    """Put a part's tokens in the order of the grid, those that were put in front behind them, and what it
    gives in their own order again.
    """
    tokens, known = part.tokens, part.tokens.known
    given = part.moves[0].y if known else part.end
    outside = [op for op in given.users if op not in tokens.ops]
    replace_in(outside, given, in_own_order(given, part.axis, grid))
    inside = [*tokens.ops]
    replace_in(inside, tokens.start, in_order(tokens.start, tokens.axes[tokens.start], grid))
    for weight, axis in tokens.weights.items():
        replace_in(inside, weight, in_order(weight, axis, grid, known))
    if tokens.shifted and tokens.put:
        change(part.moves[0], start=0, stop=grid.tokens)
        change(tokens.shifted, start=0, stop=grid.tokens + known)
        change(tokens.put, start=grid.tokens)


def change(op: Op, **attributes: int) -> None:
    op.attributes = {**op.attributes, **attributes}


def replace_in(ops: Sequence[Op], value: Value, new: Value) -> None:
    for op in ops:
        if value in op.operands:
            op.set_operands([new if x is value else x for x in op.operands])


def in_order(x: Value, axis: int, grid: Grid, known: int = 0) -> Value:
    """The tokens on an axis in the order of the grid; behind them those that are in front."""
    if not known:
        return turned(x, axis, grid.axes, ORDER)
    others = behind(x, llm.SliceOp(x, axis=axis, start=known, stop=known + grid.tokens))
    front = behind(x, llm.SliceOp(x, axis=axis, start=0, stop=known))
    ordered = turned(others, axis, grid.axes, ORDER)
    return behind(ordered, llm.ConcatOp(ordered, front, axis=axis))


def in_own_order(x: Value, axis: int, grid: Grid) -> Value:
    """The tokens of what is in the order of the grid."""
    sizes = [grid.axes[i] for i in ORDER]
    return turned(x, axis, sizes, [ORDER.index(i) for i in range(len(ORDER))])


def turned(x: Value, axis: int, sizes: Sequence[int], order: Sequence[int]) -> Value:
    """An axis split into several, which are put in another order and joined again."""
    shape = x.type.shape
    split = behind(x, llm.ReshapeOp(x, shape=(*shape[:axis], *sizes, *shape[axis + 1 :])))
    places = [*range(axis), *(axis + i for i in order), *range(axis + len(sizes), split.type.rank)]
    other = behind(split, llm.PermuteOp(split, order=tuple(places)))
    return behind(other, llm.ReshapeOp(other, shape=shape))


def behind(x: Value, op: Op) -> Value:
    """The result of an op that is put right behind what makes x."""
    assert isinstance(x.owner, Op)
    op.loc = x.owner.loc
    return Builder(block_of(x.owner), x.owner.next_op).add(op).results[0]
