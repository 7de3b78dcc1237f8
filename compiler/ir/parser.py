"""Text to IR. Ops, types and attributes are looked up among those of the dialects imported so far."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from compiler.diagnostics import UserError, printable
from compiler.ir.core import Block, Op, Region, Value
from compiler.ir.define import OPS, Schema
from compiler.ir.literals import TextError
from compiler.ir.location import FileLoc
from compiler.ir.module import Module
from compiler.ir.syntax import OpSyntax, RegionSyntax, parse_syntax
from compiler.ir.types import Type

SHOWN = 240  # characters of a wrong line in a message


def parse_module(text: str, file: str = "<text>") -> Module:
    """The module in ``text``; functions that stand alone get a module around them.

    Raises UserError with the place in ``file`` for anything that cannot be read.
    """
    builder = _Builder(text, file)
    ops = builder.build_ops(builder.read())
    if len(ops) == 1 and isinstance(ops[0], Module):
        return ops[0]
    module = OPS["builtin.module"]()
    for op in ops:
        module.region.block.append(op)
    assert isinstance(module, Module)
    return module


def parse_body(text: str, file: str = "<text>", args: Sequence[tuple[str, Type]] | None = None) -> Region:
    """A bare list of ops. Values that nothing defines become arguments of the block, in order of use.

    With ``args`` (name and type, without percent sign) the block has exactly those arguments.
    """
    builder = _Builder(text, file)
    block = Block()
    for name, type in args or ():
        builder.values[f"%{name}"] = block.add_arg(type, name)
    if args is None:
        builder.implicit = block
    for op in builder.build_ops(builder.read()):
        block.append(op)
    return Region(block)


class _Builder:
    """Resolves names, innermost scope first: ``values`` holds every name that is visible at the moment."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.values: dict[str, Value] = {}
        self.implicit: Block | None = None

    def read(self) -> list[OpSyntax]:
        try:
            return parse_syntax(self.text)
        except TextError as error:
            line = self.text.count("\n", 0, error.pos) + 1
            col = error.pos - (self.text.rfind("\n", 0, error.pos) + 1) + 1
            raise self.error(error.message, line, col) from None

    def error(self, message: str, line: int, col: int) -> UserError:
        lines = self.text.split("\n")
        shown = lines[line - 1].strip() if line <= len(lines) else ""
        position, ir_line = FileLoc(self.file, line, col), printable(shown[:SHOWN]) or None
        return UserError(printable(message), position=position, ir_line=ir_line)

    def refuse(self, syntax: OpSyntax, message: str) -> UserError:
        return self.error(f"'{syntax.name}' op {message}", syntax.line, syntax.col)

    def build_ops(self, ops: list[OpSyntax]) -> list[Op]:
        return [self.build(syntax) for syntax in ops]

    def build(self, syntax: OpSyntax) -> Op:
        cls = OPS.get(syntax.name)
        if cls is None:
            raise self.error(_unknown_op(syntax.name), syntax.line, syntax.col)
        inputs, results = syntax.signature
        operands = self.operands(syntax, inputs)
        if len(syntax.results) != len(results):
            raise self.refuse(syntax, f"names {len(syntax.results)} results of {len(results)} types")
        segments = self.segments(syntax, cls.schema)
        attributes = self.attributes(syntax, cls.schema)
        if len(syntax.regions) != len(cls.schema.regions):
            raise self.refuse(syntax, f"has {len(syntax.regions)} regions, not {len(cls.schema.regions)}")
        regions = [self.region(region, cls.is_isolated) for region in syntax.regions]
        op = cls.build(operands, results, attributes, regions, segments, syntax.loc)
        op.position = FileLoc(self.file, syntax.line, syntax.col)
        for name, value in zip(syntax.results, op.results, strict=True):
            self.define(syntax, name, value)
        return op

    def define(self, syntax: OpSyntax, name: str, value: Value) -> None:
        if name in self.values:
            raise self.refuse(syntax, f"defines {name} a second time")
        self.values[name] = value
        value.name_hint = _hint(name)

    def operands(self, syntax: OpSyntax, types: tuple[Type, ...]) -> list[Value]:
        names = syntax.operands
        if len(names) != len(types):
            raise self.refuse(syntax, f"has {len(names)} operands, but {len(types)} operand types")
        found = []
        for name, type in zip(names, types, strict=True):
            value = self.values.get(name)
            if value is None:
                value = self.undefined(syntax, name, type)
            elif value.type is not type and value.type != type:
                raise self.refuse(syntax, f"takes {name} as {type}, but it is {value.type}")
            found.append(value)
        return found

    def undefined(self, syntax: OpSyntax, name: str, type: Type) -> Value:
        if self.implicit is None:
            raise self.refuse(syntax, f"uses {name}, which nothing before it defines")
        value = self.values[name] = self.implicit.add_arg(type, name[1:])
        return value

    def segments(self, syntax: OpSyntax, schema: Schema) -> tuple[int, ...]:
        """How many operands each field takes; written down where the total leaves a choice."""
        if schema.fixed_operands:
            return ()
        given = syntax.properties.pop("operandSegmentSizes", None)
        count = len(syntax.operands)
        segments = schema.infer_segments(count) if given is None else given
        if segments is None:
            raise self.refuse(syntax, f"with {count} operands needs operandSegmentSizes")
        if len(segments) != len(schema.operands) or sum(segments) != count:
            raise self.refuse(syntax, f"has {count} operands, but operandSegmentSizes {segments}")
        return tuple(segments)

    def attributes(self, syntax: OpSyntax, schema: Schema) -> dict[str, Any]:
        """Declared attributes in declared order, then the others; both kinds of braces may hold either."""
        given = syntax.properties | syntax.discardable if syntax.discardable else syntax.properties
        declared = schema.attribute_names
        try:
            if given.keys() <= declared:
                return schema.bind_attributes(given)
            extra = {key: value for key, value in given.items() if key not in declared}
            known = {key: value for key, value in given.items() if key in declared}
            return schema.bind_attributes(known) | extra
        except TypeError as error:
            raise self.error(str(error), syntax.line, syntax.col) from None

    def region(self, syntax: RegionSyntax, isolated: bool) -> Region:
        outer = self.values
        self.values = {} if isolated else dict(outer)
        block = Block()
        for name, type in syntax.args:
            self.values[name] = block.add_arg(type, _hint(name))
        for op in self.build_ops(syntax.ops):
            block.append(op)
        self.values = outer
        return Region(block)


def _hint(name: str) -> str | None:
    """A name worth keeping: numbers are given anew when printing."""
    text = name[1:].partition("#")[0]
    return None if text.isdigit() else text


def _unknown_op(name: str) -> str:
    dialect = name.partition(".")[0]
    siblings = sorted(known for known in OPS if known.startswith(f"{dialect}."))
    if not siblings:
        dialects = sorted({known.partition(".")[0] for known in OPS})
        return f"unknown dialect {dialect!r} of op {name!r}; known: {', '.join(dialects)}"
    close = difflib.get_close_matches(name, siblings, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(siblings)}"
    return f"unknown op {name!r}; {hint}"
