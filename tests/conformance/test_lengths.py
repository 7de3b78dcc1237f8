"""Conversations that grow past their prompts on the vendor's runtime: the bits of the simulator, to the last token."""

from __future__ import annotations

import numpy as np
import pytest

from driver.convert import convert
from driver.options import ConvertOptions
from tests.checkpoints import LONGROPE
from tests.conformance.same import assert_same_session
from tests.end_to_end.reference import logits_of

LENGTH, PROMPT = 48, 20
TIE = 0.05  # of the logits' standard deviation: below it 16 bits may choose the other of two tokens

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


@pytest.mark.parametrize(("mode", "dtype"), [("bf16", "bfloat16"), ("f16", "float16")])
def test_an_answer_to_the_end_of_the_caches(tiny_checkpoint, tmp_path, target, mode, dtype):
    """Beyond longrope's original length, with the word that each type has for what is hidden."""
    folder = tiny_checkpoint("llama", dtype=dtype, layers=1, rope_scaling=LONGROPE)
    options = ConvertOptions(folder, LENGTH, mode, max_input_length=PROMPT, out_dir=tmp_path / "out", **target)
    prompt = np.random.default_rng(3).integers(0, 1024, PROMPT).tolist()
    answer = assert_same_session(convert(options), prompt, LENGTH - PROMPT + 1)
    logits = logits_of(folder, [*prompt, *answer[:-1]])[PROMPT - 1 :]
    gaps = logits.max(axis=1) - logits[np.arange(len(answer)), answer]
    assert (gaps < TIE * logits.std(axis=1)).all()
