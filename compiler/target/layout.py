"""How one instruction lies in its bits, as text: `name:width` from bit 0 up, `-:width` if reserved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Engine = Literal["tiu", "dma"]

# The fields that say which instruction it is, by engine. Encoding fills them; decoding leaves them out.
OPCODE_FIELD = {"tiu": "tsk_typ", "dma": "cmd_type"}
KIND_FIELD = {"tiu": "tsk_eu_typ", "dma": "cmd_special_function"}
ORDER_FIELDS = ("cmd_id", "cmd_id_dep")  # an instruction's number in its queue, and what it waits for
IDENTITY_FIELDS = {"tsk_typ", "tsk_eu_typ", "cmd_type", "cmd_special_function", "cmd_short"}


@dataclass(frozen=True)
class Field:
    """Bits [offset, offset + width) of an instruction, little endian."""

    name: str
    offset: int
    width: int

    @cached_property
    def mask(self) -> int:
        return (1 << self.width) - 1


@dataclass(frozen=True)
class Layout:
    """One instruction form: its opcode, its kinds (name to code) and its fields.

    Of the fields that the caller does not give, those in `defaults` have that value, those in `derived` the
    value of the field that they name there, and every other one is 0. `short` is the value of the short-form
    flag; an instruction without that flag in its bits has only one form.
    """

    name: str
    engine: Engine
    opcode: int
    kinds: Mapping[str, int]
    text: str
    defaults: Mapping[str, int]
    derived: Mapping[str, str] = field(default_factory=dict)
    short: bool = True

    @cached_property
    def all_fields(self) -> tuple[Field, ...]:
        """Every field in bit order, reserved ones (named `-`) included."""
        fields, offset = [], 0
        for item in self.text.split():
            name, width = item.split(":")
            fields.append(Field(name, offset, int(width)))
            offset += int(width)
        return tuple(fields)

    @cached_property
    def fields(self) -> dict[str, Field]:
        """The fields a caller may give, by name."""
        return {f.name: f for f in self.all_fields if f.name != "-" and f.name not in IDENTITY_FIELDS}

    def filled(self, fields: Mapping[str, int]) -> dict[str, int]:
        """The given fields, and of the others those that are not 0."""
        known = {**self.defaults, **fields}
        return {name: known[source] for name, source in self.derived.items() if source in known} | known

    def complete(self, fields: Mapping[str, int]) -> dict[str, int]:
        """Every field, in bit order: what is decoded where `fields` were encoded."""
        return self._zeros | self.filled(fields)

    @cached_property
    def _zeros(self) -> dict[str, int]:
        return dict.fromkeys(self.fields, 0)

    @cached_property
    def places(self) -> dict[str, tuple[int, int]]:
        """First bit and mask of each field that a caller may give, by name."""
        return {name: (f.offset, f.mask) for name, f in self.fields.items()}

    @cached_property
    def order_mask(self) -> int:
        """The bits of the fields that differ from each instruction to the next."""
        return sum(mask << offset for offset, mask in self.order_places)

    @cached_property
    def order_places(self) -> list[tuple[int, int]]:
        """First bit and mask of these fields; no bits for those that there are not."""
        return [self.places.get(name, (0, 0)) for name in ORDER_FIELDS]

    @cached_property
    def flags(self) -> dict[str, int]:
        """The identity fields apart from opcode and kind."""
        return {"cmd_short": int(self.short)} if "cmd_short" in self.identity else {}

    @cached_property
    def kind_bits(self) -> dict[str, int]:
        """The bits that name the instruction, by its kind."""
        bits = self.opcode << self.opcode_field.offset
        bits |= sum(value << self.identity[name].offset for name, value in self.flags.items())
        return {kind: bits | code << self.kind_field.offset for kind, code in self.kinds.items()}

    @cached_property
    def identity_mask(self) -> int:
        """The bits of the fields that name the instruction."""
        return sum(f.mask << f.offset for f in self.identity.values())

    @cached_property
    def identity(self) -> dict[str, Field]:
        """The fields that name the instruction: opcode, kind and short flag."""
        return {f.name: f for f in self.all_fields if f.name in IDENTITY_FIELDS}

    @cached_property
    def reserved_mask(self) -> int:
        """The bits that belong to no field."""
        return sum(f.mask << f.offset for f in self.all_fields if f.name == "-")

    @cached_property
    def size(self) -> int:
        """Bytes of the instruction."""
        last = self.all_fields[-1]
        return (last.offset + last.width) // 8

    @property
    def opcode_field(self) -> Field:
        return self.identity[OPCODE_FIELD[self.engine]]

    @property
    def kind_field(self) -> Field:
        return self.identity[KIND_FIELD[self.engine]]
