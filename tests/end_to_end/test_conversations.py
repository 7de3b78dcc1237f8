"""Conversations that grow past what a prompt may have, to the last token of the caches, against Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.diagnostics import UserError
from driver.convert import convert
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from runtime_sim.tool.chat import open_session
from tests.checkpoints import LLAMA3_ROPE, LONGROPE
from tests.end_to_end.reference import logits_of

TIE = 0.05  # of the logits' standard deviation: what rounding to 16 bit may decide
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
ONE = {"layers": 1}

CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {  # family, mode, checkpoint, options
    "no scaling": ("qwen3", "bf16", {}, {"max_input_length": 24}),
    "rows of lanes that are not full": ("llama", "bf16", ONE, {"seq_length": 100, "max_input_length": 65}),
    "prompts of two tokens": ("qwen2", "bf16", ONE, {"max_input_length": 2}),
    "one token less than all": ("qwen2", "bf16", ONE, {"max_input_length": 63}),
    "f16": ("qwen2", "f16", {"dtype": "float16"}, {"max_input_length": 24}),
    "f16, windows": ("mistral", "f16", {"dtype": "float16", "sliding_window": 30}, {"max_input_length": 20}),
    "windows": ("mistral", "bf16", {"sliding_window": 30}, {"max_input_length": 20}),
    "embedding on disk": ("qwen2", "bf16", ONE, {"max_input_length": 24, "embedding_disk": True}),
    "logits": ("qwen2", "bf16", ONE, {"max_input_length": 24, "do_sample": True}),
    "llama3": ("llama", "bf16", {"rope_scaling": LLAMA3_ROPE}, {"max_input_length": 24}),
    "yarn": ("qwen2", "bf16", {"rope_scaling": YARN, "max_position_embeddings": 96}, {"max_input_length": 20}),
    "linear": ("llama", "bf16", ONE | {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, {"max_input_length": 20}),
    "dynamic, all positions": (
        "llama",
        "bf16",
        ONE | {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": 64},
        {"max_input_length": 24},
    ),
    "longrope, short": ("llama", "bf16", {"rope_scaling": LONGROPE}, {"seq_length": 40, "max_input_length": 24}),
    "longrope, long": ("llama", "bf16", {"rope_scaling": LONGROPE}, {"max_input_length": 24}),
    "longrope, long prompts": ("llama", "bf16", {"rope_scaling": LONGROPE}, {"max_input_length": 50}),
}  # fmt: skip


@dataclass(frozen=True)
class Conversation:
    """A prompt as long as may be, and the answer that fills the caches."""

    checkpoint: Path
    file: Path
    prompt: list[int]
    answer: list[int]

    def lost(self, checkpoint: Path) -> list[int]:
        """The places of tokens that are not the likeliest to that model, by more than rounding may decide."""
        fed = [*self.prompt, *self.answer[:-1]]
        logits = logits_of(checkpoint, fed)[len(self.prompt) - 1 :]
        gaps = logits.max(axis=1) - logits[np.arange(len(self.answer)), self.answer]
        return [*np.flatnonzero(gaps > TIE * logits.std(axis=1)).tolist()]


@pytest.fixture(scope="module")
def held(tiny_checkpoint, tmp_path_factory) -> Callable[[str], Conversation]:
    """The conversation of a case, held once."""

    @cache
    def hold(case: str) -> Conversation:
        family, mode, settings, flags = CASES[case]
        folder, out = tiny_checkpoint(family, **settings), tmp_path_factory.mktemp("compiled") / "out"
        options = ConvertOptions(folder, **{"seq_length": 64} | flags, quantize=mode, out_dir=out)
        file = convert(
            replace(options, passes=default_pipeline(options))
        )  # no search for the fastest program
        prompt = np.random.default_rng(3).integers(0, 1024, options.input_length).tolist()
        answer = list(open_session(file, file.parent / "config", exact=False).stream(prompt))
        assert len(prompt) + len(answer) == options.seq_length + 1
        return Conversation(folder, file, prompt, answer)

    return hold


@pytest.mark.parametrize("case", CASES)
def test_an_answer_to_the_end_of_the_caches_is_that_of_hugging_face(held, case):
    assert held(case).lost(held(case).checkpoint) == []


@pytest.mark.parametrize("case", ["llama3", "yarn", "linear", "longrope, long", "windows", "f16, windows"])
def test_answers_follow_what_depends_on_the_length(held, tmp_path, case):
    """Or a test of them would pass without it."""
    assert len(held(case).lost(without_lengths(held(case).checkpoint, tmp_path))) > 3


def without_lengths(checkpoint: Path, folder: Path) -> Path:
    """The checkpoint as a model with plain rotary positions, that sees everything."""
    settings = json.loads((checkpoint / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"rope_scaling": None, "sliding_window": None}))
    (folder / "model.safetensors").symlink_to(checkpoint / "model.safetensors")
    return folder


def test_a_prompt_longer_than_the_blocks_take_is_refused_by_number(held):
    file = held("no scaling").file
    session = open_session(file, file.parent / "config", exact=False)
    with pytest.raises(UserError, match=r"has 25 tokens, this file takes at most 24: .*--max_input_length"):
        session.check_prompt([1] * 25)


@pytest.mark.parametrize(("case", "word"), [("no scaling", -9984.0), ("f16", -10000.0)])
def test_what_a_client_hides_has_the_word_of_its_type(held, case, word):
    session = open_session(held(case).file, held(case).file.parent / "config", exact=False)
    session.set_prompt(3)
    session.set_step(5, session.caches)
    prompt, step = (nets[0].inputs[2].array.astype(np.float32) for nets in (session.blocks, session.caches))
    row, column = np.mgrid[:24, :24]
    np.testing.assert_array_equal(prompt[0, 0], np.where((column <= row) & (row < 3), 0, word))
    np.testing.assert_array_equal(step.ravel(), [0.0] * 5 + [word] * 59 + [0.0])
