"""The documents name files, dumps and commands as the tree has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import llm_opt
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from passes import load_all
from passes.manager import parse_pipeline

ROOT = Path(__file__).parent.parent
DOCUMENTS = {path.name: path.read_text() for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs/walk.md")}
DUMP = r"\b\w+\.(\d\d)\.([\w-]+)\.mlir"
PATH = r"`((?:[a-z_0-9]+/)+[a-z_0-9]*(?:\.\w+)?)`"
MADE = ("build/", "config/", "qwen2.5_7b/")  # by commands


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_are_there(document):
    named = [path for path in re.findall(PATH, DOCUMENTS[document]) if not path.startswith(MADE)]
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_dumps_are_called_as_the_default_pipeline_calls_them():
    load_all()
    pipeline = default_pipeline(ConvertOptions(Path("model"), 512, "w4bf16"))
    names = ["input", *(step.name for step in parse_pipeline(pipeline))]
    texts = [*DOCUMENTS.values(), llm_opt.EXAMPLE]
    named = {(int(number), name) for text in texts for number, name in re.findall(DUMP, text)}
    assert len(named) > 3
    assert named <= set(enumerate(names))
