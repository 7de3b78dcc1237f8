"""The first op whose value is another one than in the stage before, for stages of arrays.

An op rarely has a counterpart on the other side of a pass. What both sides know is the place in the model
that an op comes from, so places are compared by the last value made there. Ops of one place that bear the
same name, give the same shape and are equally many on both sides are compared one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.ir.core import Op, Value
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
    constant: bool = False  # made of weights alone

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
    constants: set[Value] = field(default_factory=set)

    def __call__(self, op: Op, results: Sequence[Array]) -> None:
        if constant := self.constants.issuperset(op.operands):
            self.constants.update(op.results)
        if op.loc == UNKNOWN or not op.operands:  # named data, not something computed
            return
        for value, array in zip(op.results, results, strict=True):
            if isinstance(value.type, TensorType) and value.type.element.is_float:
                self.made.append(Made(len(self.made), op, array, constant))


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
    """Places by the last values that leave them, each compared with what is closest to it among those of its
    size. What else the other side made there does not matter.
    """
    there = grouped(filter(leaves, new), lambda made: made.place)
    for place, wanted in {made.place: made for made in filter(leaves, old)}.items():
        same_size = [made for made in there[place] if made.array.size == wanted.array.size]
        if same_size:
            yield Pair(same_size[-1], max(cosine(made.array, wanted.array) for made in same_size))
        elif there[place]:
            yield from in_runs(there[place], wanted.array)


def leaves(made: Made) -> bool:
    """Whether a value is what its place computes: no constant, such as a bias, and no step on the way, as
    the product of two tiles or probabilities, which may be as large.
    """
    users = [user for result in made.op.results for user in result.users]
    inner = bool(users) and all(str(user.loc) == made.place and not user.is_terminator for user in users)
    return not (made.constant or inner or only_leaves(made.op))


def only_leaves(op: Op) -> bool:
    """Whether an op only hands to the client what its place may have made long before."""
    users = [user for result in op.results for user in result.users]
    return op.opname.partition(".")[2] in MOVING and all(u.is_terminator or only_leaves(u) for u in users)


def in_runs(made: list[Made], wanted: Array) -> Iterator[Pair]:
    """A value that is made part by part, by runs over the tokens, by tiles of a weight, or by both.

    Only if ops like the last one made as many arrays as there are parts of that shape.
    """
    last = made[-1]
    parts = [each.array for each in made if each.name == last.name and each.array.shape == last.array.shape]
    cuts = cuts_like(wanted, last.array.shape)
    if 1 < len(cuts) <= len(parts):
        yield Pair(last, min(max(cosine(part, cut) for part in parts) for cut in cuts))


def cuts_like(whole: Array, shape: tuple[int, ...]) -> list[Array]:
    """`whole` cut along its axes into parts of a shape, where axes of size 1 may be more or fewer; none if it
    does not come out even.
    """
    if whole.ndim != len(shape):
        whole, shape = whole.squeeze(), tuple(size for size in shape if size != 1)
    if whole.ndim != len(shape) or any(size % part for size, part in zip(whole.shape, shape, strict=True)):
        return []
    found = [whole]
    for axis, part in enumerate(shape):
        found = [cut for each in found for cut in np.split(each, each.shape[axis] // part, axis)]
    return found


def twins(old: Sequence[Made], new: Sequence[Made], names: set[str] | None) -> Iterator[Pair]:
    """Ops that are the same by place, name and shape; those of all names, or of some."""
    before = grouped(old, lambda made: made.kind)
    for kind, found in grouped(new, lambda made: made.kind).items():
        if len(before[kind]) == len(found) and (names is None or found[0].name in names):
            for wanted, made in zip(before[kind], found, strict=True):
                yield Pair(made, cosine(made.array, wanted.array))


def grouped(values: Iterable[Made], key: Callable[[Made], Hashable]) -> dict[Hashable, list[Made]]:
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
