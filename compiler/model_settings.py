"""Which keys of a checkpoint's config.json say what the model computes."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

# How weights are stored, who wrote the code, what the labels of a classifier are, what a call returns.
OTHER_KEYS = (
    *("quantization_config", "compression_config", "auto_map", "dtype", "torch_dtype"),
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
    *("num_labels", "id2label", "label2id", "problem_type"),
    *("return_dict", "output_attentions", "output_hidden_states", "use_cache", "torchscript"),
)


def computing(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of config.json for `transformers.AutoConfig.for_model`, without the other keys, which parts of a
    model may have as well.
    """
    kept = {key: value for key, value in config.items() if key not in OTHER_KEYS}
    return {key: computing(value) if _is_part(key, value) else deepcopy(value) for key, value in kept.items()}


def _is_part(key: str, value: Any) -> bool:
    return key.endswith("_config") and isinstance(value, Mapping)
