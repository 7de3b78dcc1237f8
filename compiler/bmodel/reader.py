"""A bmodel file to a BModel: ours, or one made by the vendor's compiler. Weights stay in the mapped file.

Nothing in the file is trusted: a damaged one is a UserError that says what is wrong.
"""

import mmap
import os
import struct
from pathlib import Path

from compiler.bmodel.container import (
    AddrMode,
    BModel,
    BytesBlob,
    Coeff,
    CommandStreams,
    Net,
    Stage,
    TensorInfo,
    WeightLocation,
)
from compiler.bmodel.flatbuffer import BinaryRange, Record, decode
from compiler.bmodel.schema import DATA_TYPES, HEADER_BYTES, MAGIC
from compiler.diagnostics import UserError


def read_bmodel(path: str | os.PathLike[str]) -> BModel:
    try:
        return parse_bmodel(_map(Path(path)))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _map(path: Path) -> memoryview:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < HEADER_BYTES:
                raise UserError("not a bmodel: shorter than the header of one")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise UserError(f"cannot read it: {error.strerror or error}") from error


def parse_bmodel(data: memoryview) -> BModel:
    if len(data) < HEADER_BYTES:
        raise UserError("not a bmodel: shorter than the header of one")
    magic, header_bytes, flatbuffer_bytes, binary_bytes = struct.unpack_from("<IIIQ", data)
    if magic != MAGIC:
        raise UserError(f"not a bmodel: it starts with {magic:#010x}, a bmodel with {MAGIC:#010x}")
    base = header_bytes + flatbuffer_bytes
    if header_bytes < HEADER_BYTES or base + binary_bytes > len(data):
        raise UserError(f"truncated: its header promises {base + binary_bytes} bytes and it has {len(data)}")
    record = decode(data[header_bytes:base])
    return _Reader(data[base : base + binary_bytes]).model(record, len(data))


class _Reader:
    def __init__(self, section: memoryview) -> None:
        self.section = section
        self.blobs: dict[BinaryRange, BytesBlob] = {}  # equal ranges become one blob, with one key

    def model(self, record: Record, file_bytes: int) -> BModel:
        nets = [self.net(net) for net in record["net"]]
        if len({net.name for net in nets}) < len(nets):
            raise UserError("two of its nets have the same name")
        return BModel(record["chip"], nets, record["device_num"] or 1, record["version"], file_bytes)

    def net(self, record: Record) -> Net:
        name, mode = record["name"], record["addr_mode"]
        if mode not in list(AddrMode):
            raise UserError(f"net {name} has the unknown addr_mode {mode}")
        if not record["parameter"]:
            raise UserError(f"net {name} has no program")
        return Net(name, AddrMode(mode), [self.stage(stage, name) for stage in record["parameter"]])

    def stage(self, record: Record, net: str) -> Stage:
        groups, unsupported = _core_groups(record)
        parts = _static_parts(record) if unsupported else []
        return Stage(
            inputs=[_tensor(tensor, net) for tensor in record["input_tensor"]],
            outputs=[_tensor(tensor, net) for tensor in record["output_tensor"]],
            ctx_address=record["ctx_addr"],
            ctx_size=record["ctx_size"] or sum(record["ctx_sizes"]),
            cores=[self.streams(group, net) for group in groups],
            io_address=record["io_addr"],
            io_size=record["io_size"],
            coeff=self.coeff(record["coeff_mem"], net),
            is_dynamic=bool(record["is_dynamic"]),
            unsupported=unsupported,
            parts=[[self.streams(group, net) for group in part] for part in parts],
        )

    def streams(self, group: Record, net: str) -> CommandStreams:
        tiu = self.stream(group["binary_bdc"], group["bdc_cmd_byte"], net)
        dma = self.stream(group["binary_gdma"], group["gdma_cmd_byte"], net)
        return CommandStreams(tiu, group["bdc_num"], dma, group["gdma_num"])

    def stream(self, binary: BinaryRange | None, used: int, net: str) -> bytes:
        return bytes(self.range(binary, net)[:used]) if binary else b""

    def coeff(self, record: Record | None, net: str) -> Coeff | None:
        if record is None or not record["binary_coeff"]:
            return None
        if record["encrypt_mode"]:
            raise UserError(f"the weights of net {net} are encrypted")
        binary = record["binary_coeff"]
        blob = self.blobs.setdefault(binary, BytesBlob(self.range(binary, net)))
        locations = tuple(WeightLocation(at["name"], at["offset"], at["size"]) for at in record["location"])
        return Coeff(record["address"], blob, locations, record["check_code"])

    def range(self, binary: BinaryRange, net: str) -> memoryview:
        start, size = binary
        if start + size > len(self.section):
            raise UserError(f"net {net} refers to bytes {start} to {start + size} of {len(self.section)}")
        return self.section[start : start + size]


def _core_groups(record: Record) -> tuple[list[Record], str]:
    """One command group for each core, and why that is not the whole program, if so."""
    sub_nets = record["sub_net"]
    if record["is_dynamic"] or any(sub["is_dynamic"] or sub["subnet_mode"] for sub in sub_nets):
        return [], "dynamic parts or parts for the host CPU"
    if len(sub_nets) > 1:
        return [], f"{len(sub_nets)} sub-nets"
    per_core = sub_nets[0]["core_commands"] if sub_nets else []
    groups_of_cores = [core["gdma_tiu_commands"] for core in per_core] or [record["cmd_group"]]
    if any(len(groups) != 1 for groups in groups_of_cores):
        return [], "not exactly one command group for a core"
    return [groups[0] for groups in groups_of_cores], ""


def _static_parts(record: Record) -> list[list[Record]]:
    """The command groups of each part that is for the engines and not dynamic, one for each core."""
    parts: list[list[Record]] = []
    for sub in record["sub_net"]:
        if not sub["is_dynamic"] and not sub["subnet_mode"]:
            per_core = [core["gdma_tiu_commands"] for core in sub["core_commands"]] or [sub["cmd_group"]]
            parts += [list(groups) for groups in zip(*per_core, strict=False)]
    return parts


def _tensor(record: Record, net: str) -> TensorInfo:
    name, code = record["name"], record["data_type"]
    if code >= len(DATA_TYPES):
        raise UserError(f"tensor {name} of net {net} has the unknown data type {code}")
    shape = tuple(record["shape"][0]["dim"]) if record["shape"] else ()
    return TensorInfo(name, DATA_TYPES[code], record["device_addr"], shape, record["size"])
