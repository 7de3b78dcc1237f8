"""transformers' own image processors, in a process without torch; `Pictures` is its other end.

What a model is shown is what its processor makes of a file: how it is scaled, cut and normalized is theirs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compiler.files import open_file
from runtime_sim.arrays import Array
from runtime_sim.tokens.confined import serve

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # all that Pillow decodes by itself
PIXELS = "pixels.npy"  # in the folder, for the other end
SETTINGS = "preprocessor_config.json"


def main(words: Sequence[str]) -> None:
    serve(words, Processor)


class Processor:
    """The image processor of a folder."""

    def __init__(self, folder: str) -> None:
        sys.modules["torch"] = None  # type: ignore[assignment]  # what only slows the import down
        import PIL.Image  # noqa: F401  (transformers says in many lines that it is missing)
        from transformers import AutoImageProcessor

        library: Any = AutoImageProcessor
        self._folder = Path(folder)
        config = json.loads((self._folder / "config.json").read_text())
        if settings := _not_written(config, self._folder / SETTINGS):
            (self._folder / SETTINGS).unlink(missing_ok=True)
            (self._folder / SETTINGS).write_text(json.dumps(settings))
        self._processor = library.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    def read(self, path: str, most: int) -> dict[str, Any]:
        """What it makes of a picture, no more than so many patches or tiles: the pixels go to a file, and the
        sizes come back.
        """
        image = _image(Path(path))
        made = self._processor(images=[image], return_tensors=None, **self._settings(most))
        pixels = np.asarray(made["pixel_values"], np.float32)
        np.save(self._folder / PIXELS, pixels, allow_pickle=False)
        _, rows, columns = made["image_grid_thw"][0] if "image_grid_thw" in made else (1, 0, 0)
        return {"size": [image.height, image.width], "grid": [int(rows), int(columns)]}

    def _settings(self, most: int) -> dict[str, Any]:
        size = self._processor.size
        if hasattr(self._processor, "crop_to_patches"):
            tiles = min(self._processor.max_patches, max(1, most - 1))  # of several, the whole is one more
            return {"crop_to_patches": True, "max_patches": tiles}
        if hasattr(self._processor, "merge_size"):
            largest = min(size["longest_edge"], most * self._processor.patch_size**2)
            smallest = min(size["shortest_edge"], largest)
            return {"size": {"longest_edge": largest, "shortest_edge": smallest}}
        return {}


def _not_written(config: dict[str, Any], path: Path) -> dict[str, Any] | None:
    """Settings of a processor that a checkpoint has only as code and a few numbers.

    Source: dynamic_preprocess of InternVL3's model card, which GotOcr2's processor is made after.
    """
    if config.get("model_type") != "internvl_chat":
        return None
    side = config.get("force_image_size") or config["vision_config"]["image_size"]
    given = json.loads(path.read_text())
    return {
        "image_processor_type": "GotOcr2ImageProcessor",
        "size": {"height": side, "width": side},
        "min_patches": config.get("min_dynamic_patch", 1),
        "max_patches": config.get("max_dynamic_patch", 12) if config.get("dynamic_image_size", True) else 1,
        **{key: given[key] for key in ("image_mean", "image_std")},
    }


def _image(path: Path) -> Any:
    """The picture upright, in three colours."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    with open_file(path) as file:
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise ValueError(f"it is no picture of a kind that is known ({', '.join(FORMATS)})") from None
        return ImageOps.exif_transpose(image).convert("RGB")


def read_pixels(folder: Path) -> Array:
    """What the last `read` left there."""
    return np.asarray(np.load(folder / PIXELS, allow_pickle=False))
