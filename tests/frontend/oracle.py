"""Run an imported model by the client's rules, and the transformers model itself, on the same weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
import transformers

import runtime_sim.interpret.llm  # noqa: F401  (registers the rules)
from compiler.ir.module import walk
from compiler.ir.types import F32
from compiler.weights.part import part_of
from dialects.builtin import ModuleOp
from frontend.imported import ImportedModel, NetGroup
from frontend.importer import import_model
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.rules import interpret

SEQ_LENGTH, INPUT_LENGTH, PROMPT = 24, 16, 11
COUNTED = np.arange(PROMPT + 1)[None]  # positions of the prompt and the token that follows
HIDDEN = -9984.0  # the client's mask word
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
RECOGNIZED = "canonicalize,recognize-activations,recognize-norms,recognize-rope,canonicalize"
FUSED = f"{RECOGNIZED},fuse-swiglu,fuse-qkv,fuse-gate-up,fold-scale,fuse-residual,canonicalize"


@dataclass
class Subject:
    """A model of transformers with random weights, and what we make of its configuration."""

    reference: Any
    imported: ImportedModel
    parameters: dict[str, np.ndarray]

    @classmethod
    def make(cls, model_type: str, **settings: Any) -> Subject:
        return cls.of({**SMALL, **settings, "model_type": model_type})

    @classmethod
    def of(cls, config: dict[str, Any]) -> Subject:
        reference = reference_model(config)
        imported = import_model(copy.deepcopy(config), SEQ_LENGTH, INPUT_LENGTH, dtype=F32)
        parameters = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
        return cls(reference, imported, parameters)

    def fuse(self, pipeline: str = FUSED) -> Subject:
        load_all()
        for group in self.imported.nets:
            PassManager(parse_pipeline(pipeline)).run(group.module)
        return self

    def copy(self) -> Subject:
        """The same, with modules of its own."""
        groups = [
            NetGroup(cast(ModuleOp, group.module.clone()), list(group.instances)) for group in self.imported.nets
        ]
        return replace(self, imported=replace(self.imported, nets=groups))

    def error(self, positions: np.ndarray = COUNTED) -> float:
        """Largest difference of logits over the last prompt token and one decode step, over the largest logit.

        `positions` are [streams, tokens] of the prompt and the token that follows.
        """
        ids = np.random.default_rng(1).integers(3, 128, PROMPT + 1)
        expected = self.expected(ids, positions)
        got = np.concatenate(self.logits(ids, positions))
        return float(np.abs(got - expected).max() / np.abs(expected).max())

    def expected(self, ids: np.ndarray, positions: np.ndarray = COUNTED) -> np.ndarray:
        """Logits [2, V] after the last prompt token and after the one that follows."""
        given = torch.from_numpy(positions.reshape(-1, 1, PROMPT + 1) if len(positions) > 1 else positions)
        with torch.no_grad():
            output = self.reference(
                input_ids=torch.from_numpy(ids)[None], position_ids=given, use_cache=False
            )
        return np.asarray(output.logits[0, -2:].numpy())

    def logits(self, ids: np.ndarray, positions: np.ndarray = COUNTED) -> tuple[np.ndarray, np.ndarray]:
        """The same from our modules: a padded prefill, then a decode step with rubbish in unused history."""
        prompt = np.zeros((1, INPUT_LENGTH), np.int32)
        prompt[0, :PROMPT] = ids[:-1]
        positions = positions.astype(np.int32)
        padded = np.pad(positions[:, :PROMPT], ((0, 0), (0, INPUT_LENGTH - PROMPT)))
        x = self.run("embedding", [prompt])[0]
        history = []
        for index in range(self.reference.config.get_text_config().num_hidden_layers):
            x, k, v = self.run(f"block_{index}", [x, padded, prefill_mask()])
            history.append([with_rubbish(k), with_rubbish(v)])
        first = self.head(x[:, PROMPT - 1])
        x = self.run("embedding_cache", [ids[None, -1:].astype(np.int32)])[0]
        for index, (k, v) in enumerate(history):
            x, _, _ = self.run(f"block_cache_{index}", [x, positions[:, PROMPT:], decode_mask(), k, v])
        return first, self.head(x[:, 0])

    def run(self, net: str, inputs: Sequence[np.ndarray], observer: Any = None) -> list[np.ndarray]:
        _, function, instance = self.imported.find(net)
        weights = lambda name: parameter(self.parameters, instance.parameter_name(name))  # noqa: E731
        return interpret(function, inputs, weights, self.imported.tables, observer)

    def head(self, hidden: np.ndarray) -> np.ndarray:
        """Logits [1, V], which the module keeps to itself; its token must be the largest."""
        seen: list[np.ndarray] = []
        (token,) = self.run("lm_head", [hidden], lambda op, results: seen.append(results[0]))
        assert token[0, 0] == seen[-2].argmax()
        return seen[-2]


def parameter(parameters: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A parameter, or what the name says of one."""
    weight, _, factors = name.partition("^*")
    if factors:
        values, scale = (parameter(parameters, each) for each in (weight, factors))
        return values * scale.reshape(-1, *(1,) * (values.ndim - 1))
    part = part_of(name)
    return parameters[name] if part is None else part.of(parameters[part.parameter][part.experts])


def reference_model(config: dict[str, Any]) -> Any:
    """The eager float32 model, every parameter random: fresh norms of 1 and biases of 0 hide a lost one."""
    torch.manual_seed(0)
    settings = transformers.AutoConfig.for_model(**copy.deepcopy(config))
    sees = "vision_config" in config
    made = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
    model = made.from_config(settings, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim > 1:
                inputs = parameter[0].numel() if parameter.ndim > 3 else parameter.shape[-1]
                parameter.copy_(noise / inputs**0.5)
            else:
                parameter.add_(0.3 * noise)
    return model.eval()


def prefill_mask() -> np.ndarray:
    """[1, 1, M, M]: causal among prompt tokens; padding sees nothing, and nothing sees padding."""
    row, column = np.mgrid[:INPUT_LENGTH, :INPUT_LENGTH]
    visible = (column <= row) & (row < PROMPT)
    return np.where(visible, 0, HIDDEN).astype(np.float32)[None, None]


def decode_mask() -> np.ndarray:
    """[1, 1, 1, S + 1]: the prompt and the new token itself, which is the last column."""
    slot = np.arange(SEQ_LENGTH + 1)
    visible = (slot < PROMPT) | (slot == SEQ_LENGTH)
    return np.where(visible, 0, HIDDEN).astype(np.float32)[None, None, None]


def with_rubbish(rows: np.ndarray) -> np.ndarray:
    """History [1, S, h, D] with the prompt's rows and finite nonsense behind them."""
    history = np.full((1, SEQ_LENGTH, *rows.shape[2:]), 7.0, np.float32)
    history[:, :PROMPT] = rows[:, :PROMPT]
    return history


def ops_of(subject: Subject, kind: type[Any]) -> list[Any]:
    """Every op of a class in the layers."""
    groups = [group for group in subject.imported.nets if group.of_layers]
    return [op for group in groups for op in walk(group.module) if isinstance(op, kind)]
