"""Whole imported models: groups of layers, tables, schemes, and masks that no client writes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from compiler.diagnostics import CompileError, UserError
from compiler.ir.module import walk
from compiler.ir.printer import print_module
from compiler.ir.types import F16
from compiler.ir.verify import verify
from compiler.weights.scheme import Scheme
from dialects import llm
from frontend.build import native_model
from frontend.imported import ImportedModel
from frontend.importer import import_model
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from tests.frontend.models import QWEN3, check_refused, config, layers_of
from tests.frontend.oracle import RECOGNIZED


@pytest.fixture(scope="module")
def qwen3():
    return import_model(QWEN3, 24, 16)


def test_equal_layers_are_one_module_and_the_head_begins_with_the_norm(qwen3):
    assert layers_of(qwen3) == [[0, 1, 2]]
    for name, expected in (("block_2", False), ("block_cache_2", False), ("lm_head", True)):
        weights = [op.name for op in walk(qwen3.find(name)[1]) if isinstance(op, llm.WeightOp)]
        assert ("/model.norm.weight" in weights) is expected


def test_relative_name_needs_a_layer(qwen3):
    with pytest.raises(ValueError, match="relative to a layer"):
        qwen3.find("lm_head")[2].parameter_name("mlp.up_proj.weight")


def test_tables_are_the_rotary_values_of_all_positions(qwen3):
    assert sorted(qwen3.tables) == ["cos", "sin"]
    frequency = 1 / 10000.0 ** (np.arange(0, 32, 2) / 32)
    angle = np.tile(np.arange(24)[:, None] * frequency, 2)
    np.testing.assert_allclose(qwen3.tables["cos"], np.cos(angle), atol=1e-6)
    np.testing.assert_allclose(qwen3.tables["sin"], np.sin(angle), atol=1e-6)


def test_rope_and_norms_are_recognized_whole(qwen3):
    module = qwen3.find("block_0")[0].module.clone()
    load_all()
    PassManager(parse_pipeline(RECOGNIZED)).run(module)
    kinds = [op.opname for op in module.function("block").block.ops]
    assert kinds.count("llm.rope") == 2
    assert kinds.count("llm.rms_norm") == 4
    assert not {"llm.pow", "llm.mean", "llm.rsqrt", "llm.concat", "llm.neg"} & set(kinds)


def test_import_is_reproducible_and_takes_a_built_model():
    settings = config("llama")
    first, second = import_model(settings, 8), import_model(native_model(settings, 8), 8)
    for a, b in zip(first.nets, second.nets, strict=True):
        assert print_module(a.module) == print_module(b.module)
    assert all(np.array_equal(first.tables[name], second.tables[name]) for name in first.tables)


def test_element_type_is_chosen_by_the_caller():
    imported = import_model(config("llama"), 8, dtype=F16)
    block = imported.find("block_0")[1]
    floats = {arg.type.element for arg in block.args if arg.type.element.is_float}
    assert floats == {F16}


def test_shorter_histories_are_further_stages_of_the_same_nets():
    imported = import_model(QWEN3, 24, 16, shorter=(12, 6))
    names = [function.sym_name for function in imported.find("block_0")[0].module.functions()]
    assert names == ["block", "block_cache", "block_cache.1", "block_cache.2"]
    for name, rows in (("block_cache_2", 24), ("block_cache_2.1", 12), ("block_cache_2.2", 6)):
        group, function, instance = imported.find(name)
        verify(group.module)
        assert instance.layer == 2
        kept = f"tensor<1x{rows}x2x32xbf16>"
        mask = f"tensor<1x1x1x{rows + 1}xbf16>"
        assert f"tensor<1x1xi32>, {mask}, {kept}, {kept}) ->" in str(function.function_type)
    with pytest.raises(KeyError, match=r"has no net 'block_cache_2\.3'"):
        imported.find("block_cache_2.3")


@pytest.mark.parametrize("rope", ["yarn", "dynamic"])
def test_stages_have_the_tables_of_all_positions(rope):
    scaling = {"rope_type": rope, "factor": 2.0, "original_max_position_embeddings": 16}
    settings = config("llama", rope_scaling=scaling)
    plain, staged = import_model(settings, 24, 16), import_model(settings, 24, 16, shorter=(12,))
    assert plain.tables.keys() == staged.tables.keys()
    assert all(np.array_equal(plain.tables[name], staged.tables[name]) for name in plain.tables)
    assert all(len(table) == 24 for table in staged.tables.values())


def test_layers_that_differ_are_modules_of_their_own():
    imported = import_model(config("smollm3", num_hidden_layers=5, no_rope_layers=[1, 0, 1, 0, 1]), 8)
    assert layers_of(imported) == [[0, 2, 4], [1, 3]]


UP, DOWN = "mlp.up_proj.weight", "mlp.down_proj.weight"
FOUR, EIGHT = Scheme(4, 32, True, F16), Scheme(8, 64, False, F16)


def stored(*layers: dict[str, Scheme]) -> ImportedModel:
    """A model of so many layers whose parameters are stored as given, and the others as they are."""
    names = {f"model.layers.{i}.{name}": form for i, layer in enumerate(layers) for name, form in layer.items()}
    return import_model(config("llama", num_hidden_layers=len(layers)), 8, schemes=names)


def test_layers_whose_weights_are_stored_otherwise_are_modules_of_their_own():
    four, eight = {UP: FOUR, DOWN: EIGHT}, {UP: EIGHT, DOWN: EIGHT}
    assert layers_of(stored(four, eight, four, {UP: FOUR}, {}, {}, eight)) == [[0, 2], [1, 6], [3], [4, 5]]


def test_a_weight_has_the_scheme_that_it_is_stored_in():
    imported = stored({UP: FOUR, DOWN: EIGHT}, {})
    for net in ("block_0", "block_cache_0"):
        function = imported.find(net)[1]
        found = {op.name: op.y.type.layout for op in walk(function) if isinstance(op, llm.WeightOp)}
        assert {name: form for name, form in found.items() if form is not None} == {UP: FOUR, DOWN: EIGHT}
    text = print_module(imported.find("block_0")[0].module)
    assert "#w4_32 = #weights.scheme<bits = 4, group = 32, zeros = true, scale = f16>" in text
    assert "#weights.scheme" not in print_module(imported.find("block_1")[0].module)


def ordered(*layers: dict[str, str]) -> ImportedModel:
    """A model whose linears are stored in 8 bits, some with inputs in an order: its name by weight."""
    names = {f"model.layers.{i}.{name}": i for i, layer in enumerate(layers) for name in layer}
    orders = {f"model.layers.{i}.{name}": f"model.layers.{i}.{layer[name]}" for i, layer in enumerate(layers) for name in layer}
    schemes = dict.fromkeys(names, Scheme(8, 16, False, F16))
    return import_model(config("llama", num_hidden_layers=len(layers)), 8, schemes=schemes, orders=orders)


Q, K, V = (f"self_attn.{each}_proj.weight" for each in "qkv")


def test_linears_of_one_input_and_order_share_a_take():
    shared = {Q: f"{Q}.order", K: f"{Q}.order", V: f"{V}.order"}
    group, function, _ = ordered(shared, shared).find("block_0")
    verify(group.module)
    takes = [op for op in walk(function) if isinstance(op, llm.TakeOp)]
    assert [op.order.defining(llm.IndicesOp).name for op in takes] == [f"{Q}.order", f"{V}.order"]
    readers = [{user.weight.owner.name for user in op.y.users} for op in takes]
    assert readers == [{Q, K}, {V}]


def test_layers_whose_linears_share_other_orders_are_modules_of_their_own():
    alike, other = {Q: f"{Q}.order", K: f"{Q}.order"}, {Q: f"{Q}.order", K: f"{K}.order"}
    assert layers_of(ordered(alike, other, alike, other)) == [[0, 2], [1, 3]]


def test_an_order_of_a_weight_that_no_linear_reads_is_refused():
    name = "model.layers.0.input_layernorm.weight"
    with pytest.raises(UserError, match=r"cannot import .*reads a weight that a checkpoint stores for linears"):
        import_model(config("llama"), 8, orders={name: f"{name}.order"})


def test_the_head_may_be_stored_as_codes():
    imported = import_model(config("llama"), 8, schemes={"lm_head.weight": EIGHT})
    assert "#w8_64" in print_module(imported.find("lm_head")[0].module)
    verify(imported.find("lm_head")[0].module)


def test_codes_where_rows_are_looked_up_are_refused():
    imported = import_model(config("llama"), 8, schemes={"model.embed_tokens.weight": EIGHT})
    with pytest.raises(CompileError, match="which only linears can"):
        verify(imported.find("embedding")[0].module)


def test_rope_tables_of_two_kinds_of_layers_have_names_of_their_own():
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    settings = config("gemma3_text", head_dim=16, sliding_window=32, layer_types=kinds)
    imported = import_model(settings, 8)
    assert sorted(imported.tables) == ["cos", "cos_1", "sin", "sin_1"]
    assert layers_of(imported) == [[0, 2], [1]]


def test_folder_is_read_for_its_configuration_alone(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config("llama", auto_map={"AutoModel": "evil.Model"})))
    (tmp_path / "evil.py").write_text("raise SystemExit('remote code ran')")
    assert import_model(tmp_path, 8).find("block_0")[2].prefix == "model.layers.0."


REFUSED = {
    "encoder": (config("bert"), r"bert\.encoder\.layer\.0 has a full attention mask where a causal one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_model_that_is_not_understood_is_refused_by_name(case):
    check_refused(*REFUSED[case])


LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 16,
}


@pytest.mark.parametrize("prompt", [8, 16, 20, 24])
def test_longrope_turns_by_the_factors_of_the_whole_length(prompt):
    """By position 1, whatever the prompts: 1 / factor for the fastest pair."""
    settings = config("llama", rope_scaling=LONGROPE)
    for length, angle in ((min(prompt, 16), 1.0), (24, 0.5)):
        tables = import_model(settings, length, min(prompt, length)).tables
        assert tables["sin"][1, 0] / tables["cos"][1, 0] == pytest.approx(np.tan(angle), rel=1e-6)
        assert len(tables["sin"]) == length


def test_tables_that_only_a_short_run_has_otherwise_are_refused():
    dynamic = {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 16}
    assert import_model(config("llama", **dynamic), 16).tables
    with pytest.raises(UserError, match="depend on the length of the input"):
        import_model(config("llama", **dynamic), 17)
