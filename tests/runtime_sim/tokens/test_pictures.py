"""Files of pictures and prompts about them, against the library's own processors; what files may not do."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    InternVLProcessor,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
)

from compiler.diagnostics import UserError
from runtime_sim.tokens import pictures as pictures_module
from runtime_sim.tokens.confined import Limits
from runtime_sim.tokens.pictures import Pictures
from runtime_sim.tokens.processor import Processor, read_pixels
from runtime_sim.tokens.text import Places, Text
from tests.vision import END, PATCH, PLACE, START, TILE, TILE_TOKENS, WORDS, write_settings

pytestmark = pytest.mark.usefixtures("forked_tokenizers")

MANY = 1 << 20
PROCESSORS = {"qwen2_5_vl": Qwen2_5_VLProcessor, "internvl": InternVLProcessor}
NAMES = list(PROCESSORS)


def draw(path, height, width, mode="RGB", seed=0, **settings):
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    values = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(values, mode).save(path, **settings)
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: write_settings(tmp_path_factory.mktemp("config") / name, name) for name in NAMES}


@pytest.fixture
def library(folders, monkeypatch):
    """A processor of the library's own, but for videos, which it has not without torchvision."""

    def make(name):
        monkeypatch.setattr(ProcessorMixin, "check_argument_for_proper_class", lambda *_: None)
        tokens = AutoTokenizer.from_pretrained(folders[name])
        if name == "internvl":
            parts = ("start_image", "context_image", "end_image")
            for part, word, number in zip(parts, WORDS[name], (START, PLACE, END), strict=True):
                setattr(tokens, f"{part}_token", word)
                setattr(tokens, f"{part}_token_id", number)
            tokens.video_token = "<video>"
        settings = {"image_seq_length": TILE_TOKENS} if name == "internvl" else {}
        images = AutoImageProcessor.from_pretrained(folders[name])
        made = PROCESSORS[name](images, tokens, None, chat_template=tokens.chat_template, **settings)
        made.video_processor = None
        return made

    return make


SIZES = [(56, 56), (90, 200), (300, 40), (13, 17), (700, 900)]


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_those_of_the_library(folders, library, tmp_path, name):
    """Tokens, pixels and grids of a message about two pictures, whatever their sizes."""
    files = [draw(tmp_path / f"{i}.png", *size, seed=i) for i, size in enumerate([(90, 200), (300, 40)])]
    theirs = library(name)
    content = [*[{"type": "image"}] * 2, {"type": "text", "text": "What is it?"}]
    text = theirs.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    wanted = theirs(images=[Image.open(file) for file in files], text=text, add_special_tokens=False)
    made = [Pictures(folders[name]).read(file, MANY) for file in files]
    np.testing.assert_array_equal(np.concatenate([each.pixels for each in made]), wanted["pixel_values"])
    counts = [len(each.pixels) * TILE_TOKENS for each in made]
    if name == "qwen2_5_vl":
        assert [[1, *each.grid] for each in made] == wanted["image_grid_thw"].tolist()
        counts = [rows * columns // 4 for rows, columns in (each.grid for each in made)]
    tokens, starts = Text(folders[name]).place_pictures("What is it?", 2, raw=False).fill(counts)
    assert tokens == list(wanted["input_ids"][0])
    assert [tokens[start - 1 : start + 1] for start in starts] == [[START, PLACE]] * 2


@pytest.mark.parametrize("size", SIZES)
def test_pictures_of_any_size_are_as_the_library_cuts_them(folders, tmp_path, size):
    file = draw(tmp_path / "p.png", *size)
    for name, folder in folders.items():
        found = Pictures(folder).read(file, MANY)
        images = AutoImageProcessor.from_pretrained(folder)
        settings = {"crop_to_patches": True} if name == "internvl" else {}
        wanted = images(images=[Image.open(file)], **settings)
        np.testing.assert_array_equal(found.pixels, wanted["pixel_values"])
        assert found.size == size


@pytest.mark.parametrize("most", [1, 4, 30, 64])
def test_no_more_patches_than_there_is_room_for(folders, tmp_path, most):
    pictures = Pictures(folders["qwen2_5_vl"])
    found = pictures.read(draw(tmp_path / "p.png", 900, 700), most)
    assert len(found.pixels) == np.prod(found.grid) <= max(most, 4)


@pytest.mark.parametrize(("most", "tiles"), [(0, 1), (1, 1), (2, 1), (3, 3), (5, 5), (9, 5)])
def test_no_more_tiles_than_there_is_room_for(folders, tmp_path, most, tiles):
    """Of several, the whole picture is one more."""
    pictures = Pictures(folders["internvl"])
    found = pictures.read(draw(tmp_path / "p.png", TILE, 4 * TILE), most)
    assert found.pixels.shape == (tiles, 3, TILE, TILE)


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [("png", {}), ("webp", {"lossless": True}), ("bmp", {}), ("tiff", {}), ("ppm", {})],
)
def test_kinds_of_files(folders, tmp_path, suffix, settings):
    pictures = Pictures(folders["qwen2_5_vl"])
    plain = pictures.read(draw(tmp_path / "plain.png", 56, 84), MANY)
    found = pictures.read(draw(tmp_path / f"p.{suffix}", 56, 84, **settings), MANY)
    np.testing.assert_array_equal(found.pixels, plain.pixels)


def test_grey_and_transparent_pictures_have_three_colours(folders, tmp_path):
    pictures = Pictures(folders["qwen2_5_vl"])
    for mode in ("L", "RGBA", "LA"):
        assert pictures.read(draw(tmp_path / "p.png", 56, 56, mode), MANY).pixels.shape == (16, 1176)


def test_a_picture_is_upright(folders, tmp_path):
    """As cameras say in the file which way is up."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = Pictures(folders["qwen2_5_vl"])
    assert pictures.read(draw(tmp_path / "p.jpg", 56, 84, exif=exif), MANY).grid == (6, 4)
    assert pictures.read(draw(tmp_path / "q.jpg", 56, 84), MANY).grid == (4, 6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a picture: it is no picture of a kind that is known (PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "it is no picture of a kind that is known"),
        (None, "cannot be read as a picture: image file is truncated"),
    ],
)
def test_files_that_are_no_pictures_are_refused(folders, tmp_path, content, message):
    path = draw(tmp_path / "p.png", 56, 56)
    path.write_bytes(path.read_bytes()[:3000] if content is None else content)
    with pytest.raises(UserError) as error:
        Pictures(folders["qwen2_5_vl"]).read(path, MANY)
    assert message in error.value.message


def test_what_is_no_file_is_refused(folders, tmp_path):
    pictures = Pictures(folders["qwen2_5_vl"])
    for path in (tmp_path, tmp_path / "none.png"):
        with pytest.raises(UserError, match="cannot read"):
            pictures.read(path, MANY)


def test_a_file_that_unpacks_to_too_much_is_refused(folders, tmp_path):
    Image.new("1", (20000, 20000)).save(tmp_path / "p.png")
    with pytest.raises(UserError, match=r"p\.png cannot be read as a picture: Image size \(400000000 pixels\)"):
        Pictures(folders["qwen2_5_vl"]).read(tmp_path / "p.png", MANY)


def test_a_long_strip_is_refused_as_the_processor_says(folders, tmp_path):
    path = draw(tmp_path / "p.png", 14, 4000)
    with pytest.raises(UserError, match="absolute aspect ratio must be smaller than 200"):
        Pictures(folders["qwen2_5_vl"]).read(path, MANY)


def test_reading_has_limits(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures_module, "REQUEST", Limits(seconds=60, megabytes=8))
    path = draw(tmp_path / "p.png", 4000, 4000)
    with pytest.raises(UserError, match=r"needs more than 8 MB|Unable to allocate"):
        Pictures(folders["qwen2_5_vl"]).read(path, MANY)


def test_a_folder_without_a_processor_is_refused(folders, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no preprocessor_config\.json, which says how a picture is cut"):
        Pictures(tmp_path)


def test_a_processor_that_the_library_does_not_know_is_refused(tmp_path):
    write_settings(tmp_path, "internvl")
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "Mine"}')
    (tmp_path / "config.json").write_text('{"model_type": "mine"}')
    with pytest.raises(UserError, match=r"the image processor of .* cannot be loaded: "):
        Pictures(tmp_path).read(draw(tmp_path / "p.png", 56, 56), MANY)


@pytest.mark.parametrize(("module", "package"), [("PIL", "pillow"), ("transformers", "transformers")])
def test_what_is_not_installed_is_told(module, package):
    advice = pictures_module._advice(f"No module named '{module}'")
    assert advice == f"{package} is not installed (pip install {package})"


def test_a_missing_library_is_told_by_its_import(folders, monkeypatch):
    """As the process says it, of which `Pictures` makes the advice."""
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch"))
    monkeypatch.delitem(sys.modules, "PIL", raising=False)
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(ImportError, match="No module named 'PIL'"):
        Processor(str(folders["internvl"]))


ORIGINAL = {
    "model_type": "internvl_chat",
    "force_image_size": TILE,
    "dynamic_image_size": True,
    "min_dynamic_patch": 1,
    "max_dynamic_patch": 4,
    "use_thumbnail": True,
    "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
}
CLIP = {
    "image_processor_type": "CLIPImageProcessor",
    "feature_extractor_type": "CLIPFeatureExtractor",
    "crop_size": TILE,
    "do_center_crop": True,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": TILE,
}


def test_checkpoints_of_the_original_layout_are_cut_as_their_code_does(folders, tmp_path):
    """Which is what the library's processor of the same model does, with the means of the checkpoint."""
    write_settings(tmp_path, "internvl")
    (tmp_path / "config.json").write_text(json.dumps(ORIGINAL))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CLIP))
    file = draw(tmp_path / "p.png", 90, 200)
    theirs = AutoImageProcessor.from_pretrained(folders["internvl"])
    means = {key: CLIP[key] for key in ("image_mean", "image_std")}
    wanted = theirs(images=[Image.open(file)], crop_to_patches=True, **means)
    np.testing.assert_array_equal(Pictures(tmp_path).read(file, MANY).pixels, wanted["pixel_values"])
    assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == CLIP
    (tmp_path / "config.json").write_text(json.dumps({**ORIGINAL, "dynamic_image_size": False}))
    assert len(Pictures(tmp_path).read(file, MANY).pixels) == 1


def test_a_processor_keeps_what_it_made_in_its_folder(folders, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch"))
    write_settings(tmp_path, "qwen2_5_vl")
    processor = Processor(str(tmp_path))
    monkeypatch.undo()
    made = processor.read(str(draw(tmp_path / "p.png", 4 * PATCH, 6 * PATCH)), MANY)
    assert made == {"size": [56, 84], "grid": [4, 6]}
    assert read_pixels(tmp_path).shape == (24, 1176)


def test_places_are_filled():
    places = Places([1, PLACE, 2, PLACE], PLACE, [START], [END])
    tokens, starts = places.fill([3, 1])
    assert tokens == [1, START, PLACE, PLACE, PLACE, END, 2, START, PLACE, END]
    assert starts == [2, 8]


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_may_place_its_pictures_itself(folders, name):
    """With the template and without; else they come first."""
    text, word = Text(folders[name]), WORDS[name][1]
    for raw in (True, False):
        places = text.place_pictures(f"a{word}b{word}c", 2, raw)
        assert places.tokens.count(PLACE) == 2
        assert places.tokens[-1] != PLACE
        first = text.place_pictures("abc", 2, raw).tokens
        assert first.index(text.encode("a")[0], 1) > first.index(PLACE)
        with pytest.raises(UserError, match=r"has places .* for 2 pictures, and 1 are given"):
            text.place_pictures(f"a{word}b{word}c", 1, raw)


@pytest.mark.parametrize("name", NAMES)
def test_a_template_that_knows_only_text_is_given_places_in_it(folders, tmp_path, name):
    write_settings(tmp_path, name)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}<s>{{ 'user: ' + m['content'] }}</s>{% endfor %}<s>assistant:"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    found = Text(tmp_path).place_pictures("abc", 2, raw=False)
    wanted = Text(folders[name]).place_pictures("abc", 2, raw=False)
    assert found == wanted


def test_a_tokenizer_without_a_token_for_pictures_is_refused(tmp_path):
    write_settings(tmp_path, "qwen2_5_vl")
    (tmp_path / "config.json").write_text("{}")
    tokens = (tmp_path / "tokenizer.json").read_text().replace("<|image_pad|>", "<|other|>")
    (tmp_path / "tokenizer.json").write_text(tokens)
    with pytest.raises(UserError, match=r"it has no token for pictures, such as <\|image_pad\|> or <IMG_CONTEXT>"):
        Text(tmp_path).place_pictures("abc", 1, raw=True)


def test_the_settings_name_the_token_for_pictures(tmp_path):
    """Whatever its word is."""
    write_settings(tmp_path, "qwen2_5_vl")
    (tmp_path / "config.json").write_text(json.dumps({"image_token_id": 65}))
    assert Text(tmp_path).place_pictures("abc", 1, raw=True).place == 65
