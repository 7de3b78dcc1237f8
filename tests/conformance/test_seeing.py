"""Models that see on the vendor's runtime: towers on what clients give them, and the text, to the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from driver.convert import convert
from driver.options import ConvertOptions
from runtime_sim.launch.session import Session
from runtime_sim.tool.chat import open_session
from runtime_sim.tool.shown import drawn_pictures
from runtime_sim.tool.sight import open_tower
from tests.conformance.same import (
    Arrays,
    assert_same_on_vendor,
    assert_same_session,
    random_inputs,
)
from tests.vision import make_vision_checkpoint

PROMPT = [5, 17, 99, 300, 41]
NAMES = {"qwen2_5_vl": (112, 112), "internvl": ()}  # and the pixels of a picture at most

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


@pytest.mark.parametrize("name", NAMES)
def test_towers_and_text_give_the_same_bits(tmp_path, target, name):
    folder = make_vision_checkpoint(tmp_path / name, name)
    options = ConvertOptions(folder, 64, "bf16", max_pixels=NAMES[name], out_dir=tmp_path / "out", **target)
    bmodel = convert(options)
    assert bmodel is not None
    session = open_session(bmodel, bmodel.parent / "config", exact=False)
    for inputs in given_to_tower(session, bmodel.parent / "config"):
        assert_same_on_vendor(bmodel, {"vit": inputs})
    for net in ("block_0", "block_cache_0"):  # of random positions, others in each stream
        assert_same_on_vendor(bmodel, {net: random_inputs(bmodel, net)})
    assert_same_session(bmodel, PROMPT, 3)


def given_to_tower(session: Session, config: Path) -> list[Arrays]:
    """The inputs of each call for a picture that fills the net, and one that does not."""
    tower = open_tower(session.runtime, config)
    found = []
    for picture in drawn_pictures(tower):
        for part in tower.parts(picture)[:1]:
            tower.give(part)
            found.append({buffer.info.name: buffer.array.copy() for buffer in tower.net.inputs})
    return found
