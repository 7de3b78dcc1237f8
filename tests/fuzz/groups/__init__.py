"""One module for each kind of input; its `make(rng, folder, samples)` writes the input of one case."""

from __future__ import annotations

from tests.fuzz.case import Make
from tests.fuzz.groups import (
    bmodel,
    config,
    description,
    files,
    flags,
    index,
    ir,
    picture,
    pipeline,
    quantized,
    safetensors,
    template,
    tokenizer,
)

GROUPS: dict[str, Make] = {
    "config": config.make,
    "index": index.make,
    "safetensors": safetensors.make,
    "quantized": quantized.make,
    "tokenizer": tokenizer.make,
    "template": template.make,
    "picture": picture.make,
    "flags": flags.make,
    "pipeline": pipeline.make,
    "ir": ir.make,
    "bmodel": bmodel.make,
    "description": description.make,
    "files": files.make,
}
