"""Which weights have bits of their own, from the flags to the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.bmodel import read_bmodel
from compiler.diagnostics import UserError
from compiler.ir.types import BF16, F16
from compiler.weights.scheme import Scheme
from dialects.weights import stored_bits
from driver.convert import convert
from driver.groups import groups_to_compile
from driver.options import ConvertOptions
from driver.precision import Precision, linears_of
from driver.rules import Rule, head_rule
from frontend.imported import ImportedModel
from frontend.importer import import_model
from runtime_sim.launch.runtime import Runtime
from runtime_sim.launch.session import Session
from runtime_sim.tool.reference import Reference
from tests.driver.test_groups import TIED
from tests.frontend.oracle import SMALL

LAYERS = 4


@pytest.fixture(scope="module")
def model() -> ImportedModel:
    return import_model({**SMALL, "model_type": "llama", "num_hidden_layers": LAYERS}, 8)


def precision(model: ImportedModel, *rules: str, group: int = 32) -> Precision:
    return Precision.of(model, [Rule.parse(text) for text in rules], group)


def split(model: ImportedModel, chosen: Precision) -> list[tuple[list[int | None], dict[str, int]]]:
    """Of each group: its layers, and what of it has bits of its own."""
    parts = [part for group in model.nets for part in chosen.split(group)]
    return [([each.layer for each in part.instances], chosen.kept(part)) for part in parts]


def test_without_rules_nothing_differs(model):
    chosen = Precision.of(model, [], 64)
    assert split(model, chosen) == [([None], {}), ([None], {}), ([0, 1, 2, 3], {})]
    assert not chosen.narrow


def test_the_linears_of_a_group_are_found_once_for_each_layer(model):
    blocks = [group for group in model.nets if group.of_layers]
    names = [linear.module for linear in linears_of(blocks[0])]
    assert len(names) == len(set(names)) == 7 * LAYERS
    assert {"model.layers.2.self_attn.o_proj", "model.layers.0.mlp.gate_proj"} <= set(names)


def test_a_pattern_over_all_layers_splits_none(model):
    found = split(model, precision(model, "model.layers.*.mlp.down_proj=8"))
    assert found[2:] == [([0, 1, 2, 3], {"mlp.down_proj": 8})]


def test_layers_that_are_chosen_apart_are_compiled_apart(model):
    found = split(model, precision(model, "model.layers.1.*=8", "*.1.mlp.up_proj=16", "*.self_attn.v_proj=8"))
    others = {"self_attn.v_proj": 8}
    inside = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"}
    assert found[2:] == [
        ([0, 2, 3], others),
        ([1], dict.fromkeys(inside, 8) | {"mlp.up_proj": 16} | others),
    ]


def test_the_head_is_chosen_by_its_flag_or_by_its_name(model):
    for chosen in (Precision.of(model, [head_rule(8)], 32), precision(model, "lm_head=8")):
        assert split(model, chosen) == [([None], {}), ([None], {"lm_head": 8}), ([0, 1, 2, 3], {})]
        assert chosen.narrow == {"lm_head.weight"}


def test_a_head_in_fewer_bits_does_not_share_the_embeddings_memory(model):
    names = {
        bits: [group.name for group in groups_to_compile(model, TIED, False, precision(model, f"lm_head={bits}").narrow)]
        for bits in (16, 8)
    }
    assert names == {16: ["embedding", "block_0"], 8: ["embedding", "lm_head", "block_0"]}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("model.layers.*.mlp.dwn_proj=8", r"--keep .*dwn_proj=8: .* no linear of such a name; near it: .*mlp\.down_proj"),
        ("model.norm=8", "--keep model.norm=8: the model has no linear of such a name"),
        ("model.embed_tokens=8", "--keep model.embed_tokens=8: the model has no linear"),
        ("*.q_proj=8", r"--keep \*\.q_proj=8 with -g 48: the weight of model\.layers\.0\.self_attn\.q_proj has no whole groups"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(model, rule, message):
    with pytest.raises(UserError, match=message):
        precision(model, rule, group=48)


def test_what_the_checkpoint_stores_in_other_bits_is_not_chosen():
    name = "model.layers.0.mlp.down_proj.weight"
    model = import_model({**SMALL, "model_type": "llama"}, 8, schemes={name: Scheme(4, 32, True, F16)})
    assert precision(model, "*.mlp.down_proj=4").chosen[name] == 4
    with pytest.raises(UserError, match=r"model\.layers\.0\.mlp\.down_proj has 4 bits in the checkpoint, which stay"):
        precision(model, "*.mlp.down_proj=16")


# ---- from the flags to the file ----


@pytest.fixture(scope="module")
def mixed(tiny_checkpoint, tmp_path_factory) -> tuple[Path, Path]:
    """A tied model with a head of 8 bits, and layers of their own precision."""
    folder = tiny_checkpoint("qwen3", tied=True, layers=3)
    keep = ["model.layers.1.self_attn.k_proj=8", "model.layers.*.mlp.down_proj=16"]
    out = tmp_path_factory.mktemp("mixed") / "out"
    bmodel = convert(ConvertOptions(folder, 64, "w4bf16", lm_head_quantize=8, keep=keep, out_dir=out))
    assert bmodel is not None
    return folder, bmodel


def bits_in(bmodel: Path, net: str) -> set[int | None]:
    coeff = read_bmodel(bmodel).net(net).stages[0].coeff
    assert coeff is not None
    return {stored_bits(part.name) for part in coeff.locations} - {None}


def test_the_file_stores_each_weight_in_its_bits(mixed):
    _, bmodel = mixed
    found = {net: bits_in(bmodel, net) for net in ("embedding", "lm_head", "block_0", "block_1", "block_cache_2")}
    assert found == {
        "embedding": {16},
        "lm_head": {8},
        "block_0": {4, 16},
        "block_1": {4, 8, 16},
        "block_cache_2": {4, 16},
    }


def test_the_head_says_the_tokens_of_the_model(mixed):
    """Given the reference's states, so that the blocks do not count."""
    folder, bmodel = mixed
    trace = Reference(folder).trace([5, 17, 99, 300, 41])
    session = Session(Runtime(read_bmodel(bmodel)))
    for state, logits in zip(trace.layers[-1].states_out, trace.logits, strict=True):
        token = session.next_token(state.astype(BF16.numpy).view(np.uint8))
        assert logits.max() - logits[token] < 0.05 * logits.std()
