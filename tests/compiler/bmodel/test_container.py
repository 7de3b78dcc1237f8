"""What a bmodel holds: sizes that are worked out, blobs in chunks, and the embedding that belongs to it."""

import pytest

from compiler.bmodel import BytesBlob, TensorInfo
from compiler.bmodel.container import CHUNK_BYTES, VERSION
from tests.compiler.bmodel.models import model, stage


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [("bf16", (1, 3, 5), 30), ("i4", (3,), 2), ("ui4", (2, 2), 2), ("f32", (), 4), ("i8", (0, 7), 0)],
)
def test_the_bytes_of_a_tensor_are_whole(dtype, shape, size):
    assert TensorInfo("x", dtype, 0, shape).size == size


def test_a_size_that_is_given_stays():
    assert TensorInfo("x", "bf16", 0, (1, 3, 5), size=4096).size == 4096


def test_bytes_come_in_chunks():
    data = bytes(range(256)) * (CHUNK_BYTES // 128 + 1)
    chunks = list(BytesBlob(data).chunks())
    assert [len(chunk) for chunk in chunks] == [CHUNK_BYTES, CHUNK_BYTES, 256]
    assert b"".join(chunks) == data


def test_the_version_names_the_embedding():
    plain = model(stage())
    marked = plain.with_embedding("ab" * 32).with_embedding("cd" * 32)
    assert (plain.embedding_sha256, marked.embedding_sha256) == ("", "cd" * 32)
    assert marked.version.startswith(VERSION)
    assert marked.nets == plain.nets


def test_nets_are_found_by_name():
    two = model(stage(), stage())
    assert two.net("net_1") is two.nets[1]
    assert (two.has_net("net_1"), two.has_net("net_2")) == (True, False)
