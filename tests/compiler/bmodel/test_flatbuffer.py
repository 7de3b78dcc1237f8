"""Records to flatbuffers and back; what is crafted to be read without end is refused."""

import struct

import pytest

from compiler.bmodel.flatbuffer import decode, encode
from compiler.diagnostics import UserError


def test_a_list_that_many_tables_share_is_not_read_for_each():
    """Small as a file, without end as objects: the list of nets names one and the same, with a long list."""
    long, short = ({"name": "n", "parameter": [{"ctx_sizes": [1] * size}]} for size in (1000, 1))
    bomb = bytearray(encode({"chip": "", "net": [long] + [short] * 2000}))
    (nets,) = (at for at in range(0, 400, 4) if struct.unpack_from("<I", bomb, at)[0] == 2001)
    target = nets + 4 + struct.unpack_from("<I", bomb, nets + 4)[0]
    assert len(decode(bomb)["net"][0]["parameter"][0]["ctx_sizes"]) == 1000
    for at in range(nets + 4, nets + 4 + 4 * 2001, 4):
        struct.pack_into("<I", bomb, at, target - at)
    with pytest.raises(UserError, match="without end"):
        decode(bomb)


RECORD = {
    "chip": "BM1684X",
    "device_num": 3,
    "neuron_size": (1 << 64) - 1,
    "net": [
        {"name": "a", "addr_mode": -1, "parameter": [{"ctx_sizes": [1, 1 << 40], "core_num": 2}]},
        {"name": "", "parameter": [{"coeff_mem": {"check_code": b"\0\xff", "binary_coeff": (4096, 5)}}]},
    ],
}


def written(record, found):
    """What `found` has of the fields that `record` has."""
    if isinstance(record, list):
        return [written(one, other) for one, other in zip(record, found, strict=True)]
    if isinstance(record, dict):
        return {name: written(value, found[name]) for name, value in record.items()}
    return found


def test_a_record_is_read_back():
    found = decode(encode(RECORD))
    assert written(RECORD, found) == RECORD


def test_what_is_left_out_has_its_default():
    found = decode(encode({"chip": "c", "net": [{"name": "n"}]}))
    assert (found["device_num"], found["version"], found["net"][0]["parameter"]) == (0, "", [])
    assert found["net"][0]["cascade"] is None


def test_a_field_that_the_schema_does_not_have_is_a_mistake():
    with pytest.raises(KeyError, match=r"Net has no field \['nam'\]"):
        encode({"net": [{"nam": "n"}]})


def test_numbers_do_not_change_the_length():
    """The writer lays out the file before it knows where binaries lie."""
    lengths = {len(encode({"net": [{"parameter": [{"ctx_addr": at}]}]})) for at in (1, 1 << 40, (1 << 64) - 1)}
    assert len(lengths) == 1
