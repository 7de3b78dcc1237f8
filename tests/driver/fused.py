"""The modules of a small model as the passes on the llm dialect leave them."""

from __future__ import annotations

from functools import cache, partial

from compiler.target.attribute import set_target
from compiler.target.chips.bm1684x import BM1684X
from dialects.builtin import ModuleOp
from frontend.imported import NetGroup
from frontend.importer import import_model
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from tests.frontend.oracle import FUSED, SMALL

LENGTH = 192

def after(module: ModuleOp, pipeline: str, verify: bool = True) -> ModuleOp:
    copy = module.clone()
    assert isinstance(copy, ModuleOp)
    PassManager(parse_pipeline(pipeline), verify_each=verify).run(copy)
    return copy


trial = partial(after, verify=False)  # what is left out makes a module that is not valid


@cache
def groups(length: int = LENGTH) -> dict[str, NetGroup]:
    """By the first of their nets."""
    load_all()
    config = {**SMALL, "model_type": "llama", "max_position_embeddings": length}
    model = import_model(config, length)
    for group in model.nets:
        set_target(group.module, BM1684X)
        PassManager(parse_pipeline(FUSED)).run(group.module)
    return {group.name: group for group in model.nets}
