"""What the numbers of a config.json may be.

transformers checks the types of most keys and the ranges of few: a norm with an epsilon of NaN is built,
traced and compiled like any other. Keys that are not named here are the library's business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from compiler.diagnostics import UserError, shown

MOST_POSITIONS = 1 << 24  # published models have up to 10,485,760
LARGEST = 3.4e38  # beyond it a number is none in f32, which models compute in


class Rule(NamedTuple):
    """Keys, by a pattern that matches them whole, and what is expected of their values."""

    keys: str
    holds: Callable[[Any], bool]
    expected: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


RULES = (
    Rule(
        r"(hidden|intermediate|vocab)_size|head_dim|num_(hidden_layers|attention_heads|key_value_heads)"
        r"|n_(embd|head|layer)",
        _is_count,
        "a whole number above 0",
    ),
    Rule(
        r"(original_)?max_position_embeddings|n_(positions|ctx)",
        lambda value: _is_count(value) and value <= MOST_POSITIONS,
        f"a whole number from 1 to {MOST_POSITIONS}",
    ),
    Rule(r"(\w+_)?eps(ilon)?", lambda value: _is_number(value) and 0 < value < 1, "a number between 0 and 1"),
    Rule(
        r"(\w+_)?rope_theta|rope_\w+_base_freq|rotary_emb_base|factor|attention_factor|(low|high)_freq_factor"
        r"|beta_(fast|slow)",
        lambda value: _is_number(value) and value > 0,
        "a number above 0",
    ),
    Rule(
        r"partial_rotary_factor|rotary_pct",
        lambda value: _is_number(value) and 0 < value <= 1,
        "a number above 0 and up to 1",
    ),
)
ROPE_SETTINGS = ("rope_scaling", "rope_parameters")  # objects with keys of their own that the rules are for
PARTS = ("text_config", "vision_config")  # what models of several parts keep of each
FACTORS = ("short_factor", "long_factor")  # of longrope: lists


def check_numbers(values: Mapping[str, Any], path: Path) -> None:
    """Refuse numbers that no model computes with, by key. null and lists are left to the library."""
    for key, value in all_numbers(values):
        if not abs(value) <= LARGEST:
            raise UserError(f"{path}: {shown(key)} is {_json(value)}, expected a finite number")
    for key, value in _ruled(values):
        name = key.rpartition(".")[2]
        rule = next((rule for rule in RULES if re.fullmatch(rule.keys, name)), None)
        if rule and not isinstance(value, list | None) and not rule.holds(value):
            raise UserError(f"{path}: {key} is {_json(value)}, expected {rule.expected}")
        if name in FACTORS and not (isinstance(value, list) and all(_is_number(x) and x > 0 for x in value)):
            raise UserError(f"{path}: {key} is {_json(value)}, expected a list of numbers above 0")


def all_numbers(value: Any, key: str = "") -> Iterator[tuple[str, int | float]]:
    """Each number of a JSON value with the keys that lead to it, as in "rope_scaling.factor"."""
    if _is_number(value):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from all_numbers(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for inner in value:
            yield from all_numbers(inner, key)


def _ruled(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of config.json and of a model's parts, and those of rope settings, which may be an object per
    kind of layer.
    """
    for key, value in values.items():
        if isinstance(value, dict):
            if prefix or key in ROPE_SETTINGS or key in PARTS:
                yield from _ruled(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _json(value: Any) -> str:
    """A value as config.json has it, NaN and true among them."""
    return shown(json.dumps(value))
