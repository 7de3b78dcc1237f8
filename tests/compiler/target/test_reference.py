"""Our tables beside the reference kept outside the repository, and the vendor's own streams through them."""

import json
from pathlib import Path

import pytest

from compiler.bmodel import read_bmodel
from compiler.target.chips import chip
from compiler.target.isa import isa_for

SHARED = Path(__file__).resolve().parents[4] / "shared"
CHIPS = ("bm1684x", "bm1688")
# Names of the reference that are not simply ours in capitals.
NAMES = {"TRANS&BC": "tsbc", "CW&BC": "tsbc", "RQ&DQ": "rqdq", "SYSID": "sys"}
# Ours are the same on all chips: the reference marks BM1688's fields, swaps the halves of matrix addresses, and
# gives a few fields a second meaning in the same place.
PREFIXES = ("opt_", "short_")
HALVES = {"start_addr_h32": "start_addr_l32", "start_addr_l8": "start_addr_h8"}
# Padding in the reference that we name after the field it is in the other long forms.
NAMED_PADDING = {"pad_mode", "res0_sign"}

pytestmark = pytest.mark.shared


def shared(path):
    full = SHARED / path
    if not full.exists():
        pytest.skip(f"NOT RUN: {full} is missing")
    return full


def our_name(name):
    short = name.replace("sTRANS&sBC", "TRANS&BC").replace("sCW&sBC", "CW&BC").replace("sRQ&sDQ", "RQ&DQ")
    short = short.removeprefix("s") if short[0] == "s" else short
    return NAMES.get(short, short.lower())


def our_field(name):
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    for theirs, ours in HALVES.items():
        name = name.replace(theirs, ours)
    return name.split("/")[0].split("\uff08")[0]


def fields_of(entry):
    named = [(our_field(n), o, w) for n, o, w in entry["fields"]]
    return {field for field in named if not field[0].startswith(("_rsvd", "reserved"))}


@pytest.mark.parametrize("name", CHIPS)
def test_layouts_are_those_of_the_reference(name):
    isa, compared = isa_for(chip(name)), 0
    for entry in json.loads(shared(f"reference/isa_{name}.json").read_text())["instructions"]:
        if our_name(entry["name"]) not in isa.names or entry["name"].startswith("sDMA_") != (
            entry["name"] == "sDMA_sys"
        ):
            continue  # forms that no program uses
        if our_name(entry["name"]) == "seg" and entry["form"] == "long":
            continue
        layout = isa.layout(our_name(entry["name"]), entry["total_bytes"])
        ours = {(f.name, f.offset, f.width) for f in layout.all_fields if f.name != "-"}
        assert {f for f in ours ^ fields_of(entry) if f[0] not in NAMED_PADDING} == set(), entry["name"]
        assert entry["opcode"] in (layout.opcode, None)
        compared += 1
    assert compared > 30


@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize("net", ["block_0", "block_cache_0"])
def test_the_vendors_streams_are_written_back_byte_for_byte(name, net):
    isa = isa_for(chip(name))
    (stage,) = read_bmodel(shared(f"data/vendor_programs/{name}/{net}.bmodel")).net(net).stages
    for core in stage.cores:
        for engine, stream, count in (("tiu", core.tiu, core.tiu_count), ("dma", core.dma, core.dma_count)):
            decoded = isa.decode(engine, stream)
            again = b"".join(isa.encode(i.name, i.kind, i.fields, i.size) for i in decoded)
            assert len(decoded) == count
            assert again + bytes(-len(again) % 128) == stream
