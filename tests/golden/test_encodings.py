"""The bits of every field and kind of every instruction, so that fields which change places are seen.

What the files say agrees with the reference and with the vendor's own streams
(`tests/compiler/target/test_reference.py`, which needs data beside the repository); this test needs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compiler.target.chips import chip
from compiler.target.isa import Isa, isa_for
from compiler.target.layout import Layout

CHIPS = ("bm1684x", "bm1688")


def rows(layout: Layout) -> list[dict[str, int]]:
    """Values for all fields of a form, row after row, such that no two fields have equal ones in every row.

    Fields of one width are numbered by their names; row r holds digit r of each number, in the largest base whose
    digits fit that width. So a field of 8 bits says all in the first row, a flag needs a row for each binary digit.
    """
    numbers: dict[str, tuple[int, int]] = {}
    for width in {field.width for field in layout.fields.values()}:
        alike = sorted(name for name, field in layout.fields.items() if field.width == width)
        numbers |= {name: (number, 1 << width) for number, name in enumerate(alike, 1)}
    flags = sum(base == 2 for _, base in numbers.values())
    return [
        {name: number // base**row % base for name, (number, base) in numbers.items()}
        for row in range(max(1, flags.bit_length()))
    ]


def words(data: bytes) -> str:
    """The 32-bit words of an instruction that are not zero, by their number."""
    values = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
    return " ".join(f"{number}:{value:08x}" for number, value in enumerate(values) if value)


def lines(isa: Isa, layout: Layout, bits_known: bool) -> Iterator[str]:
    form, first = f"{layout.name} {layout.size}", next(iter(layout.kinds))
    for kind in layout.kinds:
        yield f"{form} {kind}: {words(isa.encode(layout.name, kind, {}, layout.size))}"
    for row, values in enumerate([] if bits_known else rows(layout)):
        yield f"{form} row {row}: {words(isa.encode(layout.name, first, values, layout.size))}"


def text(name: str) -> str:
    """Each kind of each form with no field set, then the fields' values; for a layout that several have, once."""
    seen: set[str] = set()
    out = []
    for layout in chip(name).instructions:
        out += lines(isa_for(chip(name)), layout, layout.text in seen)
        seen.add(layout.text)
    return "\n".join(out) + "\n"


@pytest.mark.parametrize("name", CHIPS)
def test_every_field_lies_where_it_was_verified(golden, name):
    golden(f"encodings.{name}.txt", text(name))


@pytest.mark.parametrize("name", CHIPS)
def test_no_two_fields_could_change_places_unseen(name):
    for layout in chip(name).instructions:
        values = rows(layout)
        columns = [(field.width, *(row[field.name] for row in values)) for field in layout.fields.values()]
        assert len(set(columns)) == len(columns), layout.name
