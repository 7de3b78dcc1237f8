"""Random modules over every op, type and attribute that is registered, for property tests."""

from __future__ import annotations

import dataclasses
import functools
import operator
import typing
from types import NoneType, UnionType
from typing import Any

from hypothesis import strategies as st

import dialects
import tests.compiler.ir.toy  # noqa: F401  (registers its ops)
from compiler.ir.core import Block, Op, Region, Value
from compiler.ir.define import ONE, OPS, OPTIONAL, Field
from compiler.ir.location import UNKNOWN, FileLoc, NameLoc, fused
from compiler.ir.module import Function, Module
from compiler.ir.types import (
    ATTRIBUTES,
    ELEMENTS,
    TYPES,
    UNIT,
    Attribute,
    ElementType,
    FunctionType,
    Symbol,
    TensorType,
    Type,
)

dialects.load_all()

text = st.text(max_size=8)
# Words that fit where dialects check a string against a list; most take anything.
names = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
integers = st.integers(-(2**63), 2**64 - 1)
floats = st.floats(allow_nan=True, allow_infinity=True)
elements = st.sampled_from(list(ELEMENTS.values()))
small = st.integers(0, 4096)
symbols = st.builds(Symbol, names)


def objects(table: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Instances of the registered dataclasses, fields drawn by their annotations."""
    return st.sampled_from(sorted(table)).flatmap(lambda name: instances(table[name]))


def instances(cls: Any) -> st.SearchStrategy[Any]:
    if not dataclasses.is_dataclass(cls):  # a dialect's base class of several attributes
        return st.deferred(lambda: objects({n: c for n, c in ATTRIBUTES.items() if issubclass(c, cls)}))
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{f.name: parameters(hints[f.name]) for f in dataclasses.fields(cls)})


def parameters(hint: Any) -> st.SearchStrategy[Any]:
    """Values of that annotation, as fields of types and attributes and attributes of ops have them."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return attributes
    if origin is list:
        return st.lists(parameters(args[0]), max_size=3)
    if origin in (typing.Union, UnionType):
        return st.one_of([parameters(arg) for arg in args])
    if origin is tuple:
        item = st.one_of([parameters(arg) for arg in args if arg is not Ellipsis])
        size = len(args) if Ellipsis not in args else None
        return st.lists(item, min_size=size or 0, max_size=size or 4).map(tuple)
    if origin is typing.Literal:
        return st.sampled_from(args)
    return KNOWN[hint] if hint in KNOWN else instances(hint)


def without_none(hint: Any) -> Any:
    """An optional attribute is absent rather than None."""
    if typing.get_origin(hint) not in (typing.Union, UnionType):
        return hint
    return functools.reduce(operator.or_, [arg for arg in typing.get_args(hint) if arg is not NoneType])


tensors = st.builds(
    TensorType,
    st.lists(small, max_size=3).map(tuple),
    elements,
    st.none() | st.deferred(lambda: objects(ATTRIBUTES)),
)
value_types = tensors | st.deferred(lambda: objects(TYPES)) | elements
function_types = st.builds(
    FunctionType, st.lists(value_types, max_size=2).map(tuple), st.lists(value_types, max_size=2).map(tuple)
)
plain = integers | floats | st.booleans() | text | symbols | st.just(UNIT)
scalars = plain | value_types | function_types | objects(ATTRIBUTES)
arrays = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(tuple),
    st.lists(floats, max_size=3).map(tuple),
    st.lists(st.booleans(), max_size=3).map(tuple),
)
dictionaries = st.dictionaries(names, scalars, max_size=2)
KNOWN: dict[Any, st.SearchStrategy[Any]] = {
    int: integers,
    float: floats,
    bool: st.booleans(),
    str: text,
    NoneType: st.none(),
    Attribute: elements,
    Type: value_types,
    ElementType: elements,
    TensorType: tensors,
    FunctionType: function_types,
}

attributes = scalars | arrays | st.lists(scalars | arrays, max_size=3) | dictionaries

locations = st.recursive(
    st.just(UNKNOWN) | st.builds(NameLoc, text) | st.builds(FileLoc, text, small, small),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda parts: fused(*parts)),
    max_leaves=3,
)


@st.composite
def modules(draw: st.DrawFn) -> Module:
    """A module of functions whose bodies are random ops; the ops' own ``verify`` need not hold."""
    module = OPS["builtin.module"](loc=draw(locations))
    assert isinstance(module, Module)
    for index in range(draw(st.integers(0, 2))):
        block = Block()
        for type in draw(st.lists(value_types, min_size=1, max_size=3)):
            block.add_arg(type, draw(st.none() | names))
        fill(draw, block, list(block.args), depth=2)
        module.block.append(make_function(draw, f"f{index}", block))
    return module


def make_function(draw: st.DrawFn, name: str, block: Block) -> Function:
    function_type = draw(function_types)
    function = OPS["func.func"](sym_name=name, function_type=function_type, body=Region(block))
    assert isinstance(function, Function)
    return function


def fill(draw: st.DrawFn, block: Block, visible: list[Value], depth: int) -> None:
    """Append random ops that read visible values."""
    usable = sorted(name for name, cls in OPS.items() if name != "builtin.module" and not cls.is_isolated)
    for _ in range(draw(st.integers(0, 4))):
        cls = OPS[draw(st.sampled_from(usable))]
        op = make_op(draw, cls, visible, depth)
        for value in op.results:
            value.name_hint = draw(st.none() | names)
        block.append(op)
        visible.extend(op.results)


def make_op(draw: st.DrawFn, cls: type[Op], visible: list[Value], depth: int) -> Op:
    schema = cls.schema
    sizes = tuple(draw_size(draw, part) for part in schema.operands)
    operands = [draw(st.sampled_from(visible)) for _ in range(sum(sizes))]
    count = sum(draw_size(draw, part) for part in schema.results)
    types = [draw(value_types) for _ in range(count)]
    declared = [part for part in schema.attributes.values() if draw_size(draw, part)]
    values = {part.name: draw(parameters(without_none(part.type))) for part in declared}
    values |= draw(st.dictionaries(names.map(lambda name: f"bm.{name}"), attributes, max_size=2))
    regions = [make_region(draw, visible, depth - 1) for _ in schema.regions]
    segments = () if schema.fixed_operands else sizes
    return cls.build(operands, types, values, regions, segments, draw(locations))


def draw_size(draw: st.DrawFn, part: Field) -> int:
    return 1 if part.arity == ONE else draw(st.integers(0, 1 if part.arity == OPTIONAL else 3))


def make_region(draw: st.DrawFn, visible: list[Value], depth: int) -> Region:
    block = Block(draw(st.lists(value_types, max_size=2)))
    if depth > 0:
        fill(draw, block, visible + block.args, depth)
    return Region(block)
