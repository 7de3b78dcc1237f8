"""`verify` of models that see: towers and prompts about pictures, right or with one mistake."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from runtime_sim.tool.reference import Reference
from runtime_sim.tool.shown import drawn_pictures, grids_of, prompt_shown
from tests.frontend.seeing import INTERNVL
from tests.runtime_sim.launch.fake_vision import FakeVision
from tests.runtime_sim.launch.test_vision_session import CASES, given
from tests.vision import PATCH, make_vision_checkpoint, vision_model
from tests.vision_layouts import make_original_internvl, make_seeing_checkpoint

NAMES = ["qwen2_5_vl", "internvl"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return {name: make_vision_checkpoint(tmp_path_factory.mktemp("vision") / name, name) for name in NAMES}


@pytest.fixture
def verify(report, checkpoints):
    """Its exit code and what it printed, for a runtime of the modules of a model."""

    def call(name, runtime=None, **changes):
        folder = checkpoints[name]
        file, runtime = folder / "m.bmodel", runtime or FakeVision(name)
        return report(runtime, file=file, reference=folder, min_cosine=0.9999, **changes)

    return call


@pytest.mark.parametrize("name", NAMES)
def test_right_nets_agree(verify, name):
    code, text = verify(name)
    assert code == 0, text
    names = [line.split()[0] for line in text.splitlines()[:-1]]
    blocks = [f"{kind}_{layer}" for kind in ("block", "block_cache") for layer in range(3)]
    assert names == ["vit", "embedding", "embedding_cache", "block_0", *blocks, "lm_head"]
    assert "11 nets, lowest cosine 1.0000" in text


MISTAKES = {
    "a merger": ("qwen2_5_vl", lambda model: model.model.visual.merger.mlp[0].weight.data.neg_(), "vit"),
    "places": ("qwen2_5_vl", lambda model: model.model.visual.rotary_pos_emb.inv_freq.mul_(0.5), "vit"),
    "windows": ("qwen2_5_vl", lambda model: model.model.visual.fullatt_block_indexes.append(0), "vit"),
    "text rope": ("qwen2_5_vl", lambda model: swap_streams(model.model.language_model.rotary_emb), "block_0"),
    "a class token": ("internvl", lambda model: model.model.vision_tower.embeddings.cls_token.data.zero_(), "vit"),
    "a projector": ("internvl", lambda model: model.model.multi_modal_projector.linear_2.bias.data.neg_(), "vit"),
    "a layer": ("internvl", lambda model: model.model.language_model.layers[0].mlp.up_proj.weight.data.neg_(), "block_0"),
}  # fmt: skip


def swap_streams(rotary):
    """Columns for time: what text alone does not show."""
    rotary.register_forward_pre_hook(lambda module, given: (given[0], given[1][[2, 1, 0]]))


@pytest.mark.parametrize("case", MISTAKES)
def test_the_first_net_that_parts_is_named(verify, case):
    name, mistake, net = MISTAKES[case]
    runtime = FakeVision(name)
    mistake(runtime.model)
    code, text = verify(name, runtime)
    assert code == 1, text
    assert f"first at {net} " in text.splitlines()[-1]


def test_a_tower_is_run_on_pictures_that_are_given(verify, checkpoints, tmp_path, monkeypatch):
    path = tmp_path / "p.png"
    values = np.random.default_rng(0).integers(0, 256, (4 * PATCH, 10 * PATCH, 3), np.uint8)
    Image.fromarray(values).save(path)
    runtime, seen = FakeVision("qwen2_5_vl"), []
    launch = runtime.launch
    monkeypatch.setattr(runtime, "launch", lambda net, *a: (seen.append(net.name), launch(net, *a)))
    code, _ = verify("qwen2_5_vl", runtime, image=[path])
    assert code == 0
    assert seen.count("vit") == 1
    np.testing.assert_array_equal(runtime.nets["vit"].inputs[1].array.max(0), [3, 9])


def test_a_prompt_too_short_for_pictures_is_of_text_alone(verify):
    code, text = verify("qwen2_5_vl", FakeVision("qwen2_5_vl", rows=6, history=8))
    assert code == 0, text


@torch.no_grad()
@pytest.mark.parametrize(("name", "pictures"), CASES)
def test_references_have_the_features_of_the_library(checkpoints, name, pictures):
    wanted = vision_model(name).get_image_features(**given(pictures)).pooler_output
    wanted = torch.cat([part.reshape(-1, part.shape[-1]) for part in wanted])
    reference = Reference(checkpoints[name])
    found = np.concatenate([reference.features(picture) for picture in pictures])
    np.testing.assert_array_equal(found, wanted.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_about_the_largest_picture_that_leaves_room(checkpoints, name):
    """What its layers are given at the places are the features; its positions are the session's."""
    session, reference = FakeVision(name, rows=22).session(), Reference(checkpoints[name])
    shown = prompt_shown(session, reference, drawn_pictures(session.tower))
    (picture,) = shown.pictures
    places = [i for i, token in enumerate(shown.tokens) if token == reference.place]
    size = math.prod(session.tower.token_grid(picture))
    assert places == [*range(picture.start, picture.start + size)]
    assert (picture.start, size, len(shown.tokens)) == ((3, 16, 22) if name == "qwen2_5_vl" else (3, 8, 14))
    np.testing.assert_array_equal(shown.trace.layers[0].states_in[places], reference.features(picture))
    less = FakeVision(name, rows=21 if name == "qwen2_5_vl" else 13).session()
    smaller = prompt_shown(less, reference, drawn_pictures(session.tower))
    assert (smaller and len(smaller.tokens)) == (12 if name == "qwen2_5_vl" else None)


@pytest.mark.parametrize("patches", [64, 60, 4, 3072, 8])
def test_grids_fill_the_patches_or_leave_some(patches):
    large, small = grids_of(patches, 2)
    assert patches * 0.9 < math.prod(large) <= patches
    assert math.prod(small) <= math.prod(large)
    assert all(side % 2 == 0 and side for side in (*large, *small))


def test_an_original_checkpoint_is_the_same_model(tmp_path):
    """In the layout of InternVL3's own, where queries, keys and values of the tower are one tensor."""
    original = Reference(make_original_internvl(tmp_path / "original", INTERNVL))
    native = Reference(make_seeing_checkpoint(tmp_path / "native", INTERNVL))
    (picture,) = drawn_pictures(FakeVision("internvl").session().tower)
    np.testing.assert_array_equal(original.features(picture), native.features(picture))
    tokens = [5, 17, 99, 41]
    np.testing.assert_array_equal(original.trace(tokens).logits, native.trace(tokens).logits)
    assert original.place >= original.vocabulary
    assert prompt_shown(FakeVision("internvl").session(), original, [picture]) is None
