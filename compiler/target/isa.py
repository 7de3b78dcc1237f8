"""The instruction sets: fields to bytes and bytes to fields, both derived from one table per set.

An instruction has a name (its family: `ar`, `mm2`, `dma_tensor`, ...), a kind (what it does: `add`, `nn`,
`copy`, ...) and fields, all integers. Field names are the same on all chips. The bits that name the
instruction (opcode, kind, short-form flag) are never fields; `cmd_id` and `cmd_id_dep` are. DMA addresses are
split as in the registers, into `src_start_addr_l32` and `src_start_addr_h8`; `split_address` and
`Instruction.address` convert.

The tables are in `families.py`, as far as all sets agree, and in the files of the chips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from itertools import chain
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

from compiler.target.layout import OPCODE_FIELD, ORDER_FIELDS, Engine, Layout
from compiler.target.spec import ChipSpec

Found = TypeVar("Found")

NOWHERE = (0, -1)  # bit and mask of a field that there is not: no value fits
HEADS = 4096  # first words of instructions to remember the names of

# Codes of the precision fields (`*_prec`, `src_data_format`), by element type name.
PRECISION = {"i8": 0, "f16": 1, "f32": 2, "i16": 3, "i32": 4, "bf16": 5, "i4": 6}
# Codes of the layout fields (`*_str`) of tensors in local memory.
ALIGNED, COMPACT, PER_CHANNEL, STRIDED = 0, 1, 2, 3
# Codes of the rounding modes (`opd2_n_str` of casts and shifts). The last two are for integer shifts only.
ROUND = {"even": 0, "away": 1, "zero": 2, "down": 3, "up": 4, "half_up": 5, "half_down": 6}


Order: TypeAlias = tuple[int, int]  # an instruction's number in its queue, and what it waits for; 0 for none


@dataclass(frozen=True)
class Instruction:
    """One instruction: its family, its kind, every field by name, and how many bytes it takes in a stream."""

    name: str
    kind: str
    fields: dict[str, int]
    size: int = field(default=0, compare=False)
    # Of one in its place of a program: the same without id and wait, one object for all that differ in them.
    body: Instruction | None = field(default=None, compare=False, init=False, repr=False)
    order: Order | None = field(default=None, compare=False, init=False, repr=False)

    def placed(self, order: Order) -> Instruction:
        """The same with an id and a wait, as far as it has such fields; this one is its body."""
        made = Instruction.__new__(Instruction)
        made.__dict__.update(name=self.name, kind=self.kind, size=self.size, body=self, order=order)
        return made

    def __getattr__(self, name: str) -> Any:
        """The fields of one that was placed, put together when they are asked for: most never are."""
        if name != "fields":
            raise AttributeError(name)
        assert self.body is not None
        assert self.order is not None
        known = self.body.fields
        order = zip(ORDER_FIELDS, self.order, strict=True)
        self.__dict__["fields"] = known | {key: value for key, value in order if key in known}
        return self.__dict__["fields"]

    @property
    def id(self) -> int:
        """Its number in its queue, from 1, where commands carry it."""
        return self.fields.get("cmd_id", 0) if self.order is None else self.order[0]

    @property
    def wait(self) -> int:
        """How many instructions the other engine of its core must have completed before it starts."""
        return self.fields.get("cmd_id_dep", 0) if self.order is None else self.order[1]

    @property
    def engine(self) -> Engine:
        """The engine that runs it."""
        return "dma" if self.name.startswith("dma_") else "tiu"

    def address(self, side: str) -> int:
        """The 40-bit address of a DMA operand: side is src, dst, index or mask."""
        return self.fields[f"{side}_start_addr_h8"] << 32 | self.fields[f"{side}_start_addr_l32"]

    def __str__(self) -> str:
        fields = " ".join(f"{name}={value}" for name, value in self.fields.items() if value)
        return f"{self.name}.{self.kind} {fields}"


class PerBody(Generic[Found]):
    """A function of what instructions do, whatever their id and wait: most come again in other tiles."""

    def __init__(self, function: Callable[[Instruction], Found]) -> None:
        self._function = function
        self._known: dict[int, tuple[Instruction, Found]] = {}  # by the id of the body, which lives on here

    def __call__(self, instruction: Instruction) -> Found:
        body = instruction.body or instruction
        known = self._known.get(id(body))
        if known is None:
            known = self._known[id(body)] = body, self._function(body)
        return known[1]


Bodies: TypeAlias = dict[tuple[str, int, int], Instruction]  # by family, bytes and bits


def split_address(side: str, address: int) -> dict[str, int]:
    """The two fields that hold a 40-bit DMA address: side is src, dst, index or mask."""
    return {f"{side}_start_addr_l32": address & 0xFFFFFFFF, f"{side}_start_addr_h8": address >> 32}


class Isa:
    """One instruction set. `encode` and `decode` are inverse to each other."""

    def __init__(self, name: str, layouts: tuple[Layout, ...]) -> None:
        self.name = name
        self._forms: dict[str, list[Layout]] = {}
        self._opcodes: dict[tuple[str, int], list[Layout]] = {}
        for layout in layouts:
            self._forms.setdefault(layout.name, []).append(layout)
            self._opcodes.setdefault((layout.engine, layout.opcode), []).append(layout)
        self._named = lru_cache(HEADS)(self._find_named)

    @property
    def names(self) -> tuple[str, ...]:
        """The families of this set."""
        return tuple(self._forms)

    def layout(self, name: str, size: int = 0) -> Layout:
        """The layout of a family: the form of that many bytes, or the short one."""
        forms = self._forms.get(name)
        if forms is None:
            raise ValueError(f"{self.name} has no instruction '{name}'")
        for layout in forms:
            if size in (0, layout.size):
                return layout
        raise ValueError(f"{self.name} '{name}' has no form of {size} bytes")

    def encode(self, name: str, kind: str, fields: Mapping[str, int], size: int = 0) -> bytes:
        """The bytes of one instruction; fields not given are 0, or what the layout says of them.

        `size` picks the form where there are two (128: the long TIU form); the default is the short one.
        """
        layout = self.layout(name, size)
        bits = layout.kind_bits.get(kind)
        if bits is None:
            raise ValueError(f"{self.name} '{name}' has no kind '{kind}'; it has {', '.join(layout.kinds)}")
        return _with_fields(layout, bits, layout.filled(fields)).to_bytes(layout.size, "little")

    def ordered(self, name: str, code: bytes, order: Mapping[str, int]) -> bytes:
        """An encoded instruction with the fields of its place in the program, which were left out before."""
        layout = self.layout(name, len(code))
        return _with_fields(layout, int.from_bytes(code, "little"), order).to_bytes(layout.size, "little")

    def complete(self, name: str, kind: str, fields: Mapping[str, int]) -> Instruction:
        """What `decode` makes of what `encode` makes of an instruction in its short form."""
        layout = self.layout(name)
        return Instruction(name, kind, layout.complete(fields), layout.size)

    def decode(
        self, engine: Engine, data: bytes | memoryview, bodies: Bodies | None = None
    ) -> list[Instruction]:
        """The instructions of one engine's stream, up to its end instruction or the end of the data.

        Those that are alike but for id and wait have one of `bodies`, which streams may share.
        """
        data = bytes(data)
        out: list[Instruction] = []
        bodies = {} if bodies is None else bodies
        position = 0
        while position < len(data) and not (out and _is_end(out[-1])):
            out.append(self._decode_one(engine, data, position, bodies))
            position += out[-1].size
        return out

    def _decode_one(self, engine: Engine, data: bytes, position: int, bodies: Bodies) -> Instruction:
        head = int.from_bytes(data[position : position + 8], "little")
        layout, kind = self._identify(engine, head, position)
        if position + layout.size > len(data):
            raise ValueError(
                f"{layout.name}.{kind} at byte {position} is cut off: {layout.size} bytes expected"
            )
        bits = int.from_bytes(data[position : position + layout.size], "little")
        if bits & layout.reserved_mask:
            raise ValueError(f"{layout.name}.{kind} at byte {position} has reserved bits set")
        (id_offset, id_mask), (wait_offset, wait_mask) = layout.order_places
        key = layout.name, layout.size, bits & ~layout.order_mask
        body = bodies.get(key)
        if body is None:
            fields = {name: key[2] >> offset & mask for name, (offset, mask) in layout.places.items()}
            body = bodies[key] = Instruction(layout.name, kind, fields, layout.size)
        return body.placed((bits >> id_offset & id_mask, bits >> wait_offset & wait_mask))

    def _identify(self, engine: Engine, head: int, position: int) -> tuple[Layout, str]:
        """The layout and the kind that the first 64 bits name."""
        found = self._named(engine, head & self._identity_masks[engine])
        if found is None:
            raise ValueError(
                f"{self.name} has no {engine} instruction like the one at byte {position}: {head:#018x}"
            )
        return found

    @cached_property
    def _identity_masks(self) -> dict[str, int]:
        """Of each engine, the bits that name an instruction in any of its layouts."""
        masks = dict.fromkeys(OPCODE_FIELD, 0)
        for layout in chain.from_iterable(self._opcodes.values()):
            masks[layout.engine] |= layout.identity_mask
        return masks

    def _find_named(self, engine: Engine, head: int) -> tuple[Layout, str] | None:
        opcode = head >> 41 & 15 if engine == "tiu" else head >> 32 & 15
        for layout in self._opcodes.get((engine, opcode), ()):
            if all(_read(layout, name, head) == value for name, value in layout.flags.items()):
                code = head >> layout.kind_field.offset & layout.kind_field.mask
                for kind, known in layout.kinds.items():
                    if known == code:
                        return layout, kind
        return None


@cache
def isa_for(spec: ChipSpec) -> Isa:
    """The instruction set of a chip."""
    return Isa(spec.name, spec.instructions)


def _read(layout: Layout, name: str, bits: int) -> int:
    f = layout.identity[name]
    return bits >> f.offset & f.mask


def _with_fields(layout: Layout, bits: int, fields: Mapping[str, int]) -> int:
    """The bits with fields that were 0 before."""
    places = layout.places
    for key, value in fields.items():
        offset, mask = places.get(key, NOWHERE)
        if not 0 <= value <= mask:
            _fail_field(layout, key, value)
        bits |= int(value) << offset
    return bits


def _fail_field(layout: Layout, name: str, value: int) -> NoReturn:
    f = layout.fields.get(name)
    if f is None:
        raise ValueError(f"'{layout.name}' has no field '{name}'")
    raise ValueError(f"'{layout.name}' field '{name}' is {value}, which does not fit {f.width} bits")


def _is_end(instruction: Instruction) -> bool:
    return instruction.kind == "end" and instruction.name in ("sys", "dma_sys")
