"""The modules of a small model as the passes on the llm dialect leave them."""

from __future__ import annotations

from functools import cache

from compiler.target.attribute import set_target
from compiler.target.chips.bm1684x import BM1684X
from dialects.builtin import ModuleOp
from frontend.imported import NetGroup
from frontend.importer import import_model
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from tests.frontend.oracle import FUSED, SMALL

LENGTH = 192

def after(module: ModuleOp, pipeline: str) -> ModuleOp:
    copy = module.clone()
    assert isinstance(copy, ModuleOp)
    PassManager(parse_pipeline(pipeline)).run(copy)
    return copy


@cache
def groups() -> dict[str, NetGroup]:
    """By the first of their nets."""
    load_all()
    config = {**SMALL, "model_type": "llama", "max_position_embeddings": LENGTH}
    model = import_model(config, LENGTH)
    for group in model.nets:
        set_target(group.module, BM1684X)
        PassManager(parse_pipeline(FUSED)).run(group.module)
    return {group.name: group for group in model.nets}
