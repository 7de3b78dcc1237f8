"""A module of the llm dialect as a file of its own, to run one function of it in both runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compiler.bmodel import BModel, write_bmodel
from compiler.ir.module import Module
from compiler.target.attribute import target_of
from compiler.weights.stored import Weight
from dialects.nets import stages_of
from driver.blob import Materializer, Piece, WeightBlob
from driver.pipelines import USUAL, Effort, lowering, placing
from passes import load_all
from passes.chip.assign_addresses import globals_of, weight_source
from passes.emit_bmodel import address_of, bmodel_net, encode
from passes.manager import PassManager, parse_pipeline
from passes.options import ByFunction


def write_module(
    module: Module,
    path: Path,
    weights: Mapping[str, Weight] = {},
    tables: Mapping[str, np.ndarray] = {},
    effort: Effort = USUAL.usual,
) -> Path:
    """Lower a module and write its functions, each a net that is bound to the model, or a core's part of one."""
    load_all()
    efforts = ByFunction(effort)
    PassManager(parse_pipeline(f"{lowering(efforts)},{placing(efforts)}")).run(module)
    spec = target_of(module)
    regions = {address_of(op.buffer): op for f in module.functions() for op in globals_of(f, "weight")}
    pieces = [
        Piece(address - spec.coeff_base, op.buffer.type.bytes, weight_source(op)) for address, op in regions.items()
    ]
    blob = WeightBlob(pieces, Materializer(weights.__getitem__, tables), "blob") if pieces else None
    nets = [
        bmodel_net([{function: encode(function) for function in cores}], None, blob, len(cores))
        for cores in stages_of(module.functions())
    ]
    write_bmodel(path, BModel(spec.chip, nets))
    return path
