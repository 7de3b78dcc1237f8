"""`chat --image`: from files to an answer, on a runtime of the library's modules."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoImageProcessor

from bmodel_tool import main
from compiler.bmodel import write_bmodel
from runtime_sim.launch.tower import Picture
from runtime_sim.tokens.text import Text
from runtime_sim.tool import chat, sight
from tests.runtime_sim.check.programs import toy_model
from tests.runtime_sim.launch.fake_vision import FakeVision
from tests.runtime_sim.launch.test_vision_session import wanted_tokens
from tests.vision import END, PLACE, START, TILE_TOKENS, WORDS, write_settings

pytestmark = pytest.mark.usefixtures("forked_tokenizers")

COUNT = 6
SIZES = {"qwen2_5_vl": [(60, 90), (84, 30)], "internvl": [(50, 110), (56, 56)]}


@pytest.fixture
def files(tmp_path):
    def make(*sizes):
        paths = [tmp_path / f"{index}.png" for index in range(len(sizes))]
        for index, (path, size) in enumerate(zip(paths, sizes, strict=True)):
            values = np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(values).save(path)
        return paths

    return make


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """Exit code, output and notes of a question about pictures."""

    def call(name, *arguments, prompt="abc", rows=64, runtime=None):
        config = tmp_path / "config"
        if not config.exists():
            write_settings(config, name)
        runtime = runtime or FakeVision(name, rows=rows, history=rows + 16)
        monkeypatch.setattr(chat, "open_session", lambda *_: runtime.session())
        for module in (chat, sight):
            monkeypatch.setattr(module, "note", lambda text: print(text, file=sys.stderr))  # as on a terminal
        words = ["--prompt", prompt, "--config", str(config), "--max-tokens", str(COUNT)]
        code = main(["chat", str(tmp_path / "m.bmodel"), *words, *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def shown(files):
    return [part for file in files for part in ("--image", file)]


def library_pictures(name: str, config: Path, files: list[Path]) -> list[Picture]:
    """As the library reads them."""
    images = AutoImageProcessor.from_pretrained(config)
    found = []
    for file in files:
        if name == "internvl":
            made = images(images=[Image.open(file)], crop_to_patches=True)
            found.append(Picture(np.stack(made["pixel_values"])))
        else:
            made = images(images=[Image.open(file)])
            _, rows, columns = made["image_grid_thw"][0].tolist()
            found.append(Picture(made["pixel_values"], (rows, columns)))
    return found


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("count", [1, 2])
def test_answers_about_pictures_are_those_of_the_library(ask, files, tmp_path, name, count):
    paths = files(*SIZES[name][:count])
    code, answer, notes = ask(name, "--raw", *shown(paths))
    assert code == 0
    config, text = tmp_path / "config", Text(tmp_path / "config")
    pictures = library_pictures(name, config, paths)
    sizes = [len(each.pixels) * TILE_TOKENS if name == "internvl" else len(each.pixels) // 4 for each in pictures]
    line = text.encode("\n") if name == "internvl" else []
    prompt = [token for size in sizes for token in (START, *[PLACE] * size, END, *line)] + text.encode("abc")
    wanted = wanted_tokens(FakeVision(name).model, prompt, pictures, COUNT)
    assert answer == "".join(text.decode_stream(wanted)) + "\n"
    assert f"{len(prompt)} tokens read, {COUNT} written" in notes
    assert f"{paths[0]}: {SIZES[name][0][0]} x {SIZES[name][0][1]} pixels, seen as" in notes


def test_what_the_model_sees_is_said(ask, files):
    (path,) = files((900, 700))
    _, _, notes = ask("qwen2_5_vl", "--image", path)
    assert f"{path}: 900 x 700 pixels, seen as 8 x 6 patches, 12 tokens" in notes


def test_tiles_are_counted(ask, files):
    (path,) = files((56, 112))
    _, _, notes = ask("internvl", "--image", path)
    assert f"{path}: 56 x 112 pixels, seen as 3 tiles, 12 tokens" in notes


@pytest.mark.parametrize(
    ("name", "rows", "seen"),
    [("qwen2_5_vl", 33, "4 x 4 patches, 4 tokens"), ("internvl", 34, "1 tile, 4 tokens")],
)
def test_pictures_share_the_room_of_the_prompt(ask, files, name, rows, seen):
    paths = files((900, 900), (900, 900))
    code, _, notes = ask(name, *shown(paths), rows=rows, prompt="a")
    assert code == 0, notes
    assert notes.count(f"900 x 900 pixels, seen as {seen}") == 2


def test_too_little_room_is_an_error(ask, files):
    code, _, notes = ask("internvl", *shown(files((56, 56), (56, 56))), rows=20, prompt="a")
    assert code == 2
    assert "tokens, this file takes at most 20: shorten it" in notes


def test_a_picture_that_cannot_be_small_enough_is_refused(ask, files):
    """The processor scales no side below that of a cell."""
    (path,) = files((28, 5000))
    code, _, notes = ask("qwen2_5_vl", "--image", path)
    assert code == 2
    assert f"{path}: the picture has 2 x 106 patches, 212, and net vit takes 64: make it smaller" in notes


@pytest.mark.parametrize("raw", [[], ["--raw"]])
def test_a_prompt_without_places_for_its_pictures_is_refused(ask, files, raw):
    word = WORDS["internvl"][1]
    code, _, notes = ask("internvl", *shown(files((56, 56))), *raw, prompt=f"{word} and {word}")
    assert code == 2
    assert "has places (<IMG_CONTEXT>) for 2 pictures, and 1 are given" in notes


def test_a_model_that_does_not_see_is_no_use(tmp_path, files, capsys, monkeypatch):
    write_settings(tmp_path / "config", "internvl")
    write_bmodel(tmp_path / "m.bmodel", toy_model())
    (path,) = files((56, 56))
    code = main(["chat", str(tmp_path / "m.bmodel"), "--prompt", "a", "--image", str(path)])
    assert code == 2
    assert "--image: it has no net 'vit', which takes pictures: compile a model that sees" in capsys.readouterr().err
