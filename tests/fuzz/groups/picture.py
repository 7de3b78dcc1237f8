"""Files of pictures that chat shows a model, and the settings of the processor that cuts them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.fuzz.case import Case, write_text
from tests.fuzz.mutate import NUMBERS, cut, spoil_bytes, spoil_json
from tests.fuzz.samples import Samples

KINDS = ("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm", "tga")  # the last is one that is not read
MODES = {"L": (), "RGB": (3,), "RGBA": (4,)}
SIDES = (1, 3, 40, 56, 200, 700)
HEADER = 64  # bytes, where spoiling says most
SIZES = ({"height": 56}, {"shortest_edge": 56}, {"height": 28, "width": 56}, {"height": 10**9, "width": 56}, 56, [])
KNOWN: dict[str, tuple[Any, ...]] = {
    "image_processor_type": ("Qwen2VLImageProcessor", "CLIPImageProcessor", "GotOcr2ImageProcessorFast", "Evil", 3),
    "size": SIZES,
    "max_patches": NUMBERS,
    "min_patches": NUMBERS,
    "crop_to_patches": (False, "x", None),
    "image_mean": ([0.5], [0.5, 0.5, 0.5], [1e39] * 3, "x", None),
    "image_std": ([0, 0, 0], [1, 1, 1], 2),
    "resample": (0, 2, 7, "x"),
    "rescale_factor": (0, 1e39, "x"),
    "do_resize": (False,),
    "do_convert_rgb": (False,),
    "auto_map": ({"AutoImageProcessor": "code.Processor"},),
}
FLAGS = ["chat", "model.bmodel", "--max-tokens", "1", "--prompt", "a"]


def make(rng: Random, folder: Path, samples: Samples) -> Case:
    samples.copy_seeing(folder)
    names = [draw(rng, folder) for _ in range(rng.choice((1, 1, 1, 2)))]
    spoilt = rng.choice((spoil_file, spoil_file, spoil_settings))(rng, folder, names[0])
    shown = [part for name in names for part in ("--image", name)]
    return Case(f"{', '.join(names)}; {spoilt}", "bmodel_tool", [*FLAGS, *shown], free_text=True)


def draw(rng: Random, folder: Path) -> str:
    """A picture of any kind and size; its name says which."""
    from PIL import Image

    kind, mode = rng.choice(KINDS), rng.choice(list(MODES))
    mode = "RGB" if kind in ("jpeg", "ppm") else mode
    height, width = rng.choice(SIDES), rng.choice(SIDES)
    values = np.random.default_rng(rng.randrange(99)).integers(0, 256, (height, width, *MODES[mode]), np.uint8)
    name = f"{mode}-{height}x{width}.{kind}"
    Image.fromarray(values).save(folder / name)
    return name


def spoil_file(rng: Random, folder: Path, name: str) -> str:
    path = folder / name
    data, what = path.read_bytes(), "as it is"
    if rng.random() < 0.9:
        stop = HEADER if rng.random() < 0.5 else None
        data, what = cut(rng, data) if rng.random() < 0.3 else spoil_bytes(rng, data, stop=stop)
    path.write_bytes(data)
    return what


def spoil_settings(rng: Random, folder: Path, name: str) -> str:
    path = folder / "config" / rng.choice(("preprocessor_config.json", "preprocessor_config.json", "config.json"))
    text, what = spoil_json(rng, json.loads(path.read_text()), KNOWN)
    write_text(path, text)
    return f"{path.name}: {what}"
