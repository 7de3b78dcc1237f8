"""Encoding and decoding of single instructions and streams."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from compiler.target.chips import chip
from compiler.target.isa import Instruction, PerBody, isa_for, split_address
from compiler.target.layout import ORDER_FIELDS

TABLES = {name: chip(name).instructions for name in ("bm1684x", "bm1688")}
ISAS = {name: isa_for(chip(name)) for name in TABLES}
X = ISAS["bm1684x"]


@st.composite
def instructions(draw):
    """Any instruction of any set, every field anything that fits."""
    name = draw(st.sampled_from(list(TABLES)))
    layout = draw(st.sampled_from(TABLES[name]))
    kind = draw(st.sampled_from(list(layout.kinds)))
    fields = {f: draw(st.integers(0, field.mask)) for f, field in layout.fields.items()}
    return ISAS[name], layout.engine, Instruction(layout.name, kind, fields, layout.size)


@given(instructions())
def test_decoding_undoes_encoding(case):
    isa, engine, instruction = case
    data = isa.encode(instruction.name, instruction.kind, instruction.fields, instruction.size)
    assert len(data) == instruction.size
    (decoded,) = isa.decode(engine, data)
    assert decoded == instruction
    assert decoded.engine == engine
    assert decoded.size == instruction.size


@given(instructions(), st.data())
def test_the_order_may_be_put_into_what_was_encoded_without_it(case, data):
    isa, _, whole = case
    order = {name: whole.fields[name] for name in ORDER_FIELDS if name in whole.fields}
    others = {name: 0 if name in order else value for name, value in whole.fields.items()}
    code = isa.encode(whole.name, whole.kind, others, whole.size)
    assert isa.ordered(whole.name, code, order) == isa.encode(whole.name, whole.kind, whole.fields, whole.size)


@given(instructions(), st.data())
def test_bodies_tell_instructions_apart_by_all_but_their_order(case, data):
    isa, engine, whole = case
    assume(whole.kind != "end")  # nothing is decoded behind it
    name = data.draw(st.sampled_from(list(whole.fields)))
    value = data.draw(st.integers(0, isa.layout(whole.name, whole.size).fields[name].mask))
    fields = ({**whole.fields, name: given} for given in (whole.fields[name], value))
    stream = b"".join(isa.encode(whole.name, whole.kind, each, whole.size) for each in fields)
    first, second = isa.decode(engine, stream)
    assert second.fields == {**whole.fields, name: value}
    assert (first.body is second.body) == (name in ORDER_FIELDS or value == whole.fields[name])


@given(instructions())
def test_an_instruction_says_its_id_and_wait_before_its_fields_are_put_together(case):
    isa, engine, whole = case
    bodies = {}
    code = isa.encode(whole.name, whole.kind, whole.fields, whole.size)
    (decoded,), (again,) = (isa.decode(engine, code, bodies) for _ in range(2))
    assert (decoded.id, decoded.wait) == tuple(whole.fields.get(name, 0) for name in ORDER_FIELDS)
    assert "fields" not in vars(decoded)
    assert decoded == whole
    assert decoded.body is again.body  # streams share them
    assert list(bodies.values()) == [decoded.body]


def test_what_is_known_of_a_body_is_worked_out_once():
    asked = []
    stream = b"".join(X.encode("ar", "add", {"cmd_id": i, "res0_addr": 64 * (i % 2)}) for i in range(1, 5))
    known = PerBody(lambda instruction: asked.append(instruction.fields["res0_addr"]) or len(asked))
    assert [known(each) for each in X.decode("tiu", stream)] == [1, 2, 1, 2]
    assert asked == [64, 0]


def test_what_was_changed_after_decoding_has_no_body():
    (decoded,) = X.decode("tiu", X.encode("ar", "add", {"res0_addr": 64}))
    assert decoded.body
    assert replace(decoded, fields={**decoded.fields, "res0_addr": 128}).body is None


@given(instructions(), st.data())
def test_what_is_decoded_is_known_without_encoding(case, data):
    isa, engine, whole = case
    assume(isa.layout(whole.name).size == whole.size)  # the form that is meant where no size is given
    names = data.draw(st.sets(st.sampled_from(list(whole.fields))))
    given = {name: whole.fields[name] for name in names}
    completed = isa.complete(whole.name, whole.kind, given)
    (decoded,) = isa.decode(engine, isa.encode(whole.name, whole.kind, given))
    assert completed == decoded
    assert (completed.size, list(completed.fields)) == (decoded.size, list(decoded.fields))


@pytest.mark.parametrize(("isa", "layout"), [(isa, layout) for isa in TABLES for layout in TABLES[isa]])
def test_fields_fill_whole_words_and_have_names_of_their_own(isa, layout):
    last = layout.all_fields[-1]
    names = [f.name for f in layout.all_fields if f.name != "-"]
    assert (last.offset + last.width) % 32 == 0
    assert len(set(names)) == len(names)


def bits(data, offset, width):
    return int.from_bytes(data, "little") >> offset & (1 << width) - 1


def test_an_addition_lies_in_its_documented_bits():
    data = X.encode(
        "ar", "add", {"cmd_id": 7, "cmd_id_dep": 5, "res0_prec": 2, "res0_c": 64, "opd1_addr": 0x4040}
    )
    assert len(data) == 64
    wanted = {(0, 1): 1, (1, 20): 7, (21, 20): 5, (41, 4): 3, (45, 5): 2, (55, 4): 1, (64, 3): 2}
    wanted |= {(112, 16): 64, (224, 32): 0x4040}
    assert {place: bits(data, *place) for place in wanted} == wanted


def test_a_transfer_lies_in_its_documented_bits():
    fields = {"cmd_id": 9, "src_data_format": 5, "src_csize": 3} | split_address("dst", 0x1_0800_0040)
    data = X.encode("dma_tensor", "broadcast", fields)
    assert len(data) == 96
    wanted = {
        (3, 1): 0,
        (9, 20): 9,
        (36, 3): 3,
        (40, 3): 5,
        (400, 16): 3,
        (576, 32): 0x0800_0040,
        (608, 8): 1,
    }
    assert {place: bits(data, *place) for place in wanted} == wanted


def test_all_lanes_take_part_unless_told_otherwise():
    assert bits(X.encode("dma_gather", "copy", {}), 704, 64) == (1 << 64) - 1
    assert bits(X.encode("dma_gather", "copy", {"localmem_mask_h32": 0}), 704, 64) == (1 << 32) - 1


def test_bm1688_products_have_no_bias_and_its_pooling_stores_no_positions():
    isa = ISAS["bm1688"]
    assert bits(isa.encode("mm2", "nn", {}), 63, 1) == 1
    assert bits(isa.encode("pord", "maxpooling", {}), 352, 32) == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("name", "kind", "field", "source"),
    [("mm2", "nn", "opd1_prec", "opd0_prec"), ("pord", "maxpooling", "res0_sign", "opd0_sign")],
)
def test_what_bm1688_asks_for_twice_is_the_same_unless_told_otherwise(name, kind, field, source):
    isa = ISAS["bm1688"]
    for fields, expected in (({}, 0), ({source: 1}, 1), ({source: 1, field: 0}, 0)):
        (instruction,) = isa.decode("tiu", isa.encode(name, kind, fields))
        assert instruction.fields[field] == expected


def test_an_address_is_split_and_joined():
    (transfer,) = X.decode("dma", X.encode("dma_matrix", "copy", split_address("src", 0xAB_1234_5678)))
    assert transfer.address("src") == 0xAB_1234_5678


@pytest.mark.parametrize(
    ("name", "kind", "fields", "message"),
    [
        ("ar", "add", {"res0_m": 1}, "'ar' has no field 'res0_m'"),
        ("ar", "add", {"res0_c": 65536}, "'res0_c' is 65536, which does not fit 16 bits"),
        ("ar", "add", {"opd2_n_str": -1}, "'opd2_n_str' is -1"),
        ("ar", "plus", {}, "no kind 'plus'; it has mul, not, add"),
        ("dot", "add", {}, "no instruction 'dot'"),
        ("ar", "add", {"tsk_typ": 3}, "no field 'tsk_typ'"),
    ],
)
def test_what_cannot_be_encoded_is_named(name, kind, fields, message):
    with pytest.raises(ValueError, match=message):
        X.encode(name, kind, fields)


def test_a_form_that_does_not_exist_is_refused():
    assert len(X.encode("ar", "add", {}, size=128)) == 128
    with pytest.raises(ValueError, match="no form of 96 bytes"):
        X.encode("ar", "add", {}, size=96)


@pytest.mark.parametrize(("engine", "end"), [("tiu", "sys"), ("dma", "dma_sys")])
def test_a_stream_ends_with_its_end_instruction(engine, end):
    data = X.encode(end, "nop", {}) + X.encode(end, "end", {}) + bytes(96)
    assert [i.kind for i in X.decode(engine, data)] == ["nop", "end"]


def test_damaged_streams_are_refused():
    good = X.encode("tsbc", "cw_ts", {})
    with pytest.raises(ValueError, match=r"tsbc\.cw_ts at byte 32 is cut off"):
        X.decode("tiu", good + good[:20])
    with pytest.raises(ValueError, match="no tiu instruction like the one at byte 32"):
        X.decode("tiu", good + b"\0\0\0\0\0\x16\0\0" * 4)
    with pytest.raises(ValueError, match="reserved bits"):
        X.decode("tiu", good[:20] + b"\xff" * 4 + good[24:])


def test_an_instruction_shows_what_is_set():
    (copy,) = X.decode("tiu", X.encode("ar", "copy", {"res0_c": 3}))
    assert str(copy) == "ar.copy cmd_id_en=1 res0_c=3"
