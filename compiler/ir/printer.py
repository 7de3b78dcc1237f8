"""IR to text: MLIR's generic form, one line per op, with locations inline and aliases for what repeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compiler.ir.aliases import Aliases
from compiler.ir.core import Block, Op
from compiler.ir.line import head, location_text, tail, value_names
from compiler.ir.location import UNKNOWN
from compiler.ir.text import attribute_text

INDENT = "  "


def print_module(
    root: Op,
    *,
    locations: bool = True,
    names: bool = True,
    positions: dict[Op, tuple[int, int]] | None = None,
) -> str:
    """Text of an op and all inside it.

    Without ``names`` values are numbered and types written out, so that two texts are equal, line by line,
    where the IR is. ``positions`` receives the (line, column) of each op, from 1.
    """
    printer = _Printer(root, names, locations, positions)
    printer.print_op(root, 0)
    return "\n".join(printer.lines) + "\n"


class _Writer:
    """The text of types and attributes by their names; each object is looked at once."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.known: dict[int, tuple[Any, str]] = {}  # holds the object, so that its id stays its own

    def text(self, value: Any) -> str:
        known = self.known.get(id(value))
        if known is None:
            whole = attribute_text(value)
            text = self.names.get(whole) or attribute_text(value, self.text)
            known = self.known[id(value)] = value, text
        return known[1]


class _Printer:
    def __init__(
        self, root: Op, names: bool, locations: bool, positions: dict[Op, tuple[int, int]] | None
    ) -> None:
        aliases = Aliases(root) if names else None
        self.lines = aliases.definitions() if aliases else []
        self.write = _Writer(aliases.names if aliases else {}).text
        self.names = value_names(root, hints=names)
        self.locations = locations
        self.positions = positions

    def print_op(self, op: Op, depth: int) -> None:
        indent = INDENT * depth
        start = indent + head(op, self.names, self.write)
        if self.positions is not None:
            self.positions[op] = (len(self.lines) + 1, start.index('"') + 1)
        for index, region in enumerate(op.regions):
            self.lines.append(indent + "}, {" if index else start + " ({")
            self.print_block(region.block, depth)
        end = tail(op, self.write) + self.location(op)
        self.lines.append((indent + "})" if op.regions else start) + end)

    def print_block(self, block: Block, depth: int) -> None:
        if block.args:
            args = ", ".join([f"{self.names[arg]}: {self.write(arg.type)}" for arg in block.args])
            self.lines.append(f"{INDENT * depth}^bb0({args}):")
        elif not block.ops.first:
            self.lines.append(f"{INDENT * depth}^bb0:")  # nothing at all would be a region without a block
        for op in block.ops:
            self.print_op(op, depth + 1)

    def location(self, op: Op) -> str:
        return f" loc({location_text(op.loc)})" if self.locations and op.loc != UNKNOWN else ""
