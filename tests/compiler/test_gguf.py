"""What stands before the data of a GGUF file, and what is wrong with files that are none."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFEndian, GGUFReader, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.diagnostics import UserError
from compiler.gguf import read_gguf
from tests.ggufs import finish, make_gguf


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return make_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", "qwen2", Kind.Q4_1, rope__scaling__type="none")


def test_all_is_found_that_the_formats_own_reader_finds(whole):
    file, reader = read_gguf(whole), GGUFReader(whole)
    assert list(file.tensors) == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        found = file.tensors[tensor.name]
        assert (found.kind, found.start, found.nbytes) == (tensor.tensor_type, tensor.data_offset, tensor.n_bytes)
        assert found.shape == tuple(reversed(tensor.shape.tolist()))
    for key, field in reader.fields.items():
        if key.startswith("GGUF."):
            continue
        value = field.contents()
        texts = isinstance(value, list) and isinstance(value[0], str)
        assert file.metadata[key] == (len(value) if texts else tuple(value) if isinstance(value, list) else value)
    assert file.architecture == "qwen2"


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_gguf(path)
    text = str(caught.value)
    assert str(path) in text
    assert len(text.splitlines()) <= 3
    return text


@given(part=st.floats(0, 1))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_part_of_a_file_is_refused(whole, tmp_path, part):
    data = whole.read_bytes()
    text = refusal(tmp_path / "part.gguf", data[: int(part * (len(data) - 1))])
    assert any(words in text for words in ("was it copied whole?", "is empty", "does not begin with GGUF"))


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_spoilt_header_is_read_or_refused(whole, tmp_path, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(whole.read_bytes())
    for place in rng.integers(0, 2000, 3):
        data[place] = rng.choice([0, 1, 8, 9, 255, int(rng.integers(256))])
    path = tmp_path / "spoilt.gguf"
    path.write_bytes(data)
    with suppress(UserError):
        read_gguf(path)


def written(path: Path, **pairs: object) -> bytes:
    writer = GGUFWriter(path, str(pairs.pop("architecture", "llama")))
    for key, value in pairs.items():
        (writer.add_uint32 if isinstance(value, int) else writer.add_string)(key.replace("__", "."), value)
    finish(writer)
    return path.read_bytes()


def with_tensor(name: bytes, sizes: tuple[int, ...], kind: int, times: int = 1) -> bytes:
    """A file of version 3 with one pair, the architecture, and a tensor without data."""
    text = lambda value: struct.pack("<Q", len(value)) + value  # noqa: E731
    pair = text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
    tensor = text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, times, 1) + pair + tensor * times + bytes(64)


CASES = {
    "another kind of file": (b"PK\3\4" * 10, "is no GGUF file"),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "is of version 1 of GGUF, expected 2 or 3"),
    "counts beyond all": (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), f"ends before {1 << 60} tensors"),
    "no architecture": (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "has no general.architecture"),
    "an unknown type": (with_tensor(b"w", (32,), 99), "has tensor w of type 99, which is not known"),
    "part of a block": (with_tensor(b"w", (33,), 2), "has tensor w in rows of 33: no whole blocks"),
    "a tensor twice": (with_tensor(b"w", (1,), 0, 2), "has tensor w twice"),
    "a tensor beyond": (with_tensor(b"w", (1 << 40, 1 << 20), 0), "ends before tensor w, to byte"),
    "too many axes": (with_tensor(b"w", (1,) * 5, 0), "has tensor w of 5 axes, expected 1 to 4"),
    "a name that is no text": (with_tensor(b"\xff", (1,), 0), "has a text at a tensor's name that is not UTF-8"),
}


@pytest.mark.parametrize("case", CASES)
def test_odd_files_are_refused(tmp_path, case):
    data, words = CASES[case]
    assert words in refusal(tmp_path / "odd.gguf", data)


def test_parts_byte_orders_and_alignments_that_are_not_supported(tmp_path):
    path = tmp_path / "made.gguf"
    split = written(path, split__count=3, split__no=0)
    assert "is one of 3 parts: join them with llama-gguf-split --merge" in refusal(tmp_path / "split.gguf", split)
    assert read_gguf(Path(written_alone(path, split__count=1))).metadata["split.count"] == 1
    text = refusal(tmp_path / "odd.gguf", written(path, general__alignment=0))
    assert "has general.alignment 0, expected a number of bytes" in text
    writer = GGUFWriter(path, "llama", endianess=GGUFEndian.BIG)
    finish(writer)
    assert "is big-endian, which is not supported" in refusal(tmp_path / "big.gguf", path.read_bytes())


def written_alone(path: Path, **pairs: object) -> Path:
    written(path, **pairs)
    return path
