"""What a GGUF file says of the model and transformers' own reader leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.diagnostics import UserError
from compiler.files import open_file
from compiler.gguf import GgufFile

FREQUENCIES = "rope_freqs.weight"  # what each frequency is divided by
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
# Those of llama 3, for which alone llama.cpp's converter writes such a tensor.
LOW, HIGH, ORIGINAL = 1.0, 4.0, 8192
TOLERANCE = 1e-4  # of a factor in f32


SOFTCAPS = ("attn_logit_softcapping", "final_logit_softcapping")


def settings_left_out(file: GgufFile) -> dict[str, Any]:
    """Values of config.json: the size of heads, how much of it turns, how positions are scaled, caps."""
    found: dict[str, Any] = {}
    for name in SOFTCAPS:
        if (cap := file.metadata.get(f"{file.architecture}.{name}")) is not None:
            found[name] = cap
    if scaling := rope_scaling(file):
        found["rope_scaling"] = scaling
    turned, head = _number(file, "rope.dimension_count"), _number(file, "attention.key_length")
    if head is not None:
        found["head_dim"] = head
    elif heads := _number(file, "attention.head_count"):
        head = (_number(file, "embedding_length") or 0) // heads
    if turned and head and turned < head:
        found["partial_rotary_factor"] = turned / head
    return found


def _number(file: GgufFile, name: str) -> int | None:
    value = file.metadata.get(f"{file.architecture}.{name}")
    return value if isinstance(value, int) else None


def rope_scaling(file: GgufFile) -> dict[str, Any] | None:
    """As config.json has it; None for positions as they are. UserError for what cannot be told."""
    if FREQUENCIES in file.tensors:
        return _llama3(file)
    kind = file.metadata.get(f"{file.architecture}.rope.scaling.type", "none")
    if LONG in file.tensors:
        long, short = (_floats(file, name).tolist() for name in (LONG, SHORT))
        return {"rope_type": "longrope", "long_factor": long, "short_factor": short} | _original(file)
    if kind in ("linear", "yarn"):
        factor = file.metadata.get(f"{file.architecture}.rope.scaling.factor", 1.0)
        return {"rope_type": kind, "factor": factor} | (_original(file) if kind == "yarn" else {})
    if kind != "none":
        raise UserError(f"{file.path}: rotary positions are scaled by '{kind}', which is not supported")
    return None


def _original(file: GgufFile) -> dict[str, Any]:
    found = file.metadata.get(f"{file.architecture}.rope.scaling.original_context_length")
    return {} if found is None else {"original_max_position_embeddings": found}


def _llama3(file: GgufFile) -> dict[str, Any]:
    """The settings whose factors are those of the file.

    Frequencies of long waves are divided by `factor`, those of short ones stay, and between them lies a
    blend. Source: `_compute_llama3_parameters` in transformers 5.23.
    """
    factors = _floats(file, FREQUENCIES)
    base = float(file.metadata.get(f"{file.architecture}.rope.freq_base", 10000.0))
    factor = float(factors.max())
    waves = 2 * np.pi * base ** (np.arange(len(factors)) / len(factors))
    share = (ORIGINAL / waves - LOW) / (HIGH - LOW)
    blend = 1 / ((1 - share) / factor + share)
    expected = np.where(share < 0, factor, np.where(share > 1, 1.0, blend))
    if not np.allclose(factors, expected, rtol=TOLERANCE):
        raise UserError(f"{file.path}: the factors of {FREQUENCIES} are not those of llama 3, as expected")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": ORIGINAL,
    }


def _floats(file: GgufFile, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    tensor = file.tensors.get(name)
    if tensor is None or tensor.kind.name != "F32":
        raise UserError(f"{file.path}: expected {name} in f32")
    with open_file(file.path) as data:
        data.seek(tensor.start)
        return np.frombuffer(data.read(tensor.nbytes), np.float32)
