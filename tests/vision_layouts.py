"""Tiny checkpoints of models that see, in the layouts that are published."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tests.checkpoints import write_json, write_tensors
from tests.frontend.oracle import reference_model

Tensors = dict[str, np.ndarray]


def make_seeing_checkpoint(
    folder: Path, config: dict[str, Any], layout: Callable[[str], str] = str, dtype: Any = ml_dtypes.bfloat16
) -> Path:
    """The parameters of the reference model, by the keys that `layout` makes of the library's names."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", {**config, "torch_dtype": np.dtype(dtype).name})
    tensors = {layout(name): values.astype(dtype) for name, values in parameters(config).items()}
    write_tensors(folder, iter(tensors.items()), len(tensors), 1)
    return folder


def parameters(config: dict[str, Any]) -> Tensors:
    state = reference_model(config).state_dict()
    return {name: value.numpy() for name, value in state.items()}


def old_qwen_key(name: str) -> str:
    """As the checkpoints of Qwen2.5-VL on the hub have it."""
    return re.sub(r"^model\.(visual\.)?(language_model\.)?", lambda m: m[1] or "model.", name)


ORIGINAL_NAMES = {  # of InternVL 2.5 and 3 on the hub, by the library's, in the order in which they are tried
    "model.vision_tower.embeddings.cls_token": "vision_model.embeddings.class_embedding",
    "model.vision_tower.embeddings.position_embeddings": "vision_model.embeddings.position_embedding",
    "model.vision_tower.embeddings.patch_embeddings.projection.": "vision_model.embeddings.patch_embedding.",
    "model.vision_tower.encoder.layer.": "vision_model.encoder.layers.",
    "attention.projection_layer.": "attn.proj.",
    "attention.": "attn.",
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "lambda_": "ls",
    "model.multi_modal_projector.layer_norm.": "mlp1.0.",
    "model.multi_modal_projector.linear_1.": "mlp1.1.",
    "model.multi_modal_projector.linear_2.": "mlp1.3.",
    "model.language_model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
}


def original_internvl_key(name: str) -> str:
    for ours, theirs in ORIGINAL_NAMES.items():
        if not name.startswith("language_model.") or ours.startswith("model."):
            name = name.replace(ours, theirs)
    return name


def original_internvl_config(config: dict[str, Any]) -> dict[str, Any]:
    """config.json of the original layout for a native configuration."""
    vision = dict(config["vision_config"])
    vision["qkv_bias"], vision["qk_normalization"] = vision.pop("attention_bias"), False
    vision["image_size"], vision["patch_size"] = vision["image_size"][0], vision["patch_size"][0]
    del vision["use_absolute_position_embeddings"]
    return {
        "model_type": "internvl_chat",
        "ps_version": "v2",
        "select_layer": config["vision_feature_layer"],
        "downsample_ratio": config["downsample_ratio"],
        "force_image_size": vision["image_size"],
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "llm_config": {**config["text_config"], "torch_dtype": "bfloat16", "attn_implementation": "eager"},
        "vision_config": {**vision, "model_type": "intern_vit_6b", "use_flash_attn": True},
    }


def make_original_internvl(folder: Path, config: dict[str, Any], **changes: Any) -> Path:
    """The reference's parameters in the original layout: queries, keys and values of a tower are one tensor."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", {**original_internvl_config(config), "torch_dtype": "bfloat16", **changes})
    tensors: Tensors = {}
    joined: dict[str, list[np.ndarray]] = {}
    for name, values in parameters(config).items():
        part = re.search(r"vision_tower.*attention\.[qkv]_proj", name)
        key = original_internvl_key(name)
        if part:
            joined.setdefault(re.sub(r"[qkv]_proj", "qkv", key), []).append(values)
        else:
            tensors[key] = values
    tensors |= {key: np.concatenate(parts) for key, parts in joined.items()}
    write_tensors(folder, ((key, values.astype(ml_dtypes.bfloat16)) for key, values in tensors.items()), len(tensors), 1)
    return folder
