"""A bmodel file to a BModel: ours, or one made by the vendor's compiler. Weights stay in the mapped file.

Nothing in the file is trusted: a damaged one is a UserError that says what is wrong. What is printed of it
later, names above all, is made sure to be harmless here.
"""

import mmap
import os
import struct
from dataclasses import replace
from pathlib import Path

from compiler.bmodel.container import (
    AddrMode,
    BModel,
    BytesBlob,
    Cascade,
    Coeff,
    CommandStreams,
    Net,
    Stage,
    TensorInfo,
    WeightLocation,
)
from compiler.bmodel.digest import ABSENT, digest_of, recorded_digest, weight_ranges
from compiler.bmodel.flatbuffer import BinaryRange, Record, decode
from compiler.bmodel.schema import DATA_TYPES, HEADER_BYTES, HIDDEN_INTERNAL, MAGIC
from compiler.diagnostics import UserError
from compiler.files import open_file, reason

DESCRIPTION_BYTES = 16 << 20  # of the flatbuffer; that of a model of 80 layers has half a megabyte
NAME_LENGTH = 256  # of nets and tensors; names go into messages
LOCATION_LENGTH = 1 << 16  # of what a part of the weights holds
MAX_RANK = 8  # of a tensor's shape, in the runtime too
MAX_DEVICES = 256


def read_bmodel(path: str | os.PathLike[str]) -> BModel:
    with open_file(Path(path)) as file:
        try:
            return parse_bmodel(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
        except OSError as error:
            raise UserError(f"cannot read {path}: {reason(error)}") from None
        except ValueError:  # no file of no bytes can be mapped
            raise UserError(f"{path}: not a bmodel: it is empty") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


def parse_bmodel(data: memoryview) -> BModel:
    if len(data) < HEADER_BYTES:
        raise UserError("not a bmodel: shorter than the header of one")
    magic, header_bytes, flatbuffer_bytes, binary_bytes = struct.unpack_from("<IIIQ", data)
    if magic != MAGIC:
        raise UserError(f"not a bmodel: it starts with {magic:#010x}, a bmodel with {MAGIC:#010x}")
    base = header_bytes + flatbuffer_bytes
    if header_bytes < HEADER_BYTES or base + binary_bytes > len(data):
        raise UserError(f"truncated: its header promises {base + binary_bytes} bytes and it has {len(data)}")
    if flatbuffer_bytes > DESCRIPTION_BYTES:
        raise UserError(f"its description has {flatbuffer_bytes} bytes, expected at most {DESCRIPTION_BYTES}")
    record = decode(data[header_bytes:base])
    return replace(
        _Reader(data[base : base + binary_bytes]).model(record),
        file_bytes=len(data),
        has_digest=_check_digest(data, record),
    )


def _check_digest(data: memoryview, record: Record) -> bool:
    """Whether the file has a digest; UserError when it has that of another."""
    recorded = recorded_digest(data)
    if recorded != ABSENT and recorded != digest_of(data, weight_ranges(record)):
        raise UserError(
            "damaged: its description or its instructions are not those that were written (sha256)"
        )
    return recorded != ABSENT


class _Reader:
    def __init__(self, section: memoryview) -> None:
        self.section = section
        self.blobs: dict[BinaryRange, BytesBlob] = {}  # equal ranges become one blob, with one key

    def model(self, record: Record) -> BModel:
        if not record["net"]:
            raise UserError("it has no nets")
        nets = [self.net(net) for net in record["net"]]
        if len({net.name for net in nets}) < len(nets):
            raise UserError("two of its nets have the same name")
        chip, version = (_name(record[field], f"its {field}") for field in ("chip", "version"))
        devices = record["device_num"] or 1
        if devices > MAX_DEVICES or any(net.device >= devices for net in nets):
            raise UserError(f"its nets are for other devices than the {devices} that it is for")
        return BModel(chip, nets, devices, version)

    def net(self, record: Record) -> Net:
        name, mode = _name(record["name"], "the name of a net"), record["addr_mode"]
        if mode not in list(AddrMode):
            raise UserError(f"net {name} has the unknown addr_mode {mode}")
        if not record["parameter"]:
            raise UserError(f"net {name} has no program")
        cascade = _cascade(record["cascade"], name)
        stages = [self.stage(stage, name, cascade is not None) for stage in record["parameter"]]
        return Net(name, AddrMode(mode), stages, cascade)

    def stage(self, record: Record, net: str, in_cascade: bool) -> Stage:
        idle, *_ = [*map(_groups_of, filter(_is_idle, record["sub_net"][1:])), []]
        groups, unsupported = _core_groups(record)
        parts = _static_parts(record) if unsupported else []
        return Stage(
            inputs=[_tensor(tensor, net, in_cascade) for tensor in record["input_tensor"]],
            outputs=[_tensor(tensor, net, in_cascade) for tensor in record["output_tensor"]],
            ctx_address=record["ctx_addr"],
            ctx_size=record["ctx_size"] or sum(record["ctx_sizes"]),
            cores=[self.streams(group, net) for group in groups],
            io_address=record["io_addr"],
            io_size=record["io_size"],
            coeff=self.coeff(record["coeff_mem"], net),
            is_dynamic=bool(record["is_dynamic"]),
            idle=[] if unsupported else [self.streams(group, net) for group in idle],
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
        locations = tuple(_location(at) for at in record["location"])
        return Coeff(record["address"], blob, locations, record["check_code"])

    def range(self, binary: BinaryRange, net: str) -> memoryview:
        start, size = binary
        if start + size > len(self.section):
            raise UserError(f"net {net} refers to bytes {start} to {start + size} of {len(self.section)}")
        return self.section[start : start + size]


def _core_groups(record: Record) -> tuple[list[Record], str]:
    """One command group for each core, and why that is not the whole program, if so."""
    sub_nets = [*record["sub_net"][:1], *(sub for sub in record["sub_net"][1:] if not _is_idle(sub))]
    whole = record["is_dynamic"] and len(record["sub_net"]) < 2  # then no part is run by itself
    if whole or any(sub["is_dynamic"] or sub["subnet_mode"] for sub in sub_nets):
        return [], "dynamic parts or parts for the host CPU"
    if len(sub_nets) > 1:
        return [], f"{len(sub_nets)} sub-nets"
    per_core = sub_nets[0]["core_commands"] if sub_nets else []
    commands = record["cmd_group"] if len(record["sub_net"]) < 2 else sub_nets[0]["cmd_group"]
    groups_of_cores = [core["gdma_tiu_commands"] for core in per_core] or [commands]
    if any(len(groups) != 1 for groups in groups_of_cores):
        return [], "not exactly one command group for a core"
    return [groups[0] for groups in groups_of_cores], ""


def _groups_of(sub: Record) -> list[Record]:
    """All command groups of a part."""
    per_core = [group for core in sub["core_commands"] for group in core["gdma_tiu_commands"]]
    return per_core or list(sub["cmd_group"])


def _is_idle(sub: Record) -> bool:
    """Whether a part for the engines has nothing but the ends of its queues."""
    ends = all(group["bdc_num"] <= 1 and group["gdma_num"] <= 1 for group in _groups_of(sub))
    return ends and not sub["is_dynamic"] and not sub["subnet_mode"]


def _static_parts(record: Record) -> list[list[Record]]:
    """The command groups of each part that is for the engines and not dynamic, one for each core."""
    parts: list[list[Record]] = []
    for sub in record["sub_net"]:
        if not sub["is_dynamic"] and not sub["subnet_mode"]:
            per_core = [core["gdma_tiu_commands"] for core in sub["core_commands"]] or [sub["cmd_group"]]
            parts += [list(groups) for groups in zip(*per_core, strict=False)]
    return parts


def _cascade(record: Record | None, net: str) -> Cascade | None:
    """None where nothing says that a net is a part of another: the vendor's writer leaves the name empty."""
    if record is None or not record["main_name"]:
        return None
    name = _name(record["main_name"], f"the name of what net {net} is a part of")
    return Cascade(name, record["device_id"], record["step"])


def _tensor(record: Record, net: str, in_cascade: bool) -> TensorInfo:
    name, code = _name(record["name"], f"the name of a tensor of net {net}"), record["data_type"]
    if code >= len(DATA_TYPES):
        raise UserError(f"tensor {name} of net {net} has the unknown data type {code}")
    shape = tuple(record["shape"][0]["dim"]) if record["shape"] else ()
    if len(shape) > MAX_RANK:
        raise UserError(
            f"tensor {name} of net {net} has {len(shape)} dimensions, expected at most {MAX_RANK}"
        )
    place = (record["hidden"] == HIDDEN_INTERNAL, record["index"]) if in_cascade else ()
    return TensorInfo(name, DATA_TYPES[code], record["device_addr"], shape, record["size"], *place)


def _location(record: Record) -> WeightLocation:
    name = _name(record["name"], "the name of a part of the weights", LOCATION_LENGTH)
    return WeightLocation(name, record["offset"], record["size"])


def _name(text: str | None, what: str, length: int = NAME_LENGTH) -> str:
    """The text, when it can be printed anywhere: no control characters, which terminals obey."""
    if text is None or not text.isprintable() or len(text) > length:
        shown = "missing" if text is None else ascii(text[:40])
        raise UserError(f"{what} is {shown}: expected at most {length} printable characters")
    return text
