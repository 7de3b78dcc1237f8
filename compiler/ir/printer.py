"""IR to text: MLIR's generic form, with locations inline, one line per op."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import fields
from functools import cache, lru_cache
from typing import Any

from compiler.ir.core import Block, Op, Value
from compiler.ir.location import UNKNOWN, FileLoc, FusedLoc, Location, NameLoc
from compiler.ir.types import ElementType, FunctionType, Symbol, TensorType, Type, Unit, is_float_field

INDENT = "  "
SAFE_CHARACTERS = frozenset(chr(code) for code in range(0x20, 0x7F)) - frozenset('"\\')


def print_module(
    root: Op,
    *,
    locations: bool = True,
    names: bool = True,
    positions: dict[Op, tuple[int, int]] | None = None,
) -> str:
    """Text of an op and all inside it.

    Without ``names`` values are numbered, so that two texts are equal when the IR is. ``positions`` receives
    the (line, column) of each op, from 1.
    """
    printer = _Printer(value_names(root, hints=names), locations, positions)
    printer.print_op(root, 0)
    return "\n".join(printer.lines) + "\n"


def op_line(op: Op) -> str:
    """One line for a message: the op with its value names, without location and insides of regions."""
    root = op
    while root.parent_op is not None:
        root = root.parent_op
    printer = _Printer(value_names(root), locations=False)
    return printer.head(op) + " ({...})" * len(op.regions) + printer.tail(op)


def value_names(root: Op, *, hints: bool = True) -> dict[Value, str]:
    """The name, with its percent sign, of every value inside ``root``: its hint made unique, or a number."""
    names: dict[Value, str] = {}
    _name_values(root, names, _Scope(hints))
    return names


class _Scope:
    """Names used so far; an isolated op starts a new one."""

    def __init__(self, hints: bool) -> None:
        self.hints = hints
        self.repeats: dict[str, int] = {}
        self.count = 0

    def unique(self, hint: str | None) -> str:
        if not hint or not self.hints:
            self.count += 1
            return f"%{self.count - 1}"
        text = base = _identifier(hint)
        while text in self.repeats:
            self.repeats[base] += 1
            text = f"{base}_{self.repeats[base]}"
        self.repeats[text] = 0
        return f"%{text}"


def _name_values(op: Op, names: dict[Value, str], scope: _Scope) -> None:
    for value in op.results:
        names[value] = scope.unique(value.name_hint)
    if op.is_isolated:
        scope = _Scope(scope.hints)
    for region in op.regions:
        for value in region.block.args:
            names[value] = scope.unique(value.name_hint)
        for inner in region.block.ops:
            _name_values(inner, names, scope)


class _Printer:
    def __init__(
        self,
        names: dict[Value, str],
        locations: bool,
        positions: dict[Op, tuple[int, int]] | None = None,
    ) -> None:
        self.lines: list[str] = []
        self.names = names
        self.locations = locations
        self.positions = positions

    def print_op(self, op: Op, depth: int) -> None:
        indent = INDENT * depth
        head = indent + self.head(op)
        if self.positions is not None:
            self.positions[op] = (len(self.lines) + 1, head.index('"') + 1)
        for index, region in enumerate(op.regions):
            self.lines.append(indent + "}, {" if index else head + " ({")
            self.print_block(region.block, depth)
        self.lines.append((indent + "})" if op.regions else head) + self.tail(op))

    def print_block(self, block: Block, depth: int) -> None:
        if block.args:
            args = ", ".join([f"{self.names[arg]}: {attribute_text(arg.type)}" for arg in block.args])
            self.lines.append(f"{INDENT * depth}^bb0({args}):")
        elif not block.ops.first:
            self.lines.append(f"{INDENT * depth}^bb0:")  # nothing at all would be a region without a block
        for op in block.ops:
            self.print_op(op, depth + 1)

    def head(self, op: Op) -> str:
        """Everything before the regions."""
        results = ", ".join([self.names[value] for value in op.results])
        operands = ", ".join([self.names.get(value, "%<undefined>") for value in op.operands])
        equals = " = " if results else ""
        return f'{results}{equals}"{op.opname}"({operands}){self.properties(op)}'

    def tail(self, op: Op) -> str:
        """Everything after the regions."""
        inputs = ", ".join([attribute_text(value.type) for value in op.operands])
        results = _result_list([attribute_text(value.type) for value in op.results])
        return f"{self.discardable(op)} : ({inputs}) -> {results}{self.location(op)}"

    def properties(self, op: Op) -> str:
        declared = op.schema.attribute_names
        values = [f"{k} = {attribute_text(v)}" for k, v in op.attributes.items() if k in declared]
        if op.schema.prints_segments:
            values.append(f"operandSegmentSizes = array<i32: {', '.join(map(str, op.segments))}>")
        return f" <{{{', '.join(values)}}}>" if values else ""

    def discardable(self, op: Op) -> str:
        declared = op.schema.attribute_names
        values = [f"{k} = {attribute_text(v)}" for k, v in op.attributes.items() if k not in declared]
        return f" {{{', '.join(values)}}}" if values else ""

    def location(self, op: Op) -> str:
        return f" loc({location_text(op.loc)})" if self.locations and op.loc != UNKNOWN else ""


def _identifier(hint: str) -> str:
    text = "".join(c if c.isascii() and (c.isalnum() or c in "_$.-") else "_" for c in hint)
    return text if not text[0].isdigit() else f"_{text}"


def _result_list(texts: list[str]) -> str:
    """One result type stands alone, unless it is a function type and its arrow would be misread."""
    return texts[0] if len(texts) == 1 and not texts[0].startswith("(") else f"({', '.join(texts)})"


@lru_cache(maxsize=4096)
def location_text(loc: Location) -> str:
    """The inside of ``loc(...)``."""
    match loc:
        case NameLoc(name):
            return string_text(name)
        case FileLoc(file, line, col):
            return f"{string_text(file)}:{line}:{col}"
        case FusedLoc(parts):
            return f"fused[{', '.join(location_text(part) for part in parts)}]"
    return "unknown"


def attribute_text(value: Any) -> str:
    """Any attribute or type, given as the Python value that ops hold."""
    kind = type(value)
    if kind is int:
        return f"{value} : {'i64' if value < 1 << 63 else 'ui64'}"
    if kind is float:
        return f"{float_text(value)} : f64"
    simple = _SIMPLE.get(kind)
    if simple is not None:
        return simple(value)
    if kind is list:
        return f"[{', '.join([attribute_text(v) for v in value])}]"
    if kind is tuple:
        return array_text(value)
    if kind is dict:
        return f"{{{', '.join(f'{key} = {attribute_text(v)}' for key, v in value.items())}}}"
    if not hasattr(kind, "mnemonic"):
        raise TypeError(f"{value!r} of {kind} cannot be an attribute")
    return _object_text(value)


def _object_text(value: Any) -> str:
    match value:
        case TensorType(shape, element, layout):
            dims = "x".join([*map(str, shape), element.name])
            return f"tensor<{dims}>" if layout is None else f"tensor<{dims}, {attribute_text(layout)}>"
        case FunctionType(inputs, results):
            texts = [attribute_text(t) for t in results]
            return f"({', '.join(attribute_text(t) for t in inputs)}) -> {_result_list(texts)}"
    sigil = "!" if isinstance(value, Type) else "#"
    body = [
        f"{name} = {parameter_text(item, as_float)}"
        for name, as_float in _parameters(value.__class__)
        if (item := getattr(value, name)) is not None
    ]
    return f"{sigil}{value.mnemonic}<{', '.join(body)}>" if body else f"{sigil}{value.mnemonic}"


@cache
def _parameters(cls: type[Any]) -> list[tuple[str, bool]]:
    """Field names of a type or attribute class, and whether each is declared a float."""
    return [(f.name, is_float_field(f)) for f in fields(cls)]


def parameter_text(value: Any, as_float: bool = False) -> str:
    """A field inside ``< >``: as an attribute, but numbers carry no type, and a tuple is a list."""
    kind = type(value)
    if kind is float or (as_float and kind is int):
        number = float(value)
        return float_text(number) if math.isfinite(number) else attribute_text(number)
    if kind is int:
        return str(value)
    if kind is tuple:
        return f"[{', '.join(parameter_text(v) for v in value)}]"
    return attribute_text(value)


def array_text(value: tuple[Any, ...]) -> str:
    """``array<i64: 1, 2>``; of floats or of bools when all are."""
    kinds = {type(v) for v in value}
    if not kinds:
        return "array<i64>"
    if kinds == {bool}:
        return f"array<i1: {', '.join('true' if v else 'false' for v in value)}>"
    if kinds == {int}:
        return f"array<i64: {', '.join(map(str, value))}>"
    if kinds == {float}:
        return f"array<f64: {', '.join(map(float_text, value))}>"
    raise TypeError(f"a tuple attribute holds numbers of one kind, use a list for {value!r}")


def float_text(value: float) -> str:
    """Shortest text that reads back the same, with the decimal point MLIR asks for; bits if not finite."""
    if not math.isfinite(value):
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    text = repr(value)
    if "." in text:
        return text
    mantissa, exponent, power = text.partition("e")
    return f"{mantissa}.0{exponent}{power}"


def string_text(value: str) -> str:
    """Quoted; everything but printable ASCII as the hex of its UTF-8 bytes."""
    if SAFE_CHARACTERS.issuperset(value):
        return f'"{value}"'
    parts = [c if c in SAFE_CHARACTERS else "".join(f"\\{b:02X}" for b in c.encode()) for c in value]
    return f'"{"".join(parts)}"'


_SIMPLE: dict[type, Callable[[Any], str]] = {
    bool: lambda value: "true" if value else "false",
    str: string_text,
    ElementType: lambda value: value.name,
    Symbol: lambda value: f"@{value.name}",
    Unit: lambda value: "unit",
}
