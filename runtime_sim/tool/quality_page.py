"""What `quality` measured as one HTML page: a curve over the layers, and those that add most to the error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compiler.page import write_page

TEMPLATE = Path(__file__).with_name("quality.html")
WORST = 10  # layers to name


def write_quality(path: Path, title: str, found: Mapping[str, Mapping[str, Any]], layers: str) -> None:
    """The page of what was found by text; `layers` is the name of the model's list of layers."""
    write_page(path, TEMPLATE, quality_data(title, found, layers))


def quality_data(title: str, found: Mapping[str, Mapping[str, Any]], layers: str) -> dict[str, Any]:
    texts = [{"name": name, **each} for name, each in found.items()]
    count = len(texts[0]["layers"]) if texts else 0
    names = [f"{layers}.{number}" for number in range(count)]
    added = [[error - before for error, before in steps_of(text["layers"])] for text in texts]
    rows = list(zip(names, zip(*added, strict=True), strict=True))
    worst = sorted(rows, key=lambda row: -sum(row[1]))[:WORST]
    told = [{"module": name, "added": list(each)} for name, each in worst]
    return {"title": title, "texts": texts, "layers": names, "worst": told}


def steps_of(layers: list[dict[str, float]]) -> list[tuple[float, float]]:
    """The error after each layer and that before it."""
    errors = [layer["error"] for layer in layers]
    return list(zip(errors, [0.0, *errors[:-1]], strict=True))
