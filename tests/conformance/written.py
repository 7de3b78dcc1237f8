"""A module of the llm dialect as a file of its own, to run one function of it in both runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compiler.bmodel import BModel, write_bmodel
from compiler.ir.module import Module
from compiler.target.attribute import target_of
from compiler.weights.stored import Weight
from driver.blob import Materializer, Piece, WeightBlob
from driver.pipelines import USUAL, lowering, placing
from passes import load_all
from passes.chip.assign_addresses import globals_of, weight_source
from passes.emit_bmodel import address_of, bmodel_net, encode
from passes.manager import PassManager, parse_pipeline


def write_module(
    module: Module, path: Path, weights: Mapping[str, Weight] = {}, tables: Mapping[str, np.ndarray] = {}
) -> Path:
    """Lower a module and write its functions, each a net that is bound to the model."""
    load_all()
    PassManager(parse_pipeline(f"{lowering(USUAL)},{placing(USUAL)}")).run(module)
    spec = target_of(module)
    regions = {address_of(op.buffer): op for f in module.functions() for op in globals_of(f, "weight")}
    pieces = [
        Piece(address - spec.coeff_base, op.buffer.type.bytes, weight_source(op)) for address, op in regions.items()
    ]
    blob = WeightBlob(pieces, Materializer(weights.__getitem__, tables), "blob") if pieces else None
    nets = [bmodel_net([{function: encode(function)}], None, blob) for function in module.functions()]
    write_bmodel(path, BModel(spec.chip, nets))
    return path
