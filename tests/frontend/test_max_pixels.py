"""How many patches --max_pixels comes to, and what is refused."""

from __future__ import annotations

import copy
import logging

import pytest

from compiler.diagnostics import UserError
from frontend.build import native_model
from frontend.importer import import_model
from frontend.max_pixels import check_prompt, patches_within
from tests.frontend.models import config
from tests.frontend.seeing import INTERNVL, QWEN2_5_VL


@pytest.fixture(scope="module")
def qwen():
    return native_model(copy.deepcopy(QWEN2_5_VL), 64)


@pytest.mark.parametrize(
    ("pixels", "patches"),
    [((), 3072), ((672, 896), 3072), ((602112,), 3072), ((112, 112), 64), ((56, 57), 16), ((100, 1000), 576), ((7000,), 32)],
)
def test_pixels_are_whole_tokens(qwen, pixels, patches):
    """28 x 28 pixels are a token of 4 patches; sides are rounded as the processor does, a number down."""
    assert patches_within(qwen, pixels) == patches


def test_what_is_rounded_is_told(qwen, caplog):
    with caplog.at_level(logging.WARNING):
        patches_within(qwen, (100, 1000))
        patches_within(qwen, (112, 112))
    (message,) = caplog.messages
    assert message == "--max_pixels 100,1000 is taken as 112,1008: a token is 28 x 28 pixels"


@pytest.mark.parametrize("pixels", [(28, 28), (5000, 5000), (10,)])
def test_sizes_that_no_tower_is_made_for_are_refused(qwen, pixels):
    with pytest.raises(UserError, match="expected 1568 to 12845056 pixels"):
        patches_within(qwen, pixels)


@pytest.mark.parametrize("settings", [INTERNVL, config("llama")], ids=["internvl", "llama"])
def test_a_model_without_pictures_of_any_size_takes_no_size(settings):
    model = native_model(copy.deepcopy(settings), 64)
    assert patches_within(model, ()) == 0
    with pytest.raises(UserError, match="--max_pixels 112,112: the model takes no pictures of any size"):
        patches_within(model, (112, 112))


def test_a_prompt_must_have_room_for_a_picture(qwen):
    model = import_model(qwen, 24, 17, patches=64)
    check_prompt(model, 17)
    with pytest.raises(UserError, match=r"a picture is up to 16 tokens, and a prompt has room for 16\n"):
        check_prompt(model, 16)
