"""Writing a file: what is written is read back, once each, and nothing is left when it fails."""

import errno
import hashlib
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from compiler.bmodel import (
    AddrMode,
    BModel,
    BytesBlob,
    CommandStreams,
    Net,
    read_bmodel,
    write_bmodel,
)
from compiler.diagnostics import UserError
from tests.compiler.bmodel.models import DDR, DMA, TIU, GeneratedBlob, model, stage
from tests.runtime_sim.check.cascades import toy_cascade


def read_back(tmp_path: Path, bmodel: BModel) -> BModel:
    write_bmodel(tmp_path / "m.bmodel", bmodel)
    return read_bmodel(tmp_path / "m.bmodel")


@pytest.mark.parametrize("chip", ["BM1684X", "BM1688", "CV186X"])
def test_everything_written_is_read_back(tmp_path, chip):
    blob = BytesBlob(bytes(range(256)) * 20)
    written = stage(blob, io_address=DDR + 65536, io_size=4096)
    read = read_back(tmp_path, BModel(chip, [Net("block_0", AddrMode.IO_ALONE, [written])], device_num=2))
    (net,) = read.nets
    (back,) = net.stages
    assert (read.chip, read.device_num, net.name, net.addr_mode) == (chip, 2, "block_0", AddrMode.IO_ALONE)
    for name in ("inputs", "outputs", "ctx_address", "ctx_size", "cores", "io_address", "io_size"):
        assert getattr(back, name) == getattr(written, name)
    assert bytes(back.coeff.blob.data) == blob.data
    assert back.coeff.check_code == hashlib.sha256(blob.data).digest()
    assert (back.coeff.address, back.coeff.locations) == (DDR - 4096, written.coeff.locations)
    assert back.unsupported == ""


def test_two_cores_have_their_own_streams(tmp_path):
    cores = ((TIU, 1, DMA, 1), (TIU * 2, 2, DMA * 3, 3))
    read = read_back(tmp_path, model(stage(streams=cores), chip="BM1688"))
    assert read.nets[0].stages[0].cores == [CommandStreams(*core) for core in cores]


def test_header_and_binaries_start_on_pages(tmp_path):
    path = tmp_path / "m.bmodel"
    write_bmodel(path, model(stage(BytesBlob(b"w" * 5000)), stage(BytesBlob(b"v" * 10))))
    data = path.read_bytes()
    magic, header, flatbuffer, binary = struct.unpack_from("<IIIQ", data)
    assert (magic, header, (header + flatbuffer) % 4096, binary % 4096) == (0xFF55AAEE, 64, 0, 0)
    assert len(data) == header + flatbuffer + binary
    for content in (TIU, DMA, b"w" * 5000, b"v" * 10):
        assert data.find(content) % 4096 == 0


def test_equal_streams_and_blobs_are_stored_once(tmp_path):
    size = 1 << 20
    same_key, equal_bytes, other = (GeneratedBlob(size, key, seed) for key, seed in ((1, 0), (2, 0), (3, 7)))
    write_bmodel(tmp_path / "m.bmodel", model(*map(stage, (same_key, same_key, equal_bytes, other))))
    assert (tmp_path / "m.bmodel").stat().st_size == 4096 + 2 * 4096 + 2 * size
    assert same_key.passes == 1
    first, second, third, fourth = (net.stages[0].coeff for net in read_bmodel(tmp_path / "m.bmodel").nets)
    assert first.blob.key == second.blob.key == third.blob.key != fourth.blob.key
    assert bytes(fourth.blob.data[: 1 << 16]) == b"\x07" * (1 << 16)


def test_weights_pass_through_in_chunks(tmp_path):
    """Blobs of some size, in a file many times what the writer may hold."""
    blobs = [GeneratedBlob(16 << 20, index, index, chunk=1 << 20) for index in range(4)]
    tracemalloc.start()
    write_bmodel(tmp_path / "m.bmodel", model(*map(stage, blobs)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "m.bmodel").stat().st_size > 64 << 20
    assert peak < 4 << 20


def test_the_same_program_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_bmodel(tmp_path / name, model(stage(GeneratedBlob(100_000, name)), stage()))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_write_keeps_the_old_file_and_leaves_nothing(tmp_path, error):
    class FailingBlob(GeneratedBlob):
        def chunks(self):
            yield b"some"
            raise error

    path = tmp_path / "m.bmodel"
    write_bmodel(path, model(stage()))
    before = path.read_bytes()
    with pytest.raises(error):
        write_bmodel(path, model(stage(FailingBlob(100, "k"))))
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.bmodel"]
    assert path.read_bytes() == before


def test_a_full_disk_is_the_users_error(tmp_path):
    class FullDiskBlob(GeneratedBlob):
        def chunks(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
        write_bmodel(tmp_path / "m.bmodel", model(stage(FullDiskBlob(1, "k"))))
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        write_bmodel(tmp_path / "no" / "m.bmodel", model(stage()))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (stage(ctx_size=0), "at least one byte of scratch"),
        (stage(streams=((TIU[:-1], 1, DMA, 1),)), "127 bytes is not padded"),
        (stage(streams=()), "no instruction streams"),
    ],
)
def test_programs_that_would_crash_the_runtime_are_refused(tmp_path, broken, message):
    with pytest.raises(ValueError, match=message):
        write_bmodel(tmp_path / "m.bmodel", model(broken))


def test_a_blob_of_another_size_than_announced_is_refused(tmp_path):
    blob = GeneratedBlob(100, "k")
    blob.chunks = lambda: iter([b"short"])
    with pytest.raises(ValueError, match="announced 100 bytes and gave 5"):
        write_bmodel(tmp_path / "m.bmodel", model(stage(blob)))


@pytest.mark.parametrize("chip", ["BM1684X", "BM1688"])
def test_a_second_part_that_does_nothing_is_kept_beside_the_program(tmp_path, chip):
    """With it, the runtime takes smaller inputs than the file states."""
    busy = CommandStreams(TIU * 2, 2, DMA * 3, 3)
    idle = [CommandStreams(TIU, 1, DMA, 1)]
    path = tmp_path / "m.bmodel"
    write_bmodel(path, model(stage(cores=[busy], idle=idle), chip=chip))
    found = read_bmodel(path).net("net_0").stages[0]
    assert (found.cores, found.idle, found.is_dynamic, found.unsupported) == ([busy], idle, True, "")
    write_bmodel(path, model(stage(cores=[busy], is_dynamic=True), chip=chip))
    assert not read_bmodel(path).net("net_0").stages[0].is_dynamic  # one part is static, whatever it is called


def test_nets_for_devices_that_are_not_there_are_refused(tmp_path):
    bmodel = toy_cascade()
    with pytest.raises(ValueError, match="for 1 devices with nets for others"):
        write_bmodel(tmp_path / "m.bmodel", replace(bmodel, device_num=1))
