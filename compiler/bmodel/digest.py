"""The sha256 of what has none of its own in a bmodel: header, description, instructions and padding.

The weights are left out: each blob's hash is in the description. It stands in bytes of the header that the
vendor's files leave zero and its runtime does not read, so a file may be without it.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator

from compiler.bmodel.flatbuffer import BinaryRange, Record
from compiler.bmodel.schema import HEADER_BYTES

DIGEST_AT = HEADER_BYTES - hashlib.sha256().digest_size
ABSENT = bytes(hashlib.sha256().digest_size)


def digest_of(file: memoryview, weights: Iterable[BinaryRange]) -> bytes:
    """The digest of a whole file; `weights` are the ranges of its binary section that have their own."""
    header_bytes, flatbuffer_bytes = struct.unpack_from("<II", file, 4)
    base = header_bytes + flatbuffer_bytes
    known = [(DIGEST_AT, HEADER_BYTES), *((base + start, base + start + size) for start, size in weights)]
    digest = hashlib.sha256()
    for start, end in _gaps(known, len(file)):
        digest.update(file[start:end])
    return digest.digest()


def recorded_digest(file: memoryview) -> bytes:
    """What the header says; ABSENT in files of the vendor's compiler."""
    return bytes(file[DIGEST_AT:HEADER_BYTES])


def weight_ranges(model: Record) -> list[BinaryRange]:
    """Where the blobs are that a description lists with a hash."""
    stages = [stage for net in model["net"] for stage in net["parameter"]]
    blobs = [stage["coeff_mem"] for stage in stages if stage.get("coeff_mem")]
    return [blob["binary_coeff"] for blob in blobs if blob["binary_coeff"]]


def _gaps(ranges: Iterable[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """What of [0, size) is in none of the ranges."""
    reached = 0
    for start, end in sorted(ranges):
        if start > reached:
            yield reached, min(start, size)
        reached = max(reached, end)
    if reached < size:
        yield reached, size
