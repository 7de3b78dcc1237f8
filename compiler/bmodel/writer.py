"""A BModel to a file, streaming: weights pass through in chunks and are hashed on the way.

Offsets and hashes come before the weights in the file but are known only after them. The flatbuffer's length
does not depend on its numbers, so its place is reserved first and filled last. The file appears under its
name when complete.
"""

import hashlib
import mmap
import os
import secrets
import struct
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from compiler.bmodel.container import (
    BlobSource,
    BModel,
    BytesBlob,
    Coeff,
    CommandStreams,
    Net,
    Stage,
    TensorInfo,
)
from compiler.bmodel.digest import DIGEST_AT, digest_of, weight_ranges
from compiler.bmodel.flatbuffer import BinaryRange, Record, encode
from compiler.bmodel.schema import (
    DATA_TYPES,
    HEADER_BYTES,
    HIDDEN_INPUT,
    HIDDEN_INTERNAL,
    HIDDEN_OUTPUT,
    MAGIC,
    MEM_TYPE_DEVICE,
    PAGE_BYTES,
)
from compiler.diagnostics import UserError
from compiler.interrupt import cleaned_up
from compiler.sizes import round_up
from compiler.target.chips import chip_of_file

CHECK_CODE_BYTES = 32
STREAM_ALIGN = 128


def write_bmodel(path: str | os.PathLike[str], bmodel: BModel) -> None:
    """Write the file and rename it into place; on any failure, Ctrl-C included, nothing is left behind."""
    _check(bmodel)
    with atomic_file(Path(path)) as file:
        places = _Places()
        reserved = _reserved_bytes(bmodel)
        section = _BinarySection(file, HEADER_BYTES + reserved, places)
        for net in bmodel.nets:
            for stage in net.stages:
                section.add_streams(stage)
        for net in bmodel.nets:
            for stage in net.stages:
                section.add_coeff(stage)
        model = _model(bmodel, places)
        file.seek(0)
        file.write(_header(reserved, section.size))
        file.write(encode(model).ljust(reserved, b"\0"))
        _write_digest(file, weight_ranges(model))


def size_of_file(bmodel: BModel) -> int:
    """Bytes that `write_bmodel` will write; fewer where blobs of different keys turn out to be equal."""
    stages = [stage for net in bmodel.nets for stage in net.stages]
    cores = [core for stage in stages for core in (*stage.cores, *stage.idle)]
    streams = {data for core in cores for data in (core.tiu, core.dma)}
    blobs = {stage.coeff.blob.key: stage.coeff.size for stage in stages if stage.coeff}
    pages = sum(round_up(size, PAGE_BYTES) for size in (*map(len, streams), *blobs.values()))
    return HEADER_BYTES + _reserved_bytes(bmodel) + pages


def _reserved_bytes(bmodel: BModel) -> int:
    """Of the flatbuffer, whose length does not depend on its numbers, up to a whole page with the header."""
    return round_up(HEADER_BYTES + len(encode(_model(bmodel, _Places()))), PAGE_BYTES) - HEADER_BYTES


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name when the block ends well and vanishes when it does not."""
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    with cleaned_up(lambda: partial.unlink(missing_ok=True)):
        try:
            with open(partial, "x+b") as file:
                yield file
            os.replace(partial, path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error


class _Places:
    """Where each Binary went and what each blob hashed to; zeros until known."""

    def __init__(self) -> None:
        self.streams: dict[bytes, BinaryRange] = {}
        self.blobs: dict[Hashable, tuple[BinaryRange, bytes]] = {}

    def stream(self, data: bytes) -> BinaryRange:
        return self.streams.get(data, (0, len(data)))

    def blob(self, source: BlobSource) -> tuple[BinaryRange, bytes]:
        return self.blobs.get(source.key, ((0, source.size), bytes(CHECK_CODE_BYTES)))


class _BinarySection:
    """Appends Binaries, each at the start of a page, identical ones once."""

    def __init__(self, file: IO[bytes], base: int, places: _Places) -> None:
        self.file = file
        self.base = base
        self.places = places
        self.size = 0  # bytes after `base`, padded to a page
        self.by_content: dict[tuple[int, bytes], BinaryRange] = {}

    def add_streams(self, stage: Stage) -> None:
        for core in (*stage.cores, *stage.idle):
            for data in (core.tiu, core.dma):
                if data not in self.places.streams:
                    self.places.streams[data] = self._append(BytesBlob(data))[0]

    def add_coeff(self, stage: Stage) -> None:
        if stage.coeff and stage.coeff.blob.key not in self.places.blobs:
            self.places.blobs[stage.coeff.blob.key] = self._append(stage.coeff.blob)

    def _append(self, source: BlobSource) -> tuple[BinaryRange, bytes]:
        start = self.size
        self.file.seek(self.base + start)
        digest, written = self._copy(source)
        if written != source.size:
            raise ValueError(f"a blob announced {source.size} bytes and gave {written}")
        found = self.by_content.setdefault((written, digest), (start, written))
        if found[0] == start:
            self.file.write(bytes(round_up(written, PAGE_BYTES) - written))
            self.size += round_up(written, PAGE_BYTES)
        self.file.truncate(self.base + self.size)  # drops the copy when an equal Binary is there already
        return found, digest

    def _copy(self, source: BlobSource) -> tuple[bytes, int]:
        digest, written = hashlib.sha256(), 0
        for chunk in source.chunks():
            digest.update(chunk)
            self.file.write(chunk)
            written += len(memoryview(chunk).cast("B"))
        return digest.digest(), written


def _header(flatbuffer_bytes: int, binary_bytes: int) -> bytes:
    fields = struct.pack("<IIIQ", MAGIC, HEADER_BYTES, flatbuffer_bytes, binary_bytes)
    return fields.ljust(HEADER_BYTES, b"\0")


def _write_digest(file: IO[bytes], weights: list[BinaryRange]) -> None:
    file.flush()
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        digest = digest_of(view, weights)
    file.seek(DIGEST_AT)
    file.write(digest)


def _check(bmodel: BModel) -> None:
    """Mistakes of the emitter which would make the runtime crash instead of complain."""
    if not bmodel.nets:
        raise ValueError("a bmodel without nets")
    if any(net.device >= bmodel.device_num for net in bmodel.nets):
        raise ValueError(f"a bmodel for {bmodel.device_num} devices with nets for others")
    for net in bmodel.nets:
        for stage in net.stages:
            if stage.ctx_size <= 0:
                raise ValueError(f"net {net.name}: the runtime wants at least one byte of scratch memory")
            if not stage.cores:
                raise ValueError(f"net {net.name}: no instruction streams")
            for core in (*stage.cores, *stage.idle):
                _check_padding(net, core)


def _check_padding(net: Net, core: CommandStreams) -> None:
    for data in (core.tiu, core.dma):
        if not data or len(data) % STREAM_ALIGN:
            raise ValueError(f"net {net.name}: a stream of {len(data)} bytes is not padded to {STREAM_ALIGN}")


def _model(bmodel: BModel, places: _Places) -> Record:
    per_core = chip_of_file(bmodel.chip).streams_per_core
    return {
        "type": "B",
        "version": bmodel.version,
        "time": "",  # the same input gives the same bytes on any day
        "chip": bmodel.chip,
        "net": [_net(net, places, per_core) for net in bmodel.nets],
        "neuron_size": max(stage.ctx_size for net in bmodel.nets for stage in net.stages),
        "device_num": bmodel.device_num,
    }


def _net(net: Net, places: _Places, per_core: bool) -> Record:
    parameters = [_parameter(stage, places, per_core, net.cascade is not None) for stage in net.stages]
    record: Record = {"name": net.name, "parameter": parameters, "addr_mode": int(net.addr_mode)}
    if net.cascade:
        name, device, step = net.cascade.main_name, net.cascade.device, net.cascade.step
        record["cascade"] = {"main_name": name, "device_id": device, "step": step}
    return record


def _parameter(stage: Stage, places: _Places, per_core: bool, in_cascade: bool) -> Record:
    inputs = _tensors(stage.inputs, HIDDEN_INPUT, in_cascade)
    outputs = _tensors(stage.outputs, HIDDEN_OUTPUT, in_cascade)
    groups = [_group(core, places) for core in stage.cores]
    sub_nets: list[Record] = [{"input_tensor": inputs, "output_tensor": outputs, "id": 0}]
    sub_nets[0] |= {"next_subnet_ids": [1 if stage.idle else -1], **_commands(groups, per_core)}
    record: Record = {"input_tensor": inputs, "output_tensor": outputs}
    record |= {"ctx_addr": stage.ctx_address, "ctx_size": stage.ctx_size, "ctx_sizes": [stage.ctx_size]}
    if stage.idle:
        idle = [_group(core, places) for core in stage.idle]
        second: Record = {"input_tensor": outputs[:1], "output_tensor": [], "id": 1, "next_subnet_ids": [-1]}
        sub_nets.append(second | _commands(idle, per_core))
        record["is_dynamic"] = 1
        groups = [*groups, *idle]
    record |= {"cmd_group": [] if per_core else groups, "sub_net": sub_nets, "core_num": len(stage.cores)}
    if stage.io_size:
        record |= {"io_addr": stage.io_address, "io_size": stage.io_size}
    if stage.coeff:
        record["coeff_mem"] = _coeff(stage.coeff, places)
    return record


def _commands(groups: list[Record], per_core: bool) -> Record:
    """The command groups of a part, one for each core."""
    if not per_core:
        return {"run_core": len(groups), "cmd_group": groups}
    return {"run_core": len(groups), "core_commands": [{"gdma_tiu_commands": [group]} for group in groups]}


def _tensors(infos: Sequence[TensorInfo], hidden: int, in_cascade: bool) -> list[Record]:
    if not in_cascade:
        return [_tensor(info, index, hidden) for index, info in enumerate(infos)]
    return [_tensor(info, info.index, HIDDEN_INTERNAL if info.hidden else hidden) for info in infos]


def _tensor(info: TensorInfo, index: int, hidden: int) -> Record:
    return {
        "name": info.name,
        "data_type": DATA_TYPES.index(info.dtype),
        "device_addr": info.address,
        "size": info.size,
        "shape": [{"dim": list(info.shape)}],
        "mem_type": MEM_TYPE_DEVICE,
        "scale": 1.0,
        "hidden": hidden,
        "index": index,
    }


def _group(core: CommandStreams, places: _Places) -> Record:
    return {
        "bdc_num": core.tiu_count,
        "gdma_num": core.dma_count,
        "binary_bdc": places.stream(core.tiu),
        "binary_gdma": places.stream(core.dma),
        "bdc_cmd_byte": len(core.tiu),
        "gdma_cmd_byte": len(core.dma),
    }


def _coeff(coeff: Coeff, places: _Places) -> Record:
    where, check_code = places.blob(coeff.blob)
    locations = [{"name": at.name, "offset": at.offset, "size": at.size} for at in coeff.locations]
    return {
        "address": coeff.address,
        "check_code": check_code,
        "binary_coeff": where,
        "location": locations,
    }
