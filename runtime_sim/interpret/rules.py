"""The table from op to numpy function, and the interpreter that runs a function of any dialect with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from compiler.ir.core import Op, Value
from compiler.ir.module import Function
from compiler.ir.types import TensorType
from compiler.weights.scheme import Scheme
from dialects.parts import Collective, place_of
from runtime_sim.arrays import Array
from runtime_sim.interpret.codes import Codes

Rule = TypeVar("Rule", bound=Callable[..., Any])
Observer = Callable[[Op, Sequence[Array]], None]

RULES: dict[type[Op], Callable[..., Any]] = {}
EXCHANGES: dict[type[Op], Callable[..., Any]] = {}
DATA_RULES: dict[type[Op], Callable[..., Array]] = {}


def no_codes(name: str, scheme: Scheme) -> Codes:
    raise ValueError(f"nothing says what codes {name} is stored as, of {scheme}")


@dataclass(frozen=True)
class Data:
    """The arrays that ops refer to by name: parameters of the model, and tables of the compiler.

    What a program stores as codes is not asked for as floats: whoever made the codes (the compiler, or the
    author of a checkpoint) supplies them, and here they are only decoded.
    """

    weights: Callable[[str], Array]
    tables: Mapping[str, Array] = field(default_factory=dict)
    codes: Callable[[str, Scheme], Codes] = no_codes


def simulates(*op_classes: type[Op]) -> Callable[[Rule], Rule]:
    """Register `rule(op, ...)`, which takes the op and an array per declared operand and gives the result.

    An optional operand that is absent is None, a variadic one is a list; several results are a tuple.
    """

    def wrap(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(op_classes, rule))
        return rule

    return wrap


def supplies(*op_classes: type[Op]) -> Callable[[Rule], Rule]:
    """Register `rule(op, data)` of an op without operands that stands for named data."""

    def wrap(rule: Rule) -> Rule:
        DATA_RULES.update(dict.fromkeys(op_classes, rule))
        return rule

    return wrap


def exchanges(*op_classes: type[Op]) -> Callable[[Rule], Rule]:
    """Register `rule(op, ...)` of a collective, which takes for each declared operand a list of the arrays
    of all who take part, and gives what the result is on every one of them.
    """

    def wrap(rule: Rule) -> Rule:
        EXCHANGES.update(dict.fromkeys(op_classes, rule))
        return rule

    return wrap


def interpret(
    function: Function,
    inputs: Sequence[Array],
    weights: Callable[[str], Array],
    tables: Mapping[str, Array] | None = None,
    observer: Observer | None = None,
    codes: Callable[[str, Scheme], Codes] = no_codes,
) -> list[Array]:
    """Run a function on arrays of its argument types; gives its results.

    `weights` gives a parameter by the name that the module uses, and `codes` one that it stores by a scheme;
    `observer` sees each op and its results. Values are dropped after their last use, so memory holds what is
    live.
    """
    (results,) = interpret_parts([function], [inputs], weights, tables, observer, codes)
    return results


def interpret_parts(
    functions: Sequence[Function],
    inputs: Sequence[Sequence[Array]],
    weights: Callable[[str], Array],
    tables: Mapping[str, Array] | None = None,
    observer: Observer | None = None,
    codes: Callable[[str, Scheme], Codes] = no_codes,
) -> list[list[Array]]:
    """Run all parts of a net, in the order of their numbers, each on inputs of its own; gives the results of
    each. See `interpret`.

    Each runs up to its next collective, and goes on when all who take part are at the same one; ValueError
    when some never are.
    """
    data = Data(weights, tables or {}, codes)
    runs = []
    for function, arrays in zip(functions, inputs, strict=True):
        run = Run(data, observer)
        run.begin(function, arrays)
        runs.append(run)
    while any(run.waits_at is not None for run in runs):
        meeting = next((met for run in runs if (met := those_who_meet(run, runs))), None)
        if meeting is None:
            places = ", ".join(run.waits_at.opname if run.waits_at else "its end" for run in runs)
            raise ValueError(f"the parts of {functions[0].sym_name} do not meet: they are at {places}")
        exchange(meeting)
    return [run.results for run in runs]


def those_who_meet(run: Run, runs: Sequence[Run]) -> list[Run]:
    """All who take part in the collective that a run waits at, if they are there; else none."""
    op = run.waits_at
    if op is None:
        return []
    found = [other for number, other in enumerate(runs) if op.takes_part(number)]
    there = all(other.waits_at is not None and is_same(other.waits_at, op) for other in found)
    return found if there and run in found and is_whole(op, len(runs)) else []


def is_same(a: Collective, b: Collective) -> bool:
    """Whether they are one collective, in functions of two parts."""
    types = [[result.type for result in op.results] for op in (a, b)]
    return type(a) is type(b) and a.attributes == b.attributes and types[0] == types[1]


def is_whole(op: Collective, count: int) -> bool:
    """Whether there are as many functions as parts meet in it."""
    return place_of(op, op.over)[1] == count


def exchange(meeting: Sequence[Run]) -> None:
    """Give all the result of the collective that they wait at, and let them go on up to the next."""
    op = meeting[0].waits_at
    assert op is not None
    by_part = [run.arguments(run.waits_at) for run in meeting if run.waits_at is not None]
    result = EXCHANGES[type(op)](op, *map(list, zip(*by_part, strict=True)))
    for run in meeting:
        run.go_on([result])


class Run:
    """The values of one run of a function, which stops at each collective: `waits_at` says at which."""

    def __init__(self, data: Data, observer: Observer | None) -> None:
        self.data = data
        self.observer = observer
        self.values: dict[Value, Array] = {}
        self.last_use: dict[Value, Op] = {}
        self.waits_at: Collective | None = None
        self.results: list[Array] = []
        self._ops: Iterator[Op] = iter(())

    def begin(self, function: Function, inputs: Sequence[Array]) -> None:
        for arg, array in zip(function.args, inputs, strict=True):
            check_array(arg, array, f"argument {arg.name_hint or arg.index} of {function.sym_name}")
            self.values[arg] = array
        self.last_use = {value: op for op in function.block.ops for value in op.operands}
        self._ops = iter(list(function.block.ops))
        self._run()

    def go_on(self, results: Sequence[Array]) -> None:
        """With what the collective gives that it waits at."""
        assert self.waits_at is not None
        self._finish(self.waits_at, results)
        self._run()

    def _run(self) -> None:
        """Up to the next collective, or to the end."""
        self.waits_at = None
        for op in self._ops:
            if isinstance(op, Collective):
                self.waits_at = op
                return
            if op.is_terminator:
                self.results = [self.values[value] for value in op.operands]
                return
            self._finish(op, self.run_op(op))

    def _finish(self, op: Op, results: Sequence[Array]) -> None:
        """Keep results, and drop what nobody reads any more."""
        for value, array in zip(op.results, results, strict=True):
            check_array(value, array, f"the rule of {op.opname} at {op.loc}")
            self.values[value] = array
        if self.observer is not None:
            self.observer(op, results)
        for value in (*op.operands, *op.results):
            if self.last_use.get(value, op) is op:
                self.values.pop(value, None)

    def run_op(self, op: Op) -> Sequence[Array]:
        supply = DATA_RULES.get(type(op))
        if supply is not None:
            return (supply(op, self.data),)
        rule = RULES.get(type(op))
        if rule is None:
            raise NotImplementedError(f"no simulation rule for {op.opname}")
        made = rule(op, *self.arguments(op))
        return made if isinstance(made, tuple | list) else (made,)

    def arguments(self, op: Op) -> list[Any]:
        """One argument for each operand that the op's class declares."""
        return [self._array(getattr(op, part.name)) for part in op.schema.operands]

    def _array(self, operand: Any) -> Any:
        if isinstance(operand, tuple):
            return [self.values[value] for value in operand]
        return None if operand is None else self.values[operand]


def check_array(value: Value, array: Array, origin: str) -> None:
    """Shape and element type must be those of the value, so that a wrong rule is found where it is."""
    expected = value.type
    if not isinstance(expected, TensorType):
        return
    if array.shape != expected.shape or array.dtype != expected.element.numpy:
        raise ValueError(f"{origin} gives {array.dtype}{list(array.shape)}, expected {expected}")
