"""The first op whose value is another one than in the stage before, for stages of arrays.

An op rarely has a counterpart on the other side of a pass. What both sides know is the place in the model
that an op comes from, so places are compared by the last value made there. Ops of one place that bear the
same name, give the same shape and are equally many on both sides are compared one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.ir.core import Op
from compiler.ir.line import op_line
from compiler.ir.location import UNKNOWN
from compiler.ir.types import TensorType
from driver.bisect.dumps import DumpedNet, Stage

Array = npt.NDArray[Any]

SAME = 0.999  # cosine of two values that differ by rounding only
QUANTIZING = "quantize-weights"  # the pass that changes values by more than rounding
# Names of ops, without dialect.
MOVING = {"store", "reshape", "permute", "cast", "concat", "slice"}
ALIKE = {"rope"}  # ops that compute the same on both levels, up to a factor
LINE = 160  # characters of an op shown


@dataclass(frozen=True)
class Made:
    """An op's result, `number` in the order of the program."""

    number: int
    op: Op
    array: Array

    @property
    def place(self) -> str:
        return str(self.op.loc)

    @property
    def name(self) -> str:
        """Of the op, without its dialect."""
        return self.op.opname.partition(".")[2]

    @property
    def kind(self) -> Hashable:
        return self.place, self.name, self.array.shape


@dataclass
class Values:
    """An observer for `rules.interpret`: all float arrays made at a known place, in order."""

    made: list[Made] = field(default_factory=list)

    def __call__(self, op: Op, results: Sequence[Array]) -> None:
        if op.loc == UNKNOWN or not op.operands:  # named data, not something computed
            return
        for value, array in zip(op.results, results, strict=True):
            if isinstance(value.type, TensorType) and value.type.element.is_float:
                self.made.append(Made(len(self.made), op, array))


@dataclass(frozen=True)
class Pair:
    """A value, and how far it is from its counterpart in the stage before."""

    made: Made
    cosine: float


def first_value(net: DumpedNet, before: Stage, stage: Stage) -> str | None:
    """Where a stage parts from the one before, in words."""
    old, new = Values(), Values()
    net.run(before, old)
    net.run(stage, new)
    found = sorted(pairs(old.made, new.made, before.level == stage.level), key=lambda pair: pair.made.number)
    limits = (net.suspect.limits.cosine, SAME) if stage.pass_name == QUANTIZING else (SAME,)
    for limit in limits:
        for pair in found:
            if not pair.cosine >= limit:
                text = f"first op: {pair.made.place}, cosine {pair.cosine:.6f} with the stage before"
                return f"{text}\n{where(stage, pair.made.op)}"
    return None


def pairs(old: Sequence[Made], new: Sequence[Made], same_level: bool) -> Iterator[Pair]:
    yield from places(old, new)
    yield from twins(old, new, None if same_level else ALIKE)


def places(old: Sequence[Made], new: Sequence[Made]) -> Iterator[Pair]:
    """Places by their last values; what else the other side made there, in other sizes, does not matter."""
    there = grouped([made for made in new if not only_leaves(made.op)], lambda made: made.place)
    for place, wanted in {made.place: made for made in old if not only_leaves(made.op)}.items():
        same_size = [made for made in there[place] if made.array.size == wanted.array.size]
        if same_size:
            yield Pair(same_size[-1], cosine(same_size[-1].array, wanted.array))
        elif there[place]:
            yield from in_runs(there[place], wanted.array)


def only_leaves(op: Op) -> bool:
    """Whether an op only hands to the client what its place may have made long before."""
    users = [user for result in op.results for user in result.users]
    return op.opname.partition(".")[2] in MOVING and all(u.is_terminator or only_leaves(u) for u in users)


def in_runs(made: list[Made], wanted: Array) -> Iterator[Pair]:
    """A value that is made part by part, by runs over the tokens or by tiles of a weight."""
    last = made[-1]
    parts = [each.array for each in made if each.array.shape == last.array.shape]
    count, rest = divmod(wanted.size, last.array.size)
    if rest == 0 and 1 < count <= len(parts):
        axes = range(last.array.ndim)
        yield Pair(last, max(worst_part(parts, wanted, count, axis) for axis in axes))


def worst_part(parts: list[Array], wanted: Array, count: int, axis: int) -> float:
    """Cut `wanted` along an axis; how close the part is that nothing comes close to."""
    shape = [size * (count if i == axis else 1) for i, size in enumerate(parts[0].shape)]
    cuts = np.split(wanted.reshape(shape), count, axis)
    return min(max(cosine(part, cut) for part in parts) for cut in cuts)


def twins(old: Sequence[Made], new: Sequence[Made], names: set[str] | None) -> Iterator[Pair]:
    """Ops that are the same by place, name and shape; those of all names, or of some."""
    before = grouped(old, lambda made: made.kind)
    for kind, found in grouped(new, lambda made: made.kind).items():
        if len(before[kind]) == len(found) and (names is None or found[0].name in names):
            for wanted, made in zip(before[kind], found, strict=True):
                yield Pair(made, cosine(made.array, wanted.array))


def grouped(values: Sequence[Made], key: Callable[[Made], Hashable]) -> dict[Hashable, list[Made]]:
    groups: dict[Hashable, list[Made]] = defaultdict(list)
    for made in values:
        groups[key(made)].append(made)
    return groups


def first_module(net: DumpedNet, stage: Stage) -> str | None:
    """Which module of the Hugging Face model is the first whose output the imported graph does not make."""
    run = net.suspect.run
    if run.tokens.start == run.tokens.stop:  # it was run on tokens that are not in the reference's run
        return None
    ours, theirs = net.group.instances[0].prefix, net.instance.prefix
    values = Values()
    net.run(stage, values)
    agreed = ""
    for name, output in net.suspect.reference.modules(net.suspect.tokens, theirs).items():
        place, wanted = ours + name.removeprefix(theirs), output[run.tokens]
        here = [made for made in values.made if made.place == place]
        given = [(made, rows_of(made.array, wanted)) for made in here]
        close = [(cosine(rows, wanted), made) for made, rows in given if rows is not None]
        if not close:
            continue
        best, made = max(close, key=lambda each: each[0])
        if not best >= SAME:
            after = f"; {agreed} before it agrees" if agreed else ""
            text = f"first module: {place}, cosine {best:.6f} with the reference{after}"
            return f"{text}\n{where(stage, made.op)}"
        agreed = place
    return None


def rows_of(array: Array, wanted: Array) -> Array | None:
    """The first tokens of an array [1, tokens, ...], when it has rows like the wanted ones."""
    rows = array.reshape(-1, *wanted.shape[1:]) if array.size % max(1, wanted[0].size) == 0 else None
    return rows[: len(wanted)] if rows is not None and len(rows) >= len(wanted) else None


def cosine(found: Array, wanted: Array) -> float:
    """Of as many numbers; two arrays of zeros point the same way."""
    a, b = (array.astype(np.float64).reshape(-1) for array in (found, wanted))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else float(np.array_equal(a, b))


def where(stage: Stage, op: Op) -> str:
    """An op by its line in the dump and how it reads."""
    line = op_line(op)
    return f"  {op.position or stage.path}: {line[:LINE]}{'...' if len(line) > LINE else ''}"
