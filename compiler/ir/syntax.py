"""Text to syntax: lark's rules as Python values, before the names of values and ops mean anything.

``parse_syntax`` gives a list of ``OpSyntax``; ``parser.py`` resolves names and builds the IR.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import regex
from lark import Lark, Token, Transformer, UnexpectedInput, UnexpectedToken, v_args

from compiler.ir import literals
from compiler.ir.literals import TextError
from compiler.ir.location import UNKNOWN, FileLoc, FusedLoc, Location, NameLoc
from compiler.ir.types import UNIT, Attribute, FunctionType, Symbol, TensorType, Type

Signature = tuple[tuple[Type, ...], tuple[Type, ...]]

_RESULT = regex.compile(r"(%[\w$.-]+)(?:\s*:\s*(\d+))?")
_TENSOR = regex.compile(r"tensor<\s*((?:\d+x)*)(.*)")
_OPERAND = regex.compile(r"%[\w$.#-]+")
# One `name = value` whose value has no dictionary in it and no more brackets than a list of scalars.
_STRING = r'"(?:[^"\\]|\\.)*+"'
_ANGLES = rf'<(?:[^<>"]++|{_STRING}|<(?:[^<>"]++|{_STRING}|<[^<>"]*+>)*+>)*+>'
_VALUE = rf'(?:[^<>"\[\]{{}},]++|{_STRING}|{_ANGLES}|\[[^\[\]<>"]*\])++'
_ENTRY = regex.compile(rf"\s*([A-Za-z_][\w$.]*)\s*=\s*({_VALUE})(?:,|$)")


MAX_DEPTH = 64  # of brackets
MAX_DIGITS = 40  # of a number; 64 bits have 20
MAX_RESULTS = 1000  # of one op
_BRACKET = regex.compile(rf"{_STRING}|//[^\n]*|[()\[\]{{}}]|\d{{{MAX_DIGITS},}}")


@dataclass(slots=True)
class OpSyntax:
    """One op as written; ``pos`` is where its quoted name starts, in characters of the text."""

    name: str
    pos: int
    line: int
    col: int
    results: list[str]
    operands: list[str]
    properties: dict[str, Any]
    regions: list[RegionSyntax]
    discardable: dict[str, Any]
    signature: Signature
    loc: Location


@dataclass(slots=True)
class RegionSyntax:
    """The block arguments and the ops of one region."""

    args: list[tuple[str, Type]]
    ops: list[OpSyntax]


def parse_syntax(text: str) -> list[OpSyntax]:
    """The top-level ops of a text; TextError with the place where it is not IR."""
    check_limits(text)
    reader = _reader()
    reader.begin()
    ops: list[OpSyntax] = reader.parse("module", text)
    return ops


def check_limits(text: str) -> None:
    """TextError where a text nests deeper than any IR does, or has a longer number."""
    depth = 0
    for match in _BRACKET.finditer(text):
        found = match[0]
        if found[0].isdigit():
            raise TextError(f"a number of {len(found)} digits", match.start())
        depth += (found in "([{") - (found in ")]}")
        if depth > MAX_DEPTH:
            raise TextError(f"nested deeper than {MAX_DEPTH} brackets", match.start())


def parse_attribute(text: str) -> Any:
    """The Python value of one attribute or type."""
    reader = _reader()
    reader.begin()
    return reader.parse("attribute", text)


@cache
def _reader() -> _Reader:
    return _Reader()


class _Reader:
    """Reads one text after the other by the grammar; within a text, what is written alike is read once."""

    def __init__(self) -> None:
        grammar = Path(__file__).with_name("grammar.lark").read_text()
        starts = ["module", "entries", "signature", "attribute", "location"]
        self.lark = Lark(
            grammar,
            parser="lalr",
            start=starts,
            transformer=_Values(self),
            maybe_placeholders=True,
            regex=True,
        )
        self.begin()

    def begin(self) -> None:
        """Forget the text before, whose aliases mean nothing in another."""
        self.aliases: dict[str, Any] = {}
        self.signatures: dict[str, Signature] = {}
        self.constants: dict[str, Any] = {}

    def parse(self, start: str, text: str, offset: int = 0) -> Any:
        """Read ``text`` by one rule; ``offset`` is where it lies in the text that errors count from."""
        try:
            return self.lark.parse(text, start=start)
        except UnexpectedInput as error:
            pos = error.pos_in_stream or 0
            if isinstance(error, UnexpectedToken) and error.token.type == "$END":
                raise TextError("the text ends too early here", offset + len(text.rstrip())) from None
            found = regex.match(r"\"?[^\s,:()<>\"]*|.", text[pos:])
            shown = found.group() if found and found.group() else text[pos]
            raise TextError(f"unexpected {shown!r}", offset + pos) from None
        except TextError as error:
            raise TextError(error.message, offset + error.pos) from None

    def define(self, name: Token, value: Any) -> None:
        """Let an alias stand for a value; it stands before all uses, so none can mean itself."""
        pos = name.start_pos or 0
        if name in self.aliases:
            raise TextError(f"{name} is defined a second time", pos)
        if not isinstance(value, Type if name.startswith("!") else Attribute):
            what = "type" if name.startswith("!") else "type or attribute of a dialect"
            raise TextError(f"{name} stands for what is no {what}", pos)
        self.aliases[str(name)] = value

    def aliased(self, name: Token) -> Any:
        if name not in self.aliases:
            close = difflib.get_close_matches(name, self.aliases, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ", as an alias is before its first use"
            raise TextError(f"{name} is not defined{hint}", name.start_pos or 0)
        return self.aliases[name]

    def properties(self, text: str) -> dict[str, Any]:
        """The inside of ``<{ }>``: entry by entry when simple, else by the grammar."""
        values: dict[str, Any] = {}
        body, pos = text[2:-2], 0
        while pos < len(body):
            match = _ENTRY.match(body, pos)
            if match is None:
                whole: dict[str, Any] = self.parse("entries", body, 2)
                return whole
            name, value = match.groups()
            try:
                values[name] = self.parse("attribute", value) if value[0] == "[" else self.constant(value)
            except TextError as error:
                raise TextError(error.message, error.pos + match.start(2) + 2) from None
            pos = match.end()
        return values

    def constant(self, text: str) -> Any:
        """An attribute that cannot be changed in place, so that equal texts may share one value."""
        if text not in self.constants:
            self.constants[text] = self.parse("attribute", text)
        return self.constants[text]

    def signature(self, text: str) -> Signature:
        if text not in self.signatures:
            self.signatures[text] = self.parse("signature", text)
        return self.signatures[text]


@lru_cache(maxsize=1 << 14)
def _name_location(text: str) -> Location:
    return NameLoc(literals.unquote(text))


def _read(token: Any, read: Callable[[str], Any]) -> Any:
    """The value of a coarse token, placing errors inside it; what is no token was read already."""
    if not isinstance(token, Token):
        return token
    try:
        return read(str(token))
    except TextError as error:
        raise TextError(error.message, (token.start_pos or 0) + error.pos) from None


@v_args(inline=True)
class _Values(Transformer[Token, Any]):
    """A Python value for each rule of the grammar."""

    def __init__(self, reader: _Reader) -> None:
        super().__init__()
        self.reader = reader

    def module(self, *parts: OpSyntax | None) -> list[OpSyntax]:
        return [op for op in parts if op is not None]

    def alias(self, name: Token, value: Any) -> None:
        self.reader.define(name, value)

    def aliased(self, name: Token) -> Any:
        return self.reader.aliased(name)

    aliased_type = aliased

    def op(
        self,
        results: Token | None,
        name: Token,
        operands: Token,
        properties: Token | dict[str, Any] | None,
        regions: list[RegionSyntax] | None,
        dictionary: dict[str, Any] | None,
        signature: Token | Signature,
        loc: Location | None,
    ) -> OpSyntax:
        return OpSyntax(
            name[1:-1],
            name.start_pos or 0,
            name.line or 1,
            name.column or 1,
            list(_result_names(results)) if results else [],
            _OPERAND.findall(operands),
            _read(properties, self.reader.properties) or {},
            regions or [],
            dictionary or {},
            _read(signature, self.reader.signature),
            loc or UNKNOWN,
        )

    def regions(self, *regions: RegionSyntax) -> list[RegionSyntax]:
        return list(regions)

    def region(self, label: list[tuple[str, Type]] | None, *ops: OpSyntax) -> RegionSyntax:
        return RegionSyntax(label or [], list(ops))

    def label(self, _name: Token, *args: tuple[str, Type] | None) -> list[tuple[str, Type]]:
        return [arg for arg in args if arg]

    def argument(self, name: Token, type: Type, _loc: Location | None) -> tuple[str, Type]:
        return str(name), type

    def location(self, origin: Token | Location) -> Location:
        return origin if isinstance(origin, Location) else _name_location(str(origin[4:-1]))

    def name_origin(self, name: Token) -> Location:
        return _name_location(str(name))

    def file_origin(self, file: Token, line: Token, col: Token) -> Location:
        return FileLoc(literals.unquote(file), int(line), int(col))

    def fused_origin(self, *parts: Location) -> Location:
        return FusedLoc(parts)

    def unknown_origin(self) -> Location:
        return UNKNOWN

    def dictionary(self, entries: dict[str, Any]) -> dict[str, Any]:
        return entries

    def entries(self, *entries: tuple[str, Any] | None) -> dict[str, Any]:
        return dict(entry for entry in entries if entry)

    def entry(self, key: Token, value: Any) -> tuple[str, Any]:
        name = literals.unquote(key) if key.startswith('"') else str(key)
        return name, UNIT if value is None else value

    def signature(self, inputs: tuple[Type, ...], results: tuple[Type, ...] | Type) -> Signature:
        return inputs, results if isinstance(results, tuple) else (results,)

    def types(self, *types: Type | None) -> tuple[Type, ...]:
        return tuple(type for type in types if type is not None)

    def number(self, text: Token, element: Token | None) -> int | float:
        return literals.number(text, literals.element(element) if element else None)

    def string(self, text: Token) -> str:
        return literals.unquote(text)

    def symbol(self, text: Token) -> Symbol:
        return Symbol(str(text[1:]))

    def true(self) -> bool:
        return True

    def false(self) -> bool:
        return False

    def unit(self) -> Any:
        return UNIT

    def list(self, *items: Any) -> Any:
        return [item for item in items if item is not None]

    def array(self, element: Token, *items: Token | bool | None) -> tuple[int | float, ...]:
        kind = literals.element(element)
        given = [item for item in items if item is not None]
        return tuple([literals.number(i, kind) if isinstance(i, Token) else i for i in given])

    def integers(self, text: Token) -> tuple[int, ...]:
        return tuple(int(item) for item in text[1:-1].split(","))

    def element(self, text: Token) -> Type:
        return literals.element(text)

    def tensor(self, head: Token, layout: Any) -> TensorType:
        dims, element = _TENSOR.match(head).groups()
        kind = literals.element(Token("ELEMENT", element, start_pos=head.start_pos))
        return TensorType(tuple([int(dim) for dim in dims.split("x")[:-1]]), kind, layout)

    def function_type(self, inputs: tuple[Type, ...], results: tuple[Type, ...] | Type) -> FunctionType:
        return FunctionType(inputs, results if isinstance(results, tuple) else (results,))

    def object_type(self, name: Token, parameters: dict[str, Any] | None) -> Any:
        return literals.dialect_object(name, parameters or {})

    def object(self, name: Token, parameters: dict[str, Any] | None) -> Any:
        return literals.dialect_object(name, parameters or {})

    def parameters(self, *parameters: tuple[str, Any] | None) -> dict[str, Any]:
        return dict(parameter for parameter in parameters if parameter)

    def parameter(self, name: Token, value: Any) -> tuple[str, Any]:
        return str(name), value


def _result_names(text: str) -> Iterator[str]:
    """Names that the left side binds; ``%x:2`` binds ``%x#0`` and ``%x#1``."""
    for name, count in _RESULT.findall(text):
        if count:
            if int(count) > MAX_RESULTS:
                raise TextError(f"{name} stands for more than {MAX_RESULTS} results", 0)
            yield from (f"{name}#{index}" for index in range(int(count)))
        else:
            yield name
