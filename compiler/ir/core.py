"""Values, ops, blocks and regions, and who uses which value.

A value keeps its uses in a dict, so replacing it costs the same however many ops a function has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn

from typing_extensions import TypeVar

from compiler.diagnostics import CompileError
from compiler.ir.line import op_line
from compiler.ir.location import UNKNOWN, Location
from compiler.ir.oplist import OpList
from compiler.ir.types import Type

if TYPE_CHECKING:
    from compiler.ir.define import Schema

T = TypeVar("T", bound=Type, covariant=True, default=Any)
OpT = TypeVar("OpT", bound="Op")


class Value(Generic[T]):
    """The result of an op (``owner`` is the op) or an argument of a block (``owner`` is the block)."""

    __slots__ = ("_uses", "index", "name_hint", "owner", "type")

    def __init__(self, type: T, owner: Op | Block, index: int, name_hint: str | None = None) -> None:
        self.type = type
        self.owner = owner
        self.index = index
        self.name_hint = name_hint
        self._uses: dict[tuple[Op, int], None] = {}

    @property
    def uses(self) -> tuple[tuple[Op, int], ...]:
        """(op, operand index) of each use, in order of creation."""
        return tuple(self._uses)

    @property
    def users(self) -> list[Op]:
        """Each op that reads this value, once."""
        return list(dict.fromkeys(op for op, _ in self._uses))

    def has_uses(self) -> bool:
        return bool(self._uses)

    def has_one_use(self) -> bool:
        return len(self._uses) == 1

    def defining(self, op_class: type[OpT]) -> OpT | None:
        """The op that makes this value if it is of that class, else None."""
        return self.owner if isinstance(self.owner, op_class) else None

    def replace_by(self, other: Value) -> None:
        """Make every reader of this value read ``other``."""
        if other is self:
            return
        for op, index in self.uses:
            op.set_operand(index, other)

    def __repr__(self) -> str:
        return f"<%{self.name_hint or self.index} : {self.type}>"


class OwnAttributes(Mapping[str, Any]):
    """Attributes that many ops share, and discardable ones of one op besides, which a subclass holds."""

    __slots__ = ("shared",)

    def __init__(self, shared: Mapping[str, Any]) -> None:
        self.shared = shared


class Op:
    """One operation. Subclasses made by ``@op`` name its operands, attributes, regions and results.

    ``attributes`` holds plain Python values (int, float, str, bool, list, tuple, Type, Attribute): declared
    ones by field name, others ("discardable") under a name with a dot in it. Ops that are alike may share
    them, so they are replaced, never changed in place.
    """

    # The op's name in text. A dialect may declare a field called "name"; generic code reads "opname".
    opname: ClassVar[str] = ""
    name: str = ""
    schema: ClassVar[Schema]
    shapes: ClassVar[str] = ""  # of operands and results; see `compiler.ir.signature`
    is_terminator: ClassVar[bool] = False
    has_effects: ClassVar[bool] = False  # does something besides making its results; never erased as dead
    is_isolated: ClassVar[bool] = False  # its region reads no value from outside
    verifies_form: ClassVar[bool] = False  # `verify` looks at attributes and types alone

    loc: Location
    parent: Block | None
    position: Location | None  # where the parser read it, for diagnostics
    attributes: Mapping[str, Any]
    regions: tuple[Region, ...]

    def __init__(
        self, *operands: Any, types: Sequence[Type] | None = None, loc: Location = UNKNOWN, **named: Any
    ) -> None:
        """Operands by position or field name; attributes and regions by field name.

        Result types come from ``infer_types`` when ``types`` is left out.
        """
        schema = self.schema
        values, segments = schema.bind_operands(operands, named)
        regions = schema.bind_regions(named)
        self._setup(values, segments, schema.bind_attributes(named), regions, loc)
        self._make_results(self.infer_types() if types is None else types)

    @classmethod
    def build(
        cls: type[OpT],
        operands: Sequence[Value],
        types: Sequence[Type],
        attributes: Mapping[str, Any],
        regions: Sequence[Region] = (),
        segments: tuple[int, ...] | None = None,
        loc: Location = UNKNOWN,
    ) -> OpT:
        """Make an op from its raw parts without any check: for the parser and for clones."""
        op = cls.__new__(cls)
        op._setup(tuple(operands), segments or (), attributes, tuple(regions), loc)
        op._make_results(types)
        return op

    def _setup(
        self,
        operands: tuple[Value, ...],
        segments: tuple[int, ...],
        attributes: Mapping[str, Any],
        regions: tuple[Region, ...],
        loc: Location,
    ) -> None:
        self._operands = operands
        self.segments = segments  # how many operands each declared operand field takes; () when one each
        self.attributes = attributes
        self.regions = regions
        self.results: tuple[Value, ...] = ()  # none yet when `infer_types` fails, and the op is shown
        self.loc = loc
        self.parent = None
        self.position = None
        self._previous: Op | None = None
        self._next: Op | None = None
        self._order: int | None = None  # in its block, as far as one was asked for
        index = 0
        for value in operands:
            value._uses[(self, index)] = None
            index += 1
        for region in regions:
            region.parent = self

    def _make_results(self, types: Sequence[Type]) -> None:
        self.results = tuple([Value(t, self, i) for i, t in enumerate(types)])

    # ---- what a dialect defines ----

    def infer_types(self) -> Sequence[Type]:
        """Result types from operands and attributes; ops without results need not define it."""
        if self.schema.results:
            raise TypeError(f"{self.opname} does not infer its result types; pass types=[...]")
        return ()

    def verify(self) -> None:
        """Check what no type can say; call ``fail`` when it does not hold."""

    def verify_place(self) -> None:
        """The same of each op that ``verifies_form``, for what is around it and for what is its own."""

    @classmethod
    def problem_of(cls, name: str, value: Any) -> str | None:
        """What else is expected of a declared attribute than its type, if it is not so."""
        return None

    # ---- reading ----

    @property
    def shared_attributes(self) -> Mapping[str, Any]:
        """The attributes without those of `OwnAttributes`: one object in ops that were made as one."""
        found = self.attributes  # an `isinstance` of an abstract class takes as long as all around it
        return found if type(found) is dict else getattr(found, "shared", found)

    @property
    def operands(self) -> tuple[Value, ...]:
        return self._operands

    @property
    def result(self) -> Value:
        """The only result."""
        assert len(self.results) == 1, f"{self.opname} has {len(self.results)} results"
        return self.results[0]

    @property
    def region(self) -> Region:
        """The only region."""
        assert len(self.regions) == 1, f"{self.opname} has {len(self.regions)} regions"
        return self.regions[0]

    @property
    def parent_op(self) -> Op | None:
        """The op whose region holds this one."""
        return self.parent.parent_op if self.parent else None

    @property
    def next_op(self) -> Op | None:
        return self._next

    def has_uses(self) -> bool:
        return any(result._uses for result in self.results)

    def is_dead(self) -> bool:
        """Whether erasing it changes nothing: it makes values that no one reads, and has no effect."""
        return bool(self.results) and not self.has_effects and not self.has_uses()

    def is_before(self, other: Op) -> bool:
        """Whether this op comes earlier in the same block; a scan of it where one of them is new there."""
        assert self.parent is not None
        assert self.parent is other.parent, "ops of different blocks have no order"
        if self._order is None or other._order is None:
            self.parent.ops.number()
        assert self._order is not None
        assert other._order is not None
        return self._order < other._order

    # ---- changing ----

    def set_operand(self, index: int, value: Value) -> None:
        operands = self._operands
        del operands[index]._uses[(self, index)]
        self._operands = (*operands[:index], value, *operands[index + 1 :])
        value._uses[(self, index)] = None

    def set_operands(self, values: Sequence[Value], segments: tuple[int, ...] | None = None) -> None:
        """Replace all operands; ``segments`` too when the length of an optional or variadic field changes."""
        self._drop_uses()
        self._operands = tuple(values)
        if segments is not None:
            self.segments = segments
        for index, value in enumerate(values):
            value._uses[(self, index)] = None

    def _drop_uses(self) -> None:
        for index, value in enumerate(self._operands):
            del value._uses[(self, index)]

    def detach(self) -> None:
        """Take the op out of its block, keeping it and its uses alive."""
        if self.parent is not None:
            self.parent.ops.remove(self)

    def erase(self) -> None:
        """Remove the op for good; nothing may use its results any more."""
        assert not self.has_uses(), f"erasing {self.opname} while {self.results[0].users[:1]} uses it"
        for region in self.regions:
            for inner in reversed(list(region.block.ops)):
                inner.erase()
        self._drop_uses()
        self.detach()
        self.release()

    def release(self) -> None:
        """Let go of all that the op refers to, when nothing will look at it again.

        An op and its results refer to each other, and so do neighbours: left together, they stay in memory
        until the garbage collector comes by.
        """
        for region in self.regions:
            region.parent = None
            region.block.release()
        self._operands = self.results = self.regions = ()
        self.parent = self._previous = self._next = None

    def move_before(self, anchor: Op) -> None:
        self.detach()
        block_of(anchor).ops.insert(self, anchor)

    def clone(self, mapping: dict[Value, Value] | None = None) -> Op:
        """A copy with its regions; ``mapping`` gives replacements for operands and receives the results."""
        mapping = {} if mapping is None else mapping
        regions = [region._clone(mapping) for region in self.regions]
        operands = [mapping.get(value, value) for value in self._operands]
        types = [result.type for result in self.results]
        copy = self.build(operands, types, self.attributes, regions, self.segments, self.loc)
        for old, new in zip(self.results, copy.results, strict=True):
            mapping[old] = new
            new.name_hint = old.name_hint
        return copy

    def fail(self, message: str, *, notes: Sequence[str] = ()) -> NoReturn:
        """Raise a CompileError about this op."""
        text = f"'{self.opname}' op {message}"
        raise CompileError(text, self.loc, notes, op=self, ir_line=op_line(self), position=self.position)

    def __str__(self) -> str:
        return op_line(self)

    def __repr__(self) -> str:
        return f"<{self.opname} at {self.loc}>"


class Block:
    """A straight run of ops with arguments."""

    __slots__ = ("args", "ops", "region")

    def __init__(self, arg_types: Iterable[Type] = ()) -> None:
        self.args: list[Value] = []
        self.ops = OpList(self)
        self.region: Region | None = None
        for type in arg_types:
            self.add_arg(type)

    @property
    def parent_op(self) -> Op | None:
        return self.region.parent if self.region else None

    @property
    def terminator(self) -> Op:
        assert self.ops.last is not None, "the block is empty"
        return self.ops.last

    def add_arg(self, type: Type, name: str | None = None) -> Value:
        arg: Value = Value(type, self, len(self.args), name)
        self.args.append(arg)
        return arg

    def erase_arg(self, arg: Value) -> None:
        assert not arg.has_uses(), f"erasing argument {arg} while it is used"
        self.args.remove(arg)
        for index, other in enumerate(self.args):
            other.index = index

    def erase_all(self, ops: Iterable[Op]) -> None:
        """Erase ops without regions for good, which costs less than one by one; no other may use them."""
        gone = dict.fromkeys(ops)
        kept = [op for op in self.ops.listed() if op not in gone]
        for op in kept:
            for value in op.operands:
                assert value.owner not in gone, f"erasing {value} while {op.opname} uses it"
        for value in (*self.args, *(result for op in kept for result in op.results)):
            value._uses = {use: None for use in value._uses if use[0] not in gone}
        for op in gone:
            assert not op.regions, f"{op.opname} has a region"
            op.release()
        self.ops.keep(kept)

    def release(self) -> None:
        """Let go of arguments and ops; see `Op.release`."""
        self.region = None
        self.args = []
        self.ops = OpList(self)

    def append(self, op: OpT) -> OpT:
        self.ops.insert(op, None)
        return op

    def insert_before(self, anchor: Op, op: OpT) -> OpT:
        self.ops.insert(op, anchor)
        return op


class Region:
    """What an op encloses: exactly one block, since no dialect here branches."""

    __slots__ = ("block", "parent")

    def __init__(self, block: Block | None = None) -> None:
        self.block = block or Block()
        self.block.region = self
        self.parent: Op | None = None

    def _clone(self, mapping: dict[Value, Value]) -> Region:
        block = Block()
        for arg in self.block.args:
            mapping[arg] = block.add_arg(arg.type, arg.name_hint)
        for op in self.block.ops:
            block.append(op.clone(mapping))
        return Region(block)


def block_of(op: Op) -> Block:
    """The block that an op is in; it must be in one."""
    assert op.parent is not None, f"{op.opname} is in no block"
    return op.parent
