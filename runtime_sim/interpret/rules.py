"""The table from op to numpy function, and the interpreter that runs a function of any dialect with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from compiler.ir.core import Op, Value
from compiler.ir.module import Function
from compiler.ir.types import TensorType
from compiler.weights.scheme import Scheme
from runtime_sim.arrays import Array
from runtime_sim.interpret.codes import Codes

Rule = TypeVar("Rule", bound=Callable[..., Any])
Observer = Callable[[Op, Sequence[Array]], None]

RULES: dict[type[Op], Callable[..., Any]] = {}
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
    run = Run(Data(weights, tables or {}, codes), observer)
    for arg, array in zip(function.args, inputs, strict=True):
        check_array(arg, array, f"argument {arg.name_hint or arg.index} of {function.sym_name}")
        run.values[arg] = array
    return run.block(function)


class Run:
    """The values of one run of a function."""

    def __init__(self, data: Data, observer: Observer | None) -> None:
        self.data = data
        self.observer = observer
        self.values: dict[Value, Array] = {}

    def block(self, function: Function) -> list[Array]:
        last_use = {value: op for op in function.block.ops for value in op.operands}
        for op in function.block.ops:
            if op.is_terminator:
                break
            results = self.run_op(op)
            for value, array in zip(op.results, results, strict=True):
                check_array(value, array, f"the rule of {op.opname} at {op.loc}")
                self.values[value] = array
            if self.observer is not None:
                self.observer(op, results)
            for value in (*op.operands, *op.results):
                if last_use.get(value, op) is op:
                    self.values.pop(value, None)
        return [self.values[value] for value in function.terminator.operands]

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
