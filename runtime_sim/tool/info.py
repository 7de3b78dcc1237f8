"""`info`: what is in a file."""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from compiler.bmodel import AddrMode, BModel, Net, Stage, TensorInfo, read_bmodel
from compiler.bmodel.memory import device_memory
from compiler.sizes import human
from runtime_sim.launch.loader import stage_names


def run(arguments: Namespace) -> int:
    bmodel = read_bmodel(arguments.file)
    if arguments.json:
        print(json.dumps(as_dict(bmodel), indent=2))
    else:
        print("\n".join(_lines(bmodel)))
    return 0


def as_dict(bmodel: BModel) -> dict[str, Any]:
    return {
        "chip": bmodel.chip,
        "version": bmodel.version,
        "file_bytes": bmodel.file_bytes,
        "has_digest": bmodel.has_digest,
        "memory": dataclasses.asdict(device_memory(bmodel)),
        "devices": [dataclasses.asdict(device_memory(bmodel, n)) for n in range(bmodel.device_num)],
        "nets": [_net_dict(net) for net in bmodel.nets],
    }


def _net_dict(net: Net) -> dict[str, Any]:
    mode = AddrMode(net.addr_mode).name.lower()
    cascade = dataclasses.asdict(net.cascade) if net.cascade else None
    stages = [_stage_dict(stage) for stage in net.stages]
    return {"name": net.name, "addr_mode": mode, "cascade": cascade, "stages": stages}


def _stage_dict(stage: Stage) -> dict[str, Any]:
    cores = [{"tiu": core.tiu_count, "dma": core.dma_count} for core in stage.cores]
    return {
        "inputs": [_tensor_dict(tensor) for tensor in stage.inputs],
        "outputs": [_tensor_dict(tensor) for tensor in stage.outputs],
        "ctx": {"address": stage.ctx_address, "bytes": stage.ctx_size},
        "io": {"address": stage.io_address, "bytes": stage.io_size},
        "coeff": _coeff_dict(stage),
        "dynamic": stage.is_dynamic,
        "instructions": cores,
    }


def _tensor_dict(tensor: TensorInfo) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "address": tensor.address,
        "hidden": tensor.hidden,
    }


def _coeff_dict(stage: Stage) -> dict[str, Any] | None:
    if stage.coeff is None:
        return None
    coeff = stage.coeff
    return {"address": coeff.address, "bytes": coeff.size, "sha256": coeff.check_code.hex()}


def _lines(bmodel: BModel) -> Iterator[str]:
    digest = "" if bmodel.has_digest else ", no digest of its instructions"
    yield f"{bmodel.chip}, {len(bmodel.nets)} nets, {human(bmodel.file_bytes)}{digest}"
    for device in range(bmodel.device_num):
        memory = device_memory(bmodel, device)
        yield (
            f"device memory{f' {device}' if bmodel.device_num > 1 else ''}: {human(memory.total)}, "
            f"weights {human(memory.weights)} in {memory.blobs} blobs, caches {human(memory.caches)}, "
            f"other I/O of their own {human(memory.io)}, scratch {human(memory.scratch)}, "
            f"instructions {human(memory.instructions)}"
        )
    for nets in _alike(bmodel.nets):
        yield ""
        yield from _net_lines(nets)


def _alike(nets: Iterable[Net]) -> list[list[Net]]:
    """The nets, those of layers that look alike together."""
    ordered = sorted(nets, key=_look)
    groups = [list(group) for _, group in groupby(ordered, key=_look)]
    place = {net.name: index for index, net in enumerate(nets)}
    return sorted(groups, key=lambda group: place[group[0].name])


def _look(net: Net) -> str:
    """What `info` shows of a net, apart from its number; equal for nets to show together."""
    kind = (net.main_name.rstrip("0123456789"), _place(net))
    stages = [(s.inputs, s.outputs, s.ctx_size, s.io_size, _counts(s), _weights(s)) for s in net.stages]
    return repr((kind, int(net.addr_mode), stages))


def _net_lines(nets: list[Net]) -> Iterator[str]:
    net, last = nets[0], nets[-1]
    for name, other, stage in zip(_called(net), _called(last), net.stages, strict=True):
        number = other.removeprefix(net.main_name.rstrip("0123456789"))
        more = "" if last is net else f" .. {number} ({len(nets)} nets)"
        more += _place(net)
        notes = [AddrMode(net.addr_mode).name.lower(), _counts(stage), f"weights {_weights(stage)}"]
        notes += [f"scratch {human(stage.ctx_size)}"] + (["dynamic"] if stage.is_dynamic else [])
        yield f"{name}{more}: {', '.join(notes)}"
        for arrow, tensors in (("<-", stage.inputs), ("->", stage.outputs)):
            yield from (f"  {arrow} {tensor_text(tensor)}" for tensor in tensors)


def _called(net: Net) -> list[str]:
    """What clients call its stages."""
    return [net.main_name] if net.cascade else stage_names(net)


def _place(net: Net) -> str:
    """What a net of a cascade is for."""
    return f", device {net.cascade.device} step {net.cascade.step}" if net.cascade else ""


def tensor_text(tensor: TensorInfo) -> str:
    hidden = " (hidden)" if tensor.hidden else ""
    return f"{tensor.name} {tensor.dtype}{list(tensor.shape)} at {tensor.address:#x}{hidden}"


def _counts(stage: Stage) -> str:
    if stage.unsupported:
        return stage.unsupported
    return " + ".join(f"{core.tiu_count} tiu {core.dma_count} dma" for core in stage.cores)


def _weights(stage: Stage) -> str:
    return human(stage.coeff.size) if stage.coeff else "none"
