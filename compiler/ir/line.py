"""The names of values in text, and the text of one op around its regions."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from compiler.ir.location import FileLoc, FusedLoc, Location, NameLoc
from compiler.ir.text import Write, attribute_text, list_text, string_text

if TYPE_CHECKING:
    from compiler.ir.core import Op, Value


def op_line(op: Op) -> str:
    """One line for a message: the op with its value names, without location and insides of regions."""
    root = op
    while root.parent_op is not None:
        root = root.parent_op
    start = head(op, value_names(root), attribute_text)
    return start + " ({...})" * len(op.regions) + tail(op, attribute_text)


def head(op: Op, names: dict[Value, str], write: Write) -> str:
    """Everything before the regions."""
    results = ", ".join([names[value] for value in op.results])
    operands = ", ".join([names.get(value, "%<undefined>") for value in op.operands])
    equals = " = " if results else ""
    return f'{results}{equals}"{op.opname}"({operands}){_properties(op, write)}'


def tail(op: Op, write: Write) -> str:
    """Everything after the regions, short of the location."""
    inputs = ", ".join([write(value.type) for value in op.operands])
    results = list_text([write(value.type) for value in op.results])
    return f"{_discardable(op, write)} : ({inputs}) -> {results}"


def _properties(op: Op, write: Write) -> str:
    """The declared attributes that differ from their declared defaults, and the sizes of operand fields."""
    schema = op.schema
    defaults = schema.default_texts
    values = [
        f"{name} = {write(value)}"
        for name, value in op.attributes.items()
        if name in schema.attribute_names
        and not (name in defaults and attribute_text(value) == defaults[name])
    ]
    if schema.prints_segments:
        values.append(f"operandSegmentSizes = array<i32: {', '.join(map(str, op.segments))}>")
    return f" <{{{', '.join(values)}}}>" if values else ""


def _discardable(op: Op, write: Write) -> str:
    declared = op.schema.attribute_names
    values = [f"{k} = {write(v)}" for k, v in op.attributes.items() if k not in declared]
    return f" {{{', '.join(values)}}}" if values else ""


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


def _identifier(hint: str) -> str:
    text = "".join(c if c.isascii() and (c.isalnum() or c in "_$.-") else "_" for c in hint)
    return text if not text[0].isdigit() else f"_{text}"


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
