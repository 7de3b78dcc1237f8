"""What holds for all IR: definitions before uses, arity, types, terminators, and each op's own ``verify``."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NoReturn

from compiler.ir.core import Op, Region, Value
from compiler.ir.define import Field, Schema
from compiler.ir.signature import verify_shapes
from compiler.ir.types import Attribute, TensorType, Type
from compiler.ir.values import described

SHOWN = 60  # characters of a wrong value in a message

Sound = set[tuple[Hashable, ...]]  # ids of what was found to suit each other, which many ops share
States = dict[Op, tuple[Any, ...]]  # what ops without regions were like when they were verified
Changed = tuple[type[Op], ...]


def verify(root: Op, changed: Changed = (Op,), before: States | None = None) -> States:
    """Check an op and everything inside it; CompileError at the first op that is wrong.

    Of ops of other classes than `changed`, and of those that are as they were `before`, only the order is
    checked: each stands behind what it reads. Returned is what they are like now.
    """
    check = _Check(changed, before or {})
    check.ordered([root], set())
    return check.states


class _Check:
    """One walk over some IR."""

    def __init__(self, changed: Changed, before: States) -> None:
        self.changed = changed
        self.before = before
        self.states: States = {}
        self.sound: Sound = set()

    def ordered(self, ops: Sequence[Op], visible: set[Value]) -> None:
        """Ops that follow each other; all that most of them are checked for is here, as there are many."""
        for op in ops:
            if not visible.issuperset(op._operands):
                _fail_undefined(op, visible)
            if op.is_terminator and op is not ops[-1]:
                op.fail("ends its block, but other ops follow")
            if op.regions or isinstance(op, self.changed):
                self.op(op, visible)
            if op.results:
                visible.update(op.results)

    def op(self, op: Op, visible: set[Value]) -> None:
        if op.regions:
            self.with_regions(op, visible, isinstance(op, self.changed))
        elif op.verifies_form:
            self.form(op)
        else:
            self.alone(op)

    def form(self, op: Op) -> None:
        form = _form(op)
        if form not in self.sound:
            _verify_parts(op, self.sound)
            _verify_whole(op)
            self.sound.add(form)
        op.verify_place()

    def alone(self, op: Op) -> None:
        state = self.states[op] = _state(op)
        if self.before.get(op) != state:
            _verify_parts(op, self.sound)
            _verify_whole(op)

    def with_regions(self, op: Op, visible: set[Value], is_changed: bool) -> None:
        if is_changed:
            _verify_parts(op, self.sound)
        for region in op.regions:
            self.region(op, region, set() if op.is_isolated else set(visible))
        if is_changed:
            _verify_whole(op)

    def region(self, op: Op, region: Region, visible: set[Value]) -> None:
        block = region.block
        for arg in block.args:
            if problem := arg.type.problem():
                op.fail(f"argument {arg.index} is {arg.type}, which {problem}")
        visible.update(block.args)
        self.ordered(block.ops.listed(), visible)


def _state(op: Op) -> tuple[Any, ...]:
    """All that its `verify` looks at: of other ops, which make the operands, and which read the results.

    Its parts are replaced where they change, so that most are told to be equal by identity.
    """
    types = [value.type for value in (*op.operands, *op.results)]
    uses = [value.uses for value in op.results]
    return op.attributes, op.operands, op.results, op.segments, types, uses


def _form(op: Op) -> tuple[Hashable, ...]:
    """What ops have in common that are as good as each other, by objects that live as long as they do."""
    values = (*op.operands, *op.results)
    return (type(op), op.segments, id(op.shared_attributes), *[id(value.type) for value in values])


def _verify_parts(op: Op, sound: Sound) -> None:
    _verify_operands(op)
    _verify_results(op)
    _verify_attributes(op, sound)


def _verify_whole(op: Op) -> None:
    if op.shapes:
        verify_shapes(op)
    op.verify()
    _verify_inferred(op)


def _fail_undefined(op: Op, visible: set[Value]) -> None:
    index = next(index for index, value in enumerate(op.operands) if value not in visible)
    maker = op.operands[index].owner
    if isinstance(maker, Op) and maker.parent is None:
        op.fail(f"operand {index} is a result of '{maker.opname}', which was erased or never inserted")
    op.fail(f"operand {index} is used before its definition or outside of its region")


def _verify_operands(op: Op) -> None:
    """Their number and types; that a type makes sense is asked where its value is made."""
    for part, value in zip(_operand_fields(op), op.operands, strict=True):
        if not isinstance(value.type, part.classes):
            _fail_class(op, "operand", part, value.type)


def _operand_fields(op: Op) -> Sequence[Field]:
    """The declared field of each operand."""
    schema = op.schema
    if schema.fixed_operands:
        if len(op.operands) != len(schema.operands):
            op.fail(f"has {len(op.operands)} operands, expected {len(schema.operands)}")
        return schema.operands
    fields = schema.operand_fields(op.segments)
    if fields is None or len(fields) != len(op.operands):
        _fail_segments(op)
    return fields


def _fail_segments(op: Op) -> NoReturn:
    fields = op.schema.operands
    if len(op.segments) == len(fields) and sum(op.segments) == len(op.operands):
        for part, size in zip(fields, op.segments, strict=True):
            if not part.takes(size):
                op.fail(f"has {size} values for operand {part.name!r}, which is {part.arity}")
    op.fail(f"has {len(op.operands)} operands, which its segments {op.segments} do not add up to")


def _verify_results(op: Op) -> None:
    fields = op.schema.result_fields(len(op.results))
    if fields is None:
        op.fail(f"has {len(op.results)} results, expected {len(op.schema.results)}")
    for part, value in zip(fields, op.results, strict=True):
        if not isinstance(value.type, part.classes):
            _fail_class(op, "result", part, value.type)
        if problem := value.type.problem():
            op.fail(f"result {part.name!r} is {value.type}, which {problem}")


def _fail_class(op: Op, kind: str, part: Field, type: Type) -> NoReturn:
    names = " or ".join(c.__name__ for c in part.classes)
    op.fail(f"{kind} {part.name!r} is {type}, expected a {names}")


def _verify_inferred(op: Op) -> None:
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


def _verify_attributes(op: Op, sound: Sound) -> None:
    schema: Schema = op.schema
    for name, value in op.attributes.items():
        part = schema.attributes.get(name)
        if part is None:
            if "." not in name:
                op.fail(f"has no attribute {name!r}; it has {schema.summary()}")
        elif (known := (id(part), id(value))) not in sound:
            _verify_attribute(op, part, value)
            sound.add(known)
    if not op.attributes.keys() >= schema.present:
        op.fail(f"needs attribute {', '.join(sorted(schema.present - op.attributes.keys()))}")


def _verify_attribute(op: Op, part: Field, value: Any) -> None:
    if not part.holds(value):
        op.fail(f"attribute {part.name!r} is {str(value)[:SHOWN]}, expected {described(part.type)}")
    if isinstance(value, Attribute) and (problem := value.problem()):
        op.fail(f"attribute {part.name!r} is {value}, which {problem}")
    if problem := op.problem_of(part.name, value):
        op.fail(f"{part.name} is {list(value) if isinstance(value, tuple) else value}, {problem}")
