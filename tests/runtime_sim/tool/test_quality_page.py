"""The page of `quality`."""

from __future__ import annotations

import re

from runtime_sim.tool.quality_page import WORST, quality_data, write_quality
from runtime_sim.tool.reference import Reference
from tests.runtime_sim.tool.page import page_data

SUMS = {"tokens": 9, "perplexity_of_model": 5.0, "perplexity_of_file": 6.0, "kl": 0.1, "same_top_token": 0.9}


def loss(*errors: float) -> dict:
    return SUMS | {"layers": [{"cosine": 1 - error, "error": error} for error in errors]}


def test_the_layers_that_add_most_are_named_first():
    found = {"prose": loss(0.1, 0.15, 0.5, 0.4), "code": loss(0.2, 0.2, 0.3, 0.3)}
    worst = quality_data("m", found, "model.layers")["worst"]
    assert [row["module"][-1] for row in worst] == ["2", "0", "1", "3"]
    assert [round(each, 6) for each in worst[0]["added"]] == [0.35, 0.1]


def test_a_deep_model_has_some_of_its_layers_named():
    data = quality_data("m", {"prose": loss(*range(40))}, "layers")
    assert (len(data["worst"]), len(data["layers"])) == (WORST, 40)


def test_the_page_needs_nothing_else_and_no_name_ends_its_script(tmp_path):
    page = tmp_path / "page.html"
    write_quality(page, "</script>", {"<!--": loss(0.1)}, "layers")
    assert page_data(page)["title"] == "</script>"
    assert page_data(page)["texts"][0]["name"] == "<!--"
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*['"]?\w|https?://|@import|/\*[A-Z]+\*/""", page.read_text())


def test_layers_are_called_as_in_the_checkpoint(folder):
    assert Reference(folder).name_of_layers == "model.layers"
