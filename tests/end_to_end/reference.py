"""What Hugging Face's model says in float32: the oracle that shares no code with the compiler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def greedy(folder: Path, prompt: Sequence[int], count: int) -> list[int]:
    """The next `count` tokens, each the most likely one."""
    model = model_of(folder)
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]
            tokens.append(int(logits.argmax()))
    return tokens[len(prompt) :]


def logits_of(folder: Path, tokens: Sequence[int]) -> np.ndarray:
    """[tokens, vocabulary]: what may follow each of them."""
    with torch.no_grad():
        logits = model_of(folder)(input_ids=torch.tensor([list(tokens)])).logits
    return np.asarray(logits[0].numpy())


def model_of(folder: Path) -> Any:
    torch.set_num_threads(1)  # tests run side by side
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
