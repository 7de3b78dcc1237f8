"""A page of HTML that needs nothing else: a template, style and functions that all share, and data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compiler.bmodel.writer import atomic_file

HERE = Path(__file__).parent
SHARED = {"/*STYLE*/": "page.css", "/*HELPERS*/": "page.js"}
PLACEHOLDER = "/*DATA*/ null"


def write_page(path: Path, template: Path, data: Any) -> None:
    """The template with its data, as JSON, in the place of the null. UserError when it cannot be written."""
    text = json.dumps(data, separators=(",", ":"))
    text = text.replace("<", "\\u003c")  # so that no tag or comment of a name ends the script
    page = template.read_text(encoding="utf-8")
    for place, name in SHARED.items():
        page = page.replace(place, (HERE / name).read_text(encoding="utf-8").rstrip())
    assert page.count(PLACEHOLDER) == 1
    with atomic_file(path) as file:
        file.write(page.replace(PLACEHOLDER, text).encode())
