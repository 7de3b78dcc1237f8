"""Where inputs of linears can be divided by factors in what makes them, as the model's graph tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from compiler.ir.core import Value
from compiler.ir.module import Function, Module, walk
from dialects import llm
from dialects.weights import TensorView, view_of_name


@dataclass(frozen=True)
class Fold:
    """Parameters by name: what `readers` multiply by is divided when `vectors` are, or the rows of matrices,
    `rows`. `offset` is added to vectors before they are used.
    """

    readers: tuple[str, ...]
    vectors: tuple[str, ...]
    offset: float = 0.0
    rows: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.readers, *self.vectors, *self.rows)

    def bound(self, full_name: Callable[[str], str]) -> Fold:
        """With the full names of parameters."""
        readers, vectors, rows = (
            tuple(map(full_name, names)) for names in (self.readers, self.vectors, self.rows)
        )
        return Fold(readers, vectors, self.offset, rows)


def folds_of(module: Module) -> list[Fold]:
    """Those that all functions have which are bound to the same parameters."""
    first, *others = ([*folds_in(function)] for function in module.functions())
    return [fold for fold in first if all(fold in other for other in others)]


def folds_in(function: Function) -> Iterator[Fold]:
    """Of parameters of a layer that are read once."""
    names = [view_of_name(op.name).tensor for op in walk(function) if isinstance(op, llm.WeightOp)]
    own = {name for name, count in Counter(names).items() if count == 1 and not name.startswith("/")}
    for op in walk(function):
        fold = None
        if isinstance(op, llm.RmsNormOp | llm.LayerNormOp):
            fold = after_norm(op)
        elif isinstance(op, llm.SwigluOp):
            fold = after_gate(op)
        if fold is not None and own.issuperset(fold.names):
            yield fold


def after_norm(op: llm.RmsNormOp | llm.LayerNormOp) -> Fold | None:
    """linear(norm(x, w, b), u)"""
    vectors, readers = names_of(op.operands[1:]), readers_of(op.y)
    offset = op.offset if isinstance(op, llm.RmsNormOp) else 0.0
    return Fold(readers, vectors, offset) if vectors and readers else None


def after_gate(op: llm.SwigluOp) -> Fold | None:
    """linear(swiglu(g, linear(x, w)), u), where no bias is added to what x is multiplied by"""
    up, readers = op.up.defining(llm.LinearOp), readers_of(op.y)
    if up is None or up.bias is not None or not up.y.has_one_use():
        return None
    rows = names_of([up.weight])
    return Fold(readers, (), rows=rows) if rows and readers else None


def readers_of(value: Value) -> tuple[str, ...]:
    """The weights of the linears that multiply by a value; none where something else reads it too."""
    linears = [op for op, place in value.uses if isinstance(op, llm.LinearOp) and place == 0]
    return names_of([op.weight for op in linears]) if len(linears) == len(value.uses) else ()


def names_of(values: Sequence[Value]) -> tuple[str, ...]:
    """Of parameters as they are; none where one is something else."""
    names = [op.name for value in values if (op := value.defining(llm.WeightOp)) and is_plain(op)]
    return tuple(names) if len(names) == len(values) else ()


def is_plain(op: llm.WeightOp) -> bool:
    return view_of_name(op.name) == TensorView(op.name)
