"""``@op``: a class body becomes an op definition.

Annotations name the parts in order. ``Operand[T]`` and its kin are ``Annotated`` types, so mypy reads
``op.x`` as a ``Value[T]`` and ``op.eps`` as a float; at run time each is a descriptor over the op's lists.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Annotated, Any, TypeVar, get_args, get_origin

from compiler.ir.core import Op, Region, Value
from compiler.ir.text import attribute_text
from compiler.ir.types import Type
from compiler.ir.values import test_of, type_classes

T = TypeVar("T", bound=Type)
A = TypeVar("A")
OpClass = TypeVar("OpClass", bound=type[Op])

OPERAND, RESULT, ATTR = "operand", "result", "attribute"
ONE, OPTIONAL, VARIADIC = "one", "optional", "variadic"

Operand = Annotated[Value[T], OPERAND, ONE]
OptionalOperand = Annotated[Value[T] | None, OPERAND, OPTIONAL]
VariadicOperand = Annotated[tuple[Value[T], ...], OPERAND, VARIADIC]
Result = Annotated[Value[T], RESULT, ONE]
VariadicResult = Annotated[tuple[Value[T], ...], RESULT, VARIADIC]
Attr = Annotated[A, ATTR, ONE]
OptionalAttr = Annotated[A | None, ATTR, OPTIONAL]

# Op name in text to its class.
OPS: dict[str, type[Op]] = {}

_MISSING = object()


@dataclass(frozen=True)
class Field:
    """One declared part of an op: its name, how many it may be, and its Python type."""

    name: str
    arity: str
    type: Any
    default: Any = _MISSING

    @cached_property
    def holds(self) -> Callable[[Any], bool]:
        """Whether a value is of its type."""
        return test_of(self.type)

    @cached_property
    def classes(self) -> tuple[type, ...]:
        """The classes of types that a value of this operand or result may have."""
        return type_classes(self.type) or (Type,)

    def takes(self, count: int) -> bool:
        """Whether it may be that many values."""
        return count == 1 or (self.arity != ONE and (count == 0 or self.arity == VARIADIC))

    @property
    def required(self) -> bool:
        return self.default is _MISSING and self.arity == ONE


@dataclass
class Schema:
    """The declared parts of an op, and how constructor arguments bind to them."""

    opname: str
    operands: list[Field] = field(default_factory=list)
    results: list[Field] = field(default_factory=list)
    attributes: dict[str, Field] = field(default_factory=dict)
    regions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fixed_operands = all(f.arity == ONE for f in self.operands)
        self.defaults = {
            name: f.default for name, f in self.attributes.items() if f.arity == ONE and not f.required
        }
        self.default_texts = {name: attribute_text(value) for name, value in self.defaults.items()}
        self.attribute_names = frozenset(self.attributes)
        self.floats = [name for name, f in self.attributes.items() if f.type in (float, float | None)]
        self.required = frozenset(name for name, f in self.attributes.items() if f.required)
        self.present = self.required | self.defaults.keys()  # in every op
        # The field of each operand, by how many each field takes, and that of each result, by how many there
        # are; None when there may not be so many.
        self.operand_fields = cache(partial(_spread, self.operands))
        self.result_fields = cache(lambda count: _spread(self.results, self.result_segments(count)))
        # As in MLIR, sizes are written down only where they cannot be inferred from the total.
        self.prints_segments = sum(f.arity != ONE for f in self.operands) > 1

    def bind_operands(
        self, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Value, ...], tuple[int, ...]]:
        """Flat operands, and the size of each field when some field is optional or variadic."""
        if self.fixed_operands and len(given) == len(self.operands):
            return given, ()
        return self._bind_fields(self._spread(given), named)

    def _spread(self, given: tuple[Any, ...]) -> list[Any]:
        """Positional arguments, one per field; a last variadic field takes all loose values that remain."""
        last = len(self.operands) - 1
        rest = given[last:] if last >= 0 and self.operands[last].arity == VARIADIC else ()
        if rest and all(isinstance(value, Value) for value in rest):
            return [*given[:last], rest]
        if len(given) > len(self.operands):
            raise TypeError(f"{self.opname} takes {len(self.operands)} operands, got {len(given)}")
        return list(given)

    def _bind_fields(
        self, given: list[Any], named: dict[str, Any]
    ) -> tuple[tuple[Value, ...], tuple[int, ...]]:
        flat: list[Value] = []
        sizes = []
        for index, part in enumerate(self.operands):
            value = named.pop(part.name, None) if index >= len(given) or part.name in named else given[index]
            if part.arity == VARIADIC:
                group = list(value or ())
            elif value is None and part.arity == ONE:
                raise TypeError(f"{self.opname} needs operand {part.name!r}")
            else:
                group = [] if value is None else [value]
            flat += group
            sizes.append(len(group))
        return tuple(flat), () if self.fixed_operands else tuple(sizes)

    def bind_regions(self, named: dict[str, Any]) -> tuple[Region, ...]:
        if not self.regions:
            return ()
        return tuple(named.pop(name, None) or Region() for name in self.regions)

    def bind_attributes(self, named: dict[str, Any]) -> dict[str, Any]:
        """Declared attributes in declared order with defaults; None counts as not given. Empties `named`."""
        attributes = {}
        for name in self.attributes:
            value = named.pop(name, None)
            value = self.defaults.get(name) if value is None else value
            if value is not None:
                attributes[name] = value
        if named:
            raise TypeError(f"{self.opname} has no {', '.join(sorted(named))}; it has {self.summary()}")
        for name in self.floats:
            if type(attributes.get(name)) is int:
                attributes[name] = float(attributes[name])
        if not attributes.keys() >= self.required:
            missing = ", ".join(sorted(self.required - attributes.keys()))
            raise TypeError(f"{self.opname} needs attribute {missing}")
        return attributes

    def infer_segments(self, count: int) -> tuple[int, ...] | None:
        """Sizes of the operand fields when ``count`` operands leave one choice; None when they do not fit."""
        return _infer_segments(self.operands, count)

    def result_segments(self, count: int) -> tuple[int, ...] | None:
        return _infer_segments(self.results, count)

    def summary(self) -> str:
        return ", ".join([*(f.name for f in self.operands), *self.attributes, *self.regions]) or "no fields"


def _infer_segments(fields: Sequence[Field], count: int) -> tuple[int, ...] | None:
    variable = [f for f in fields if f.arity != ONE]
    spare = count - (len(fields) - len(variable))
    if not variable:
        return tuple([1] * len(fields)) if spare == 0 else None
    if len(variable) > 1 or spare < 0 or (variable[0].arity == OPTIONAL and spare > 1):
        return None
    return tuple(1 if f.arity == ONE else spare for f in fields)


def _spread(fields: Sequence[Field], sizes: tuple[int, ...] | None) -> tuple[Field, ...] | None:
    """Each field as often as it takes values."""
    if sizes is None or len(sizes) != len(fields):
        return None
    if not all(part.takes(size) for part, size in zip(fields, sizes, strict=True)):
        return None
    return tuple(part for part, size in zip(fields, sizes, strict=True) for _ in range(size))


class _FixedOperand:
    """``op.x`` where every operand field takes exactly one value."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __get__(self, op: Op | None, owner: type[Op]) -> Any:
        return self if op is None else op._operands[self.index]

    def __set__(self, op: Op, value: Value) -> None:
        op.set_operand(self.index, value)


class _GroupedOperand:
    """``op.x`` in an op with optional or variadic operands: found through the sizes of earlier fields."""

    def __init__(self, index: int, arity: str) -> None:
        self.index = index
        self.arity = arity

    def __get__(self, op: Op | None, owner: type[Op]) -> Any:
        if op is None:
            return self
        start = sum(op.segments[: self.index])
        group = op._operands[start : start + op.segments[self.index]]
        if self.arity == VARIADIC:
            return group
        return group[0] if group else None

    def __set__(self, op: Op, value: Any) -> None:
        group = tuple(value) if self.arity == VARIADIC else () if value is None else (value,)
        start, size = sum(op.segments[: self.index]), op.segments[self.index]
        segments = (*op.segments[: self.index], len(group), *op.segments[self.index + 1 :])
        op.set_operands((*op._operands[:start], *group, *op._operands[start + size :]), segments)


class _ResultField:
    def __init__(self, index: int, fields: list[Field]) -> None:
        self.index = index
        self.fields = fields
        self.fixed = all(f.arity == ONE for f in fields)

    def __get__(self, op: Op | None, owner: type[Op]) -> Any:
        if op is None:
            return self
        if self.fixed:
            return op.results[self.index]
        sizes = _infer_segments(self.fields, len(op.results)) or ()
        start = sum(sizes[: self.index])
        group = op.results[start : start + sizes[self.index]]
        return group if self.fields[self.index].arity == VARIADIC else group[0]


class _AttrField:
    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, op: Op | None, owner: type[Op]) -> Any:
        return self if op is None else op.attributes.get(self.name)

    def __set__(self, op: Op, value: Any) -> None:
        if value is None:
            op.attributes = {name: known for name, known in op.attributes.items() if name != self.name}
        else:
            op.attributes = {**op.attributes, self.name: value}


class _RegionField:
    def __init__(self, index: int) -> None:
        self.index = index

    def __get__(self, op: Op | None, owner: type[Op]) -> Any:
        return self if op is None else op.regions[self.index]


def op(
    opname: str, *, terminator: bool = False, effects: bool = False, isolated: bool = False
) -> Callable[[OpClass], OpClass]:
    """Define the op ``opname`` from the annotations of a class.

    ``effects`` keeps an op whose results no one reads; ``isolated`` forbids its region to read outer values;
    a ``terminator`` ends its block.
    """

    def wrap(cls: OpClass) -> OpClass:
        assert opname not in OPS, f"{opname} is defined twice"
        cls.schema = _read_schema(cls, opname)
        _install_fields(cls)
        cls.opname = opname
        if "name" not in cls.schema.attributes:
            cls.name = opname
        cls.is_terminator, cls.is_isolated = terminator, isolated
        cls.has_effects = effects or terminator or cls.has_effects  # also where a base says so
        OPS[opname] = cls
        return cls

    return wrap


def _read_schema(cls: type[Op], opname: str) -> Schema:
    operands, results, attributes, regions = [], [], {}, []
    for name, hint in _annotations(cls).items():
        if hint is Region:
            regions.append(name)
        if get_origin(hint) is not Annotated:
            continue
        python_type, kind, arity = get_args(hint)
        default = getattr(cls, name, _MISSING) if kind == ATTR and name != "name" else _MISSING
        part = Field(name, arity, python_type, default)
        if kind == OPERAND:
            operands.append(part)
        elif kind == RESULT:
            results.append(part)
        else:
            attributes[name] = part
    assert sum(f.arity != ONE for f in results) < 2, f"{opname}: more than one variadic result"
    return Schema(opname, operands, results, attributes, regions)


def _annotations(cls: type[Op]) -> dict[str, Any]:
    """Annotations of the class and of its bases short of Op, bases first."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__[: cls.__mro__.index(Op)]):
        found |= inspect.get_annotations(base, eval_str=True)
    return found


def _install_fields(cls: type[Op]) -> None:
    schema = cls.schema
    for index, part in enumerate(schema.operands):
        access = _FixedOperand(index) if schema.fixed_operands else _GroupedOperand(index, part.arity)
        _install(cls, part.name, access)
    for index, part in enumerate(schema.results):
        _install(cls, part.name, _ResultField(index, schema.results))
    for name in schema.attributes:
        _install(cls, name, _AttrField(name))
    for index, name in enumerate(schema.regions):
        _install(cls, name, _RegionField(index))


def _install(cls: type[Op], name: str, access: Any) -> None:
    taken = hasattr(Op, name) and name not in ("name", "result", "region")
    assert not taken, f"{cls.__name__}: a field cannot be called {name!r}, every op has that"
    setattr(cls, name, access)
