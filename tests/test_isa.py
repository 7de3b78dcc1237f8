"""The instruction sets: `encode` and `decode` are inverse, say what is wrong, and put the bits where the chips expect them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.chips import BM1684X, BM1688, CV186AH
from compiler.isa import Instruction, Isa, isa_for, split_address
from compiler.isa_tables import TABLES, Layout

SETS = {"bm1684x": isa_for(BM1684X), "bm1688": isa_for(BM1688)}
FORMS = [
    pytest.param(SETS[name], layout, id=f"{name}-{layout.name}-{layout.size}")
    for name, layouts in TABLES.items()
    for layout in layouts
]
# Bytes of the short TIU forms and of the system instructions; the other DMA instructions have 96.
SIZES = {
    "conv": 64, "pord": 64, "mm": 48, "mm2": 32, "ar": 64, "seg": 16, "rqdq": 32, "tsbc": 32, "sg": 48, "sgl": 48,
    "lar": 16, "sfu": 32, "lin": 32, "sys_tr_acc": 16, "cmp": 48, "vc": 48, "sys": 16, "dma_sys": 16,
}  # fmt: skip


@pytest.mark.parametrize(("isa", "layout"), FORMS)
def test_every_kind_decodes_to_what_was_encoded(isa: Isa, layout: Layout):
    engine = "dma" if layout.name.startswith("dma_") else "tiu"

    @settings(derandomize=True, max_examples=3, deadline=None, database=None)
    @given(st.binary(min_size=layout.size, max_size=layout.size))
    def check(noise: bytes) -> None:
        bits = int.from_bytes(noise, "little")
        fields = {}
        for name, field in layout.fields.items():
            bits, fields[name] = divmod(bits, 1 << field.width)
        for kind in layout.kinds:
            data = isa.encode(layout.name, kind, fields, layout.size)
            (got,) = isa.decode(engine, data)
            assert (got.name, got.kind, got.fields) == (layout.name, kind, fields)
            assert got.size == len(data) == layout.size
            assert got.engine == engine

    check()


@pytest.mark.parametrize(("isa", "layout"), FORMS)
def test_every_field_holds_its_widest_value_and_no_more(isa: Isa, layout: Layout):
    kind = next(iter(layout.kinds))
    engine = "dma" if layout.name.startswith("dma_") else "tiu"
    for name, field in layout.fields.items():
        full = (1 << field.width) - 1
        (got,) = isa.decode(engine, isa.encode(layout.name, kind, {name: full}, layout.size))
        assert got.fields == {key: layout.defaults.get(key, 0) for key in layout.fields} | {name: full}
        for value in (full + 1, -1):
            with pytest.raises(ValueError, match=rf"'{layout.name}' field '{name}' is {value}, .* {field.width} bits"):
                isa.encode(layout.name, kind, {name: value}, layout.size)


@pytest.mark.parametrize(("isa", "layout"), FORMS)
def test_fields_fill_the_form_without_overlapping(isa: Isa, layout: Layout):
    default = 96 if layout.name.startswith("dma_") else None
    assert layout.size in (SIZES.get(layout.name, default), 96 if default else 128)
    taken = [0] * (8 * layout.size)
    for field in layout.all_fields:
        for bit in range(field.offset, field.offset + field.width):
            taken[bit] += 1
    assert set(taken) == {1}
    assert len(layout.fields) + len(layout.identity) == sum(f.name != "-" for f in layout.all_fields)
    assert set(layout.defaults) <= set(layout.fields)


@pytest.mark.parametrize(("isa", "layout"), FORMS)
def test_unknown_fields_and_kinds_are_named(isa: Isa, layout: Layout):
    kind = next(iter(layout.kinds))
    for name in ("colour", "tsk_typ", "cmd_type", "-"):
        with pytest.raises(ValueError, match=rf"'{layout.name}' has no field '{name}'"):
            isa.encode(layout.name, kind, {name: 0}, layout.size)
    with pytest.raises(ValueError, match=rf"{isa.name} '{layout.name}' has no kind 'fly'; it has {kind}"):
        isa.encode(layout.name, "fly", {}, layout.size)
    with pytest.raises(ValueError, match=rf"{isa.name} '{layout.name}' has no form of 17 bytes"):
        isa.encode(layout.name, kind, {}, 17)


@pytest.mark.parametrize("isa", SETS.values(), ids=SETS)
def test_unknown_families_are_named(isa: Isa):
    with pytest.raises(ValueError, match=rf"{isa.name} has no instruction 'warp'"):
        isa.encode("warp", "copy", {})


def test_families_of_one_chip_only():
    only = {name: set(isa.names) for name, isa in SETS.items()}
    assert only["bm1684x"] - only["bm1688"] == {"seg", "lar"}
    assert only["bm1688"] - only["bm1684x"] == {"sys_tr_acc", "dma_reverse", "dma_compress", "dma_decompress"}
    assert isa_for(CV186AH).names == SETS["bm1688"].names


@pytest.mark.parametrize("isa", SETS.values(), ids=SETS)
@pytest.mark.parametrize(("engine", "work", "end"), [("tiu", ("ar", "add"), "sys"), ("dma", ("dma_tensor", "copy"), "dma_sys")])
def test_decoding_stops_at_the_end_command(isa: Isa, engine: str, work: tuple[str, str], end: str):
    stream = isa.encode(*work, {}) + isa.encode(end, "nop", {}) + isa.encode(end, "end", {"cmd_id_dep": 7})
    got = isa.decode(engine, memoryview(stream + b"\xff" * 40))
    assert [(i.name, i.kind) for i in got] == [work, (end, "nop"), (end, "end")]
    assert got[-1].fields["cmd_id_dep"] == 7


@pytest.mark.parametrize("isa", SETS.values(), ids=SETS)
def test_streams_without_an_end_command(isa: Isa):
    one = isa.encode("ar", "add", {})
    assert isa.decode("tiu", b"") == []
    assert len(isa.decode("tiu", one * 3)) == 3
    with pytest.raises(ValueError, match=r"ar.add at byte 64 is cut off: 64 bytes expected"):
        isa.decode("tiu", one + one[:40])


def test_bits_that_mean_nothing_are_errors():
    isa = SETS["bm1684x"]
    data = bytearray(isa.encode("ar", "add", {}))
    data[63] |= 0x80
    with pytest.raises(ValueError, match=r"ar.add at byte 0 has reserved bits set"):
        isa.decode("tiu", data)
    with pytest.raises(ValueError, match=r"bm1684x has no dma instruction like the one at byte 0: 0x0000000f00000000"):
        isa.decode("dma", (0xF << 32).to_bytes(16, "little"))
    with pytest.raises(ValueError, match=r"bm1684x has no tiu instruction"):
        isa.decode("tiu", (1 | 3 << 41 | 17 << 45).to_bytes(64, "little"))  # AR has no kind 17


def test_an_ar_add_byte_for_byte():
    data = SETS["bm1684x"].encode("ar", "add", {
        "cmd_id": 5, "cmd_id_dep": 3, "tsk_opd_num": 2, "res0_prec": 2, "opd0_prec": 2, "opd1_prec": 2, "opd1_str": 3,
        "res0_n": 1, "res0_c": 64, "res0_h": 2, "res0_w": 300, "res0_addr": 0x12345640, "opd0_addr": 0x40,
        "opd1_addr": 0x80000, "opd1_c_str": 0x1234, "opd1_h_str": 0xABCDE, "opd1_w_str": 1,
        "opd0_sign": 1, "res0_h_str": 0x11111, "res0_w_str": 0x22222, "opd0_h_str": 0x33333, "opd2_sign": 1, "opd0_w_str": 0x44444,
    })  # fmt: skip
    assert data == bytes.fromhex(
        "0b006000 0046c000"  # cmd_short 1, id 5 << 1, dep 3 << 21; typ 3 << 41, kind 2 << 45, opd_num 2 << 53, id_en 1 << 55
        "92103000 01004000"  # prec 2 at 64, 67 and 70, opd0_sign 1 << 76, opd1_str 3 << 84; n at 96, c at 112
        "02002c01 40563412"  # h at 128, w at 144; res0_addr at 160
        "40000000 00000800"  # opd0_addr at 192, opd1_addr at 224
        "00000000 00000000 00000000 00003412"  # opd1_c_str at 368
        "11112122 22333313 4444e4cd ab010000"  # h, w of res0 and h of opd0 at 384, 404, 424; 444; w, h, w at 448, 468, 488
    )


def test_a_dma_tensor_copy_byte_for_byte():
    data = SETS["bm1684x"].encode("dma_tensor", "copy", {
        "stride_enable": 1, "nchw_copy": 1, "cmd_id": 2, "cmd_id_dep": 0x12345, "src_data_format": 5,
        "src_nstride": 0x100, "src_cstride": 64, "src_hstride": 8, "src_wstride": 1, "dst_nstride": 7, "dst_wstride": 2,
        "src_nsize": 1, "src_csize": 3, "src_hsize": 8, "src_wsize": 0x1FF, "dst_wsize": 0x201,
        **split_address("src", 0x1_2345_6780), **split_address("dst", 0x0804_0040),
    })  # fmt: skip
    assert data == bytes.fromhex(
        "26040000 00050000"  # strides, nchw << 2, id_en 1 << 5, id 2 << 9; type 0 and kind 0, format 5 << 40
        "45230100 00000000"  # dep at 64; constant at 96
        "00010000 40000000 08000000 01000000"  # src strides from 128
        "07000000 00000000 00000000 02000000"  # dst strides from 256
        "01000300 0800ff01 00000000 00000102"  # sizes from 384
        "80674523 01000000 40000408 00000000"  # addresses, low word and high byte, at 512 and 576
        "00000000 00000000 ffffffff ffffffff"  # nothing; all lanes
    )


def test_end_commands_byte_for_byte():
    isa = SETS["bm1684x"]
    # TIU: id 9 << 1, typ 15 << 41, kind 31 << 45, id_en 1 << 55. DMA: cmd_short 1 << 3, id_en 1 << 5, id 9 << 9, type 6 << 32.
    assert isa.encode("sys", "end", {"cmd_id": 9, "cmd_id_en": 1}) == bytes.fromhex("12000000 00fe8300 00000000 00000000")
    assert isa.encode("dma_sys", "end", {"cmd_id": 9}) == bytes.fromhex("28120000 06000000 00000000 00000000")


def test_forms_are_picked_by_size():
    isa = SETS["bm1684x"]
    long = isa.encode("ar", "add", {}, size=128)
    assert (len(isa.encode("ar", "add", {})), len(long)) == (64, 128)
    (got,) = isa.decode("tiu", long)
    assert got.fields["tsk_lane_num"] == (1 << 64) - 1
    assert (isa.layout("ar").short, isa.layout("ar", 128).short) == (True, False)


@pytest.mark.parametrize("address", [0, 0xFFFF_FFFF, 0x1_0000_0000, 0xFF_FFFF_FFFF])
def test_addresses_split_and_join(address: int):
    fields = split_address("index", address)
    assert Instruction("dma_gather", "copy", fields).address("index") == address
    assert max(fields.values()) < 1 << 32


def test_an_instruction_prints_its_fields_that_are_not_zero():
    assert str(Instruction("ar", "add", {"res0_n": 1, "res0_c": 0, "opd0_addr": 64})) == "ar.add res0_n=1 opd0_addr=64"
