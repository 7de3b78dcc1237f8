"""model.safetensors: the length, the header, the data."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.case import Case
from tests.fuzz.checks import compiled_file, computes_as_the_model, must_be_refused
from tests.fuzz.mutate import NUMBERS, cut, short, spoil_bytes, spoil_json
from tests.fuzz.samples import FAMILIES, FLAGS, MODES, Samples

DTYPES = ("F16", "F32", "F64", "I8", "BOOL", "F8_E4M3", "F4", "C64", "bf16", 3, None)
WORDS = {"NaN": b"\xc0\x7f", "infinity": b"\x80\x7f", "3e38": b"\x7f\x7f", "1e-40": b"\x01\x00"}  # of bf16
CHECKS = {  # of what these words are in; else the file computes as the model
    "NaN": must_be_refused,
    "infinity": must_be_refused,
    "3e38": compiled_file,  # finite, and beyond f16: what is computed with it is nobody's right or wrong
}


def make(rng: Random, folder: Path, samples: Samples) -> Case:
    path = samples.copy_checkpoint(folder, rng.choice(FAMILIES)) / "model.safetensors"
    data, what = rng.choice(SPOILERS)(rng, path.read_bytes())
    path.write_bytes(data)
    flags = [*FLAGS, "-q", rng.choice(MODES)]
    check = CHECKS.get(what.partition(" ")[0], computes_as_the_model)
    return Case(f"safetensors: {what}", "llm_convert", flags, results=("out",), check=check)


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header's object, and the data."""
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header: str, data: bytes) -> bytes:
    text = header.encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def header_length(rng: Random, data: bytes) -> tuple[bytes, str]:
    (length,) = struct.unpack_from("<Q", data)
    other = rng.choice((length + 1, length - 1, length + 8, length - 8, len(data), *NUMBERS)) % 2**64
    return struct.pack("<Q", other) + data[8:], f"header length {length} -> {other}"


def header_json(rng: Random, data: bytes) -> tuple[bytes, str]:
    header, rest = split(data)
    text, what = spoil_json(rng, header)
    return join(text, rest), f"header {what}"


def tensor_entry(rng: Random, data: bytes) -> tuple[bytes, str]:
    """One field of one tensor is another number, type or place; overlaps and holes among them."""
    header, rest = split(data)
    key = rng.choice([key for key in header if key != "__metadata__"])
    entry, other = header[key], header[rng.choice([key for key in header if key != "__metadata__"])]
    start, stop = entry["data_offsets"]
    shift = rng.choice((-2, 2, 64, -64, stop - start))
    name, value = rng.choice((
        ("data_offsets", [start + shift, stop + shift]),
        ("data_offsets", other["data_offsets"]),
        ("data_offsets", [stop, start]),
        ("data_offsets", [start, rng.choice(NUMBERS)]),
        ("shape", entry["shape"][::-1]),
        ("shape", [*entry["shape"], 1]),
        ("shape", [rng.choice(NUMBERS), *entry["shape"][1:]]),
        ("shape", other["shape"]),
        ("dtype", rng.choice(DTYPES)),
    ))  # fmt: skip
    entry[name] = value
    return join(json.dumps(header), rest), f"{key}.{name} = {short(value)}"


def header_bytes(rng: Random, data: bytes) -> tuple[bytes, str]:
    (length,) = struct.unpack_from("<Q", data)
    return spoil_bytes(rng, data, 0, 8 + length)


def values(rng: Random, data: bytes) -> tuple[bytes, str]:
    """One weight is a number that no other is like."""
    start = len(data) - len(split(data)[1])
    name, at = rng.choice(list(WORDS)), start + 2 * rng.randrange((len(data) - start) // 2)
    return data[:at] + WORDS[name] + data[at + 2 :], f"{name} at byte {at}"


def norm_value(rng: Random, data: bytes) -> tuple[bytes, str]:
    """The same in a vector, which is not quantized."""
    header, rest = split(data)
    vectors = [key for key, entry in header.items() if len(entry.get("shape", ())) == 1]
    key, name = rng.choice(vectors), rng.choice(list(WORDS))
    at = len(data) - len(rest) + rng.randrange(*header[key]["data_offsets"], 2)
    return data[:at] + WORDS[name] + data[at + 2 :], f"{name} in {key}"


def trailing(rng: Random, data: bytes) -> tuple[bytes, str]:
    size = rng.choice((1, 2, 64, 4096))
    return data + rng.randbytes(size), f"{size} bytes more"


def other_format(rng: Random, data: bytes) -> tuple[bytes, str]:
    start = rng.choice((b"PK\x03\x04", b"\x80\x02}q", b"version https://git-lfs", b"GGUF\3\0\0\0", b"\0" * 8))
    return start + data[len(start) :], f"starts with {start!r}"


SPOILERS = (
    header_length, header_json, header_json, tensor_entry, tensor_entry, tensor_entry, header_bytes,
    values, norm_value, cut, trailing, other_format,
)  # fmt: skip
