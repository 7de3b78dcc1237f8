"""Models that see, compiled: answers about pictures by the client contract, against Hugging Face in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bmodel_tool import main
from driver.convert import convert
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from runtime_sim.launch.session import Session
from runtime_sim.launch.tower import Picture
from runtime_sim.tool.chat import open_session
from runtime_sim.tool.sight import open_tower
from runtime_sim.tool.verify import verify_file
from tests.runtime_sim.launch.test_vision_session import CASES, given, prompt_of
from tests.vision import PLACE, make_vision_checkpoint, vision_model

COUNT = 8
TIE = 0.05  # of the logits' standard deviation: what rounding to 16 bit may decide
NAMES = ["qwen2_5_vl", "internvl"]


@dataclass(frozen=True)
class Compiled:
    checkpoint: Path
    file: Path
    model: Any  # of the library, with the same weights

    def session(self) -> Session:
        config = self.file.parent / "config"
        session = open_session(self.file, config, exact=False)
        session.tower = open_tower(session.runtime, config)
        return session

    @torch.no_grad()
    def lost(self, prompt: Sequence[int], pictures: Sequence[Picture], answer: Sequence[int]) -> list[int]:
        """The places of tokens that are not the likeliest to the model, by more than rounding may decide."""
        ids = torch.tensor([[*prompt, *answer[:-1]]])
        kinds = {"mm_token_type_ids": (ids == PLACE).int()} if any(pictures[0].grid) else {}
        logits = self.model(input_ids=ids, use_cache=False, **given(pictures), **kinds).logits
        seen = logits[0, len(prompt) - 1 :].numpy()
        gaps = seen.max(axis=1) - seen[np.arange(len(answer)), answer]
        return [*np.flatnonzero(gaps > TIE * seen.std(axis=1)).tolist()]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Callable[..., Compiled]:
    """A model in a mode, compiled once, without a search for the fastest program."""

    @cache
    def make(name: str, mode: str = "bf16") -> Compiled:
        folder = make_vision_checkpoint(tmp_path_factory.mktemp("seeing") / name, name)
        size = (112, 112) if name == "qwen2_5_vl" else ()
        options = ConvertOptions(folder, 64, mode, max_pixels=size, out_dir=folder.parent / "out")
        file = convert(replace(options, passes=default_pipeline(options)))
        return Compiled(folder, file, vision_model(name))

    return make


@pytest.mark.parametrize(("name", "pictures"), CASES)
def test_answers_about_pictures_are_those_of_hugging_face(compiled, name, pictures):
    """One picture and two, that fill the net and that do not; the tokens follow from what is seen."""
    model = compiled(name)
    session = model.session()
    prompt = prompt_of(pictures, [prod(session.tower.token_grid(each)) for each in pictures])
    answer = session.generate(prompt, COUNT, pictures=pictures)
    assert model.lost(prompt, pictures, answer) == []
    assert len(model.lost(prompt, [replace(each, pixels=-each.pixels) for each in pictures], answer)) > 2


@pytest.mark.parametrize("name", NAMES)
def test_text_is_answered_as_without_a_tower(compiled, name):
    model = compiled(name)
    tokens = np.random.default_rng(3).integers(3, 500, 20).tolist()
    for token in model.session().generate(tokens, COUNT):
        with torch.no_grad():
            logits = model.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
        assert logits.max() - logits[token] < TIE * logits.std()
        tokens.append(token)


@pytest.mark.parametrize(("name", "mode"), [*((name, "bf16") for name in NAMES), ("qwen2_5_vl", "w4bf16")])
def test_every_net_is_verified(compiled, capsys, name, mode):
    model = compiled(name, mode)
    assert verify_file(model.file, model.checkpoint) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["vit", "embedding", "embedding_cache", "block_0", "block_0"]


@pytest.mark.parametrize("name", NAMES)
def test_tools_know_towers(compiled, capsys, name):
    """Their rules, shapes, cycles and bounds."""
    file = str(compiled(name).file)
    assert main(["check", file]) == 0
    assert "sound: 10 nets" in capsys.readouterr().out
    assert main(["info", file]) == 0
    first, second = ("input_states f32[64, 1176]", "output_states bf16[16, 128]")
    if name == "internvl":
        first, second = ("pixel_value f32[1, 3, 56, 56]", "output_states bf16[4, 128]")
    text = capsys.readouterr().out
    assert f"<- {first}" in text
    assert f"-> {second}" in text
    assert main(["timing", file]) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("vit "))
    assert row.split()[1] == "plain"


@pytest.mark.usefixtures("forked_tokenizers")
@pytest.mark.parametrize("name", NAMES)
def test_chat_is_shown_a_picture(compiled, capsys, tmp_path, name):
    model, answers = compiled(name), []
    for seed in range(2):
        values = np.random.default_rng(seed).integers(0, 256, (90, 120, 3), np.uint8)
        Image.fromarray(values).save(tmp_path / "p.png")
        question = ["--prompt", "abc", "--image", str(tmp_path / "p.png"), "--max-tokens", "6"]
        assert main(["chat", str(model.file), *question]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] != answers[1]
