"""Files that are no bmodel, or were one: each ends in UserError, never in a crash or a loop."""

import random
import struct

import pytest

from compiler.bmodel import read_bmodel
from compiler.bmodel.flatbuffer import decode, encode
from compiler.diagnostics import UserError
from tests.compiler.bmodel.models import read_bytes


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"\xee\xaa\x55\xff", "shorter than the header"),
        (b"PK\3\4" + bytes(100), "not a bmodel: it starts with 0x04034b50"),
        (struct.pack("<IIIQ", 0xFF55AAEE, 64, 1 << 20, 0) + bytes(100), "truncated"),
        (struct.pack("<IIIQ", 0xFF55AAEE, 64, 40, 1 << 60) + bytes(100), "truncated"),
        (struct.pack("<IIIQ", 0xFF55AAEE, 0, 64, 0) + bytes(100), "truncated"),
        (struct.pack("<IIIQ", 0xFF55AAEE, 64, 0, 0) + bytes(100), "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, data, message):
    with pytest.raises(UserError, match=message):
        read_bytes(tmp_path, data)


def test_no_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_bmodel(tmp_path / "none")
    with pytest.raises(UserError, match="not a regular file"):
        read_bmodel(tmp_path)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, good, keep):
    with pytest.raises(UserError, match="truncated"):
        read_bytes(tmp_path, good[: int(len(good) * keep)])


def test_random_damage_is_refused_or_harmless(tmp_path, good):
    rng = random.Random(0)
    end = 64 + struct.unpack_from("<I", good, 8)[0]
    used = len(good[64:end].rstrip(b"\0"))
    refused = 0
    for _ in range(1500):
        data = bytearray(good)
        for _ in range(rng.choice([1, 4])):
            data[64 + rng.randrange(used)] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        try:
            read_bytes(tmp_path, data)
        except UserError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("net", 0, "addr_mode"), 9, "net net_0 has the unknown addr_mode 9"),
        (("net", 1, "name"), "net_0", "same name"),
        (("net", 0, "parameter"), [], "no program"),
        (("net", 0, "parameter", 0, "input_tensor", 0, "data_type"), 99, "tensor x .*unknown data type 99"),
        (("net", 0, "parameter", 0, "coeff_mem", "binary_coeff"), (0, 1 << 40), "net net_0 refers to bytes"),
        (("net", 0, "parameter", 0, "cmd_group", 0, "binary_bdc"), (1 << 40, 1), "refers to bytes"),
        (("net", 0, "parameter", 0, "coeff_mem", "encrypt_mode"), 1, "encrypted"),
    ],
)
def test_bad_values_are_named(tmp_path, good, path, value, message):
    with pytest.raises(UserError, match=message):
        read_bytes(tmp_path, changed(good, path, value))


def changed(good, path, value):
    """A file whose description has another value somewhere, and no digest."""
    end = 64 + struct.unpack_from("<I", good, 8)[0]
    record = prune(decode(good[64:end]))
    at = record
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    flatbuffer = encode(record)
    header = struct.pack("<IIIQ", 0xFF55AAEE, 64, len(flatbuffer), len(good) - end).ljust(64, b"\0")
    return header + flatbuffer + good[end:]


def prune(record):
    """A decoded record without the fields that were absent."""
    if isinstance(record, list):
        return [prune(item) for item in record]
    if isinstance(record, dict):
        return {name: prune(value) for name, value in record.items() if value is not None}
    return record


@pytest.mark.parametrize("name", ["a\x1b[2J", "two\nlines", "\u202eback", "a" * 300])
def test_names_that_cannot_be_printed_are_refused(tmp_path, good, name):
    for path in (("name",), ("parameter", 0, "input_tensor", 0, "name")):
        with pytest.raises(UserError, match=r"printable characters") as error:
            read_bytes(tmp_path, changed(good, ("net", 0, *path), name))
        assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("device", "devices", "main", "message"),
    [
        (3, 2, "m", "its nets are for other devices than the 2 that it is for"),
        (0, 1 << 30, "m", "its nets are for other devices"),
        (0, 2, "m\x1b", "the name of what net .* is a part of is"),
    ],
)
def test_cascades_that_cannot_be_are_refused(tmp_path, good, device, devices, main, message):
    cascade = {"device_id": device, "step": 0, "main_name": main}
    with pytest.raises(UserError, match=message):
        read_bytes(tmp_path, changed(changed(good, ("net", 0, "cascade"), cascade), ("device_num",), devices))
