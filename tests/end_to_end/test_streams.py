"""Text whose tokens have three positions each, as those of pictures have: compiled, against Hugging Face."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from driver.options import ConvertOptions
from frontend import importer
from runtime_sim.launch.runtime import Runtime
from runtime_sim.launch.session import Session
from tests.end_to_end.tiny import ROUNDING, Tiny, check_close
from tests.vision import VOCABULARY, make_vision_checkpoint

LENGTH, COUNT = 64, 5
PROMPT = np.random.default_rng(4).integers(0, VOCABULARY - 3, 29).tolist()
TOKENS = len(PROMPT) + COUNT
EQUAL = np.tile(np.arange(TOKENS), (3, 1))
PLACES = {
    "those of text": EQUAL,
    "a picture of four rows of five among text": np.concatenate(
        [
            EQUAL[:, :6],
            6 + np.stack([np.zeros(20, int), np.repeat(np.arange(4), 5), np.tile(np.arange(5), 4)]),
            11 + EQUAL[:, : TOKENS - 26],
        ],
        axis=1,
    ),
    "any": np.random.default_rng(5).integers(0, LENGTH, (3, TOKENS)),  # a file does not know what clients do
}


class PlacedSession(Session):
    """A client that gives tokens these positions, [streams, tokens]."""

    def __init__(self, runtime: Runtime, places: np.ndarray) -> None:
        super().__init__(runtime)
        self.places = places

    def positions(self, count: int, pictures: Sequence[object] = ()) -> np.ndarray:
        return self.places[:, :count]

    def set_step(self, row, caches, position=None):
        super().set_step(row, caches, position)
        for _, positions, *_ in self.shares(caches[0].inputs):
            positions.array[...] = self.places[:, row : row + 1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_vision_checkpoint(tmp_path_factory.mktemp("text") / "model", "qwen2_5_vl")


@pytest.fixture(scope="module")
def reference(checkpoint):
    torch.set_num_threads(1)
    return AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()


@pytest.fixture(scope="module", params=["bm1684x", "bm1688"])
def text(request, checkpoint, tmp_path_factory):
    """The model without its tower."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importer, "tower_groups", lambda *_: [])
        out = tmp_path_factory.mktemp("compiled") / "out"
        return Tiny(ConvertOptions(checkpoint, LENGTH, "bf16", out_dir=out, chip=request.param, max_pixels=(56, 56)))


def greedy(reference, places: np.ndarray) -> list[int]:
    tokens = list(PROMPT)
    with torch.no_grad():
        for _ in range(COUNT):
            positions = torch.from_numpy(places[:, None, : len(tokens)])
            logits = reference(input_ids=torch.tensor([tokens]), position_ids=positions).logits[0, -1]
            tokens.append(int(logits.argmax()))
    return tokens[len(PROMPT) :]


@pytest.mark.parametrize("case", PLACES)
def test_tokens_at_three_positions_each_are_those_of_hugging_face(text, reference, case):
    session = PlacedSession(text.runtime, PLACES[case])
    assert list(itertools.islice(session.stream(PROMPT), COUNT)) == greedy(reference, PLACES[case])


def test_positions_change_the_tokens(reference):
    """Or a file that reads one stream alone would pass."""
    found = {tuple(greedy(reference, places)) for places in PLACES.values()}
    assert len(found) == len(PLACES)


@pytest.mark.parametrize("text", ["bm1684x"], indirect=True)
def test_the_file_computes_what_its_graph_says(text):
    for name in text.last_layer:
        net = text.nets[name]
        inputs = text.inputs(net)
        assert len(np.unique(inputs[1])) > 1
        check_close(net, text.run(net, "file", inputs), text.run(net, "llm", inputs), ROUNDING)
