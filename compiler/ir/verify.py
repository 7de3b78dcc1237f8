"""What holds for all IR: definitions before uses, arity, types, terminators, and each op's own ``verify``."""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any

from compiler.ir.core import Op, Region, Value
from compiler.ir.define import ONE, VARIADIC, Field, Schema
from compiler.ir.signature import verify_shapes
from compiler.ir.types import Attribute, TensorType, Type
from compiler.ir.values import described

SHOWN = 60  # characters of a wrong value in a message


def verify(root: Op) -> None:
    """Check an op and everything inside it; CompileError at the first op that is wrong."""
    _verify_op(root, set())


def _verify_op(op: Op, visible: set[Value]) -> None:
    for index, value in enumerate(op.operands):
        if value not in visible:
            _fail_undefined(op, index, value)
    _verify_arity(op)
    _verify_attributes(op)
    for region in op.regions:
        _verify_region(op, region, set() if op.is_isolated else set(visible))
    verify_shapes(op)
    op.verify()
    _verify_results(op)


def _fail_undefined(op: Op, index: int, value: Value) -> None:
    maker = value.owner
    if isinstance(maker, Op) and maker.parent is None:
        op.fail(f"operand {index} is a result of '{maker.opname}', which was erased or never inserted")
    op.fail(f"operand {index} is used before its definition or outside of its region")


def _verify_region(op: Op, region: Region, visible: set[Value]) -> None:
    visible.update(region.block.args)
    for inner in region.block.ops:
        if inner.is_terminator and inner is not region.block.ops.last:
            inner.fail("ends its block, but other ops follow")
        _verify_op(inner, visible)
        visible.update(inner.results)


def _verify_arity(op: Op) -> None:
    schema = op.schema
    if schema.fixed_operands:
        if len(op.operands) != len(schema.operands):
            op.fail(f"has {len(op.operands)} operands, expected {len(schema.operands)}")
    else:
        _verify_segments(op)
    if schema.result_segments(len(op.results)) is None:
        op.fail(f"has {len(op.results)} results, expected {len(schema.results)}")
    for kind, declared, values in (
        ("operand", _spread(schema.operands, op.segments), op.operands),
        ("result", _spread(schema.results, schema.result_segments(len(op.results)) or ()), op.results),
    ):
        for part, value in zip(declared, values, strict=True):
            _verify_type(op, kind, part, value.type)


def _verify_segments(op: Op) -> None:
    fields = op.schema.operands
    if len(op.segments) != len(fields) or sum(op.segments) != len(op.operands):
        op.fail(f"has {len(op.operands)} operands, which its segments {op.segments} do not add up to")
    for part, size in zip(fields, op.segments, strict=True):
        if (part.arity == ONE and size != 1) or (part.arity != VARIADIC and size > 1):
            op.fail(f"has {size} values for operand {part.name!r}, which is {part.arity}")


def _spread(fields: list[Field], sizes: tuple[int, ...]) -> list[Field]:
    """The declared field of each value."""
    return [part for part, size in zip(fields, sizes, strict=True) for _ in range(size)] if sizes else fields


def _verify_type(op: Op, kind: str, part: Field, type: Type) -> None:
    classes = _type_classes(part.type)
    if classes and not isinstance(type, classes):
        names = " or ".join(c.__name__ for c in classes)
        op.fail(f"{kind} {part.name!r} is {type}, expected a {names}")
    if problem := type.problem():
        op.fail(f"{kind} {part.name!r} is {type}, which {problem}")


def _verify_results(op: Op) -> None:
    """Where the op can tell its results' types, they are those, up to what a layout leaves open."""
    if type(op).infer_types is Op.infer_types:
        return
    for value, expected in zip(op.results, op.infer_types(), strict=True):
        if value.type != expected and not _may_be(expected, value.type):
            op.fail(f"gives {value.type}, expected {expected}")


def _may_be(expected: Type, type: Type) -> bool:
    if not isinstance(expected, TensorType) or not isinstance(type, TensorType) or expected.layout is None:
        return False
    if (expected.shape, expected.element) != (type.shape, type.element):
        return False
    return expected.layout.may_be(type.layout)


def _verify_attributes(op: Op) -> None:
    schema: Schema = op.schema
    for name, value in op.attributes.items():
        part = schema.attributes.get(name)
        if part is None:
            if "." not in name:
                op.fail(f"has no attribute {name!r}; it has {schema.summary()}")
            continue
        if not part.holds(value):
            op.fail(f"attribute {name!r} is {str(value)[:SHOWN]}, expected {described(part.type)}")
        if isinstance(value, Attribute) and (problem := value.problem()):
            op.fail(f"attribute {name!r} is {value}, which {problem}")
    missing = schema.present - op.attributes.keys()
    if missing:
        op.fail(f"needs attribute {', '.join(sorted(missing))}")


@cache
def _type_classes(annotation: Any) -> tuple[type, ...]:
    """Classes of the T in ``Operand[T]``: T is inside the ``Value[T]`` that the alias made of it."""
    found: list[type] = []
    for value_type in _alternatives(annotation):
        for inner in typing.get_args(value_type):
            found += [c for c in _classes(inner) if issubclass(c, Type)]
    return tuple(found)


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, without None; a plain annotation is a union of one."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [a for a in typing.get_args(annotation) if a is not types.NoneType]
    if typing.get_origin(annotation) is tuple:  # a variadic field: tuple[Value[T], ...]
        return [typing.get_args(annotation)[0]]
    return [annotation]


def _classes(annotation: Any) -> tuple[type, ...]:
    """Classes to test an instance against; () when the annotation says nothing testable, such as Any."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [_classes(a) for a in typing.get_args(annotation) if a is not types.NoneType]
        return tuple(c for part in parts for c in part) if all(parts) else ()
    origin = typing.get_origin(annotation) or annotation
    if origin is typing.Literal:
        return tuple({type(a) for a in typing.get_args(annotation)})
    return (origin,) if isinstance(origin, type) and origin is not object else ()
