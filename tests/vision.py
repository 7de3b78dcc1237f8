"""Tiny models that see, as Hugging Face has them, and their checkpoints: every parameter random, tokenizer,
template and the settings of the processor with it.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from tests.checkpoints import write_json, write_tokenizer

HIDDEN, VOCABULARY = 128, 512
PATCH, WINDOW, TILE = 14, 56, 56  # pixels of a side
TILE_TOKENS = 4
START, PLACE, END = VOCABULARY - 3, VOCABULARY - 2, VOCABULARY - 1  # tokens around and of a picture
TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
GRID_TOWER = {
    "depth": 2,
    "fullatt_block_indexes": [1],
    "hidden_size": 64,
    "num_heads": 2,
    "intermediate_size": 96,
    "out_hidden_size": HIDDEN,
    "patch_size": PATCH,
    "spatial_merge_size": 2,
    "window_size": WINDOW,
}
TILE_TOWER = {
    "model_type": "internvl_vision",
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "image_size": [TILE, TILE],
    "patch_size": [PATCH, PATCH],
    "attention_bias": True,
}
PLACES = {
    "image_token_id": PLACE,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "text_config": {
            **TEXT,
            "model_type": "qwen2_5_vl_text",
            "rope_scaling": {"rope_type": "default", "type": "mrope", "mrope_section": [4, 6, 6]},
        },
        "vision_config": GRID_TOWER,
        "tie_word_embeddings": False,
        **PLACES,
    },
    "internvl": {
        "text_config": {**TEXT, "model_type": "qwen2"},
        "vision_config": TILE_TOWER,
        "image_seq_length": TILE_TOKENS,
        "tie_word_embeddings": False,
        "image_token_id": PLACE,
    },
}
WORDS = {
    "qwen2_5_vl": ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"),
    "internvl": ("<img>", "<IMG_CONTEXT>", "</img>"),
}
PROCESSORS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "min_pixels": 4 * PATCH**2,
        "max_pixels": 64 * PATCH**2,
    },
    "internvl": {
        "image_processor_type": "GotOcr2ImageProcessor",
        "size": {"height": TILE, "width": TILE},
        "crop_to_patches": True,
        "min_patches": 1,
        "max_patches": 4,
    },
}
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}: {% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}PICTURE{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "</s>{% endfor %}<s>assistant:"
)


def vision_config(name: str, **changes: Any) -> Any:
    return AutoConfig.for_model(name, **copy.deepcopy({**CONFIGS[name], **changes}))


def vision_model(name: str, seed: int = 0, **changes: Any) -> Any:
    """In float32, of values that bf16 has; norms lie around 1 and biases around 0."""
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(vision_config(name, **changes)).eval()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            values = 0.2 * rng.standard_normal(parameter.shape) + parameter.numpy()
            if parameter.dim() > 1:
                values = rng.standard_normal(parameter.shape) * np.prod(parameter.shape[1:]) ** -0.5
            parameter.copy_(torch.from_numpy(values).bfloat16())
        model.get_input_embeddings().weight.mul_(HIDDEN**0.5).copy_(
            model.get_input_embeddings().weight.bfloat16()
        )
    return model


def make_vision_checkpoint(folder: Path, name: str, seed: int = 0, **changes: Any) -> Path:
    """In bf16."""
    write_settings(folder, name)
    vision_model(name, seed, **changes).to(torch.bfloat16).save_pretrained(folder)
    return folder


def write_settings(folder: Path, name: str) -> Path:
    """Tokenizer, template, and the settings of model and processor."""
    folder.mkdir(exist_ok=True)
    vision_config(name).save_pretrained(folder)
    write_tokenizer(folder, VOCABULARY)
    _add_words(folder, name)
    write_json(folder / "preprocessor_config.json", PROCESSORS[name])
    return folder


def _add_words(folder: Path, name: str) -> None:
    """Words for pictures in the tokenizer and the chat template."""
    start, place, end = WORDS[name]
    tokens = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    for number, word in ((START, start), (PLACE, place), (END, end)):
        del vocabulary[next(old for old, each in vocabulary.items() if each == number)]
        vocabulary[word] = number
        settings = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        tokens["added_tokens"].append({"id": number, "content": word, "special": True, **settings})
    write_json(folder / "tokenizer.json", tokens)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    picture = f"{start}{place}{end}" if name == "qwen2_5_vl" else f"{place}\n"
    settings["chat_template"] = TEMPLATE.replace("PICTURE", picture)
    write_json(folder / "tokenizer_config.json", settings)
