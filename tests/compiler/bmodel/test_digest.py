"""The hash of a file: what it guards, and files without one."""

import random
import struct

import pytest

from compiler.diagnostics import UserError
from tests.compiler.bmodel.models import read_bytes


def test_every_bit_of_header_description_and_streams_counts(tmp_path, good):
    rng = random.Random(1)
    end = 64 + struct.unpack_from("<I", good, 8)[0]
    places = [*range(64), *rng.sample(range(64, end), 100), *rng.sample(range(end, end + 2 * 4096), 100)]
    for place in places:
        data = bytearray(good)
        data[place] ^= 1 << rng.randrange(8)
        with pytest.raises(UserError):
            read_bytes(tmp_path, data)


def test_bytes_after_the_end_count(tmp_path, good):
    with pytest.raises(UserError, match="damaged"):
        read_bytes(tmp_path, good + b"more")


def test_a_file_without_a_digest_is_read_and_known_as_such(tmp_path, good):
    assert read_bytes(tmp_path, good).has_digest
    assert not read_bytes(tmp_path, good[:32] + bytes(32) + good[64:]).has_digest
