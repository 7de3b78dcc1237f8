"""model.safetensors.index.json, beside three shards."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz.case import Case, write_text
from tests.fuzz.checks import same_bytes_as
from tests.fuzz.mutate import spoil_json
from tests.fuzz.samples import FLAGS, MODES, Samples

NAME = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00003.safetensors", "model-00004-of-00003.safetensors", "../model/config.json",
          "config.json", "", ".", "/dev/zero", "model.safetensors", 3, None)  # fmt: skip


def make(rng: Random, folder: Path, samples: Samples) -> Case:
    model = Path(shutil.copytree(samples.sharded, folder / "model"))
    index = json.loads((model / NAME).read_text())
    if rng.random() < 0.5:
        key = rng.choice([*index["weight_map"], "model.layers.7.mlp.up_proj.weight", "x"])
        index["weight_map"][key] = rng.choice(SHARDS)
        text, what = json.dumps(index), f"{key} in {index['weight_map'][key]}"
    else:
        text, what = spoil_json(rng, index)
    write_text(model / NAME, text)
    mode = rng.choice(MODES)
    check = partial(same_bytes_as, samples.default(mode))
    return Case(f"index: {what}", "llm_convert", [*FLAGS, "-q", mode], results=("out",), check=check)
