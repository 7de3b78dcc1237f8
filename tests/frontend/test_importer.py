"""Signatures, grouping and names of an imported model, and the models that are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from compiler.diagnostics import CompileError, UserError
from compiler.ir.location import NameLoc
from compiler.ir.module import walk
from compiler.ir.printer import print_module
from compiler.ir.types import F16
from compiler.ir.verify import verify
from compiler.weights.scheme import Scheme
from dialects import llm
from frontend.aten import visible
from frontend.build import native_model
from frontend.imported import ImportedModel
from frontend.importer import import_model
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from tests.frontend.oracle import RECOGNIZED, SMALL


def config(model_type: str, **settings: object) -> dict[str, object]:
    return {**SMALL, **settings, "model_type": model_type}


@pytest.fixture(scope="module")
def qwen3():
    return import_model(config("qwen3", head_dim=32, tie_word_embeddings=True), 24, 16)


def signature(model: ImportedModel, net: str) -> str:
    return str(model.find(net)[1].function_type)


def layers_of(model: ImportedModel) -> list[list[int | None]]:
    """The layers of each distinct module."""
    return [[instance.layer for instance in group.instances] for group in model.nets if group.of_layers]


def test_signatures_are_those_of_the_client(qwen3):
    assert signature(qwen3, "block_0") == (
        "(tensor<1x16x64xbf16>, tensor<1x16xi32>, tensor<1x1x16x16xbf16>)"
        " -> (tensor<1x16x64xbf16>, tensor<1x16x2x32xbf16>, tensor<1x16x2x32xbf16>)"
    )
    assert signature(qwen3, "block_cache_0") == (
        "(tensor<1x1x64xbf16>, tensor<1x1xi32>, tensor<1x1x1x25xbf16>, tensor<1x24x2x32xbf16>,"
        " tensor<1x24x2x32xbf16>) -> (tensor<1x1x64xbf16>, tensor<1x1x2x32xbf16>, tensor<1x1x2x32xbf16>)"
    )
    assert signature(qwen3, "embedding") == "(tensor<1x16xi32>) -> tensor<1x16x64xbf16>"
    assert signature(qwen3, "embedding_cache") == "(tensor<1x1xi32>) -> tensor<1x1x64xbf16>"
    assert signature(qwen3, "lm_head") == "(tensor<1x64xbf16>) -> tensor<1x1xi32>"


def test_modules_are_valid_and_every_op_knows_its_module(qwen3):
    for group in qwen3.nets:
        verify(group.module)
        for op in walk(group.module):
            if op.opname.startswith("llm."):
                assert op.loc.names(), op


def test_weight_has_the_location_of_its_module(qwen3):
    locations = {op.name: op.loc for op in walk(qwen3.find("block_0")[1]) if isinstance(op, llm.WeightOp)}
    assert locations["self_attn.q_proj.weight"] == NameLoc("model.layers.0.self_attn.q_proj")


def test_equal_layers_are_one_module_and_the_last_ends_with_the_norm(qwen3):
    assert layers_of(qwen3) == [[0, 1], [2]]
    for name in ("block", "block_cache"):
        for layer, expected in ((0, False), (2, True)):
            function = qwen3.find(f"{name}_{layer}")[1]
            weights = [op.name for op in walk(function) if isinstance(op, llm.WeightOp)]
            assert ("/model.norm.weight" in weights) is expected


def test_weight_names_resolve_to_parameters_of_the_right_shape(qwen3):
    seen = set()
    for group in qwen3.nets:
        for op in walk(group.module):
            if isinstance(op, llm.WeightOp):
                name = group.instances[-1].parameter_name(op.name)
                assert qwen3.parameters[name] == op.y.type.shape
                seen.add(name)
    assert seen == {name for name in qwen3.parameters if ".layers.0." not in name}
    assert qwen3.tied == {"lm_head.weight": "model.embed_tokens.weight"}


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


def test_a_prompt_sees_what_came_before_and_a_step_what_the_client_says(qwen3):
    """The history is padded: which of its tokens are there, only the client's mask knows."""
    for function in (f for group in qwen3.nets if group.of_layers for f in group.module.functions()):
        kinds = {op.visible.kind for op in walk(function) if isinstance(op, llm.AttentionOp)}
        assert kinds == {"causal" if function.sym_name == "block" else "masked"}


@pytest.mark.parametrize(
    ("mask", "shown"),
    [
        ("causal", llm.Visible("causal")),
        ("full", llm.Visible("all")),
        ("sliding window of 7", llm.Visible("window", 7)),
        ("custom", llm.Visible("masked")),
        ("decode", llm.Visible("masked")),
    ],
)
def test_each_kind_of_mask_says_what_is_visible(mask, shown):
    assert visible(mask) == shown


def test_import_is_reproducible_and_takes_a_built_model():
    settings = config("llama")
    first, second = import_model(settings, 8), import_model(native_model(settings), 8)
    for a, b in zip(first.nets, second.nets, strict=True):
        assert print_module(a.module) == print_module(b.module)
    assert all(np.array_equal(first.tables[name], second.tables[name]) for name in first.tables)


def test_element_type_is_chosen_by_the_caller():
    imported = import_model(config("llama"), 8, dtype=F16)
    block = imported.find("block_0")[1]
    floats = {arg.type.element for arg in block.args if arg.type.element.is_float}
    assert floats == {F16}


def test_layers_that_differ_are_modules_of_their_own():
    imported = import_model(config("smollm3", num_hidden_layers=5, no_rope_layers=[1, 0, 1, 0, 1]), 8)
    assert layers_of(imported) == [[0, 2], [1, 3], [4]]


UP, DOWN = "mlp.up_proj.weight", "mlp.down_proj.weight"
FOUR, EIGHT = Scheme(4, 32, True, F16), Scheme(8, 64, False, F16)


def stored(*layers: dict[str, Scheme]) -> ImportedModel:
    """A model of so many layers whose parameters are stored as given, and the others as they are."""
    names = {f"model.layers.{i}.{name}": form for i, layer in enumerate(layers) for name, form in layer.items()}
    return import_model(config("llama", num_hidden_layers=len(layers)), 8, schemes=names)


def test_layers_whose_weights_are_stored_otherwise_are_modules_of_their_own():
    four, eight = {UP: FOUR, DOWN: EIGHT}, {UP: EIGHT, DOWN: EIGHT}
    assert layers_of(stored(four, eight, four, {UP: FOUR}, {}, {}, eight)) == [[0, 2], [1], [3], [4, 5], [6]]


def test_a_weight_has_the_scheme_that_it_is_stored_in():
    imported = stored({UP: FOUR, DOWN: EIGHT}, {})
    for net in ("block_0", "block_cache_0"):
        function = imported.find(net)[1]
        found = {op.name: op.y.type.layout for op in walk(function) if isinstance(op, llm.WeightOp)}
        assert {name: form for name, form in found.items() if form is not None} == {UP: FOUR, DOWN: EIGHT}
    text = print_module(imported.find("block_0")[0].module)
    assert "#w4_32 = #weights.scheme<bits = 4, group = 32, zeros = true, scale = f16>" in text
    assert "#weights.scheme" not in print_module(imported.find("block_1")[0].module)


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
    assert layers_of(imported) == [[0], [1], [2]]


def test_folder_is_read_for_its_configuration_alone(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config("llama", auto_map={"AutoModel": "evil.Model"})))
    (tmp_path / "evil.py").write_text("raise SystemExit('remote code ran')")
    assert import_model(tmp_path, 8).find("block_0")[2].prefix == "model.layers.0."


REFUSED = {
    "sliding window": (
        config("mistral", sliding_window=7),
        r"layers\.0 has a sliding window of 7 attention mask .* shorter sequence length",
    ),
    "encoder": (config("bert"), r"bert\.encoder\.layer\.0 has a full attention mask where a causal one"),
    "experts": (config("mixtral"), r"mixture of experts is not supported yet, in model\.layers\.0\.mlp"),
    "own attention": (config("gptj"), r"gptj model: its attention does not use the library's"),
    "position embedding": (
        config("opt"),
        r"constant .* outside of the layers, in model\.decoder\.embed_posi",
    ),
    "state space": (config("mamba"), r"cannot trace the model: .* in backbone\.layers\.0"),
    "linear attention": (config("qwen3_next"), r"keeps state that is not keys and values .*\.linear_attn"),
    "two streams": (config("gemma4_text"), r"model\.layers\.0 takes 2 computed values, expected one"),
    "unknown type": (config("llamma"), r"unknown model_type 'llamma'"),
    "bad value": (config("llama", num_attention_heads=5), r"cannot build the llama model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_model_that_is_not_understood_is_refused_by_name(case):
    settings, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        import_model(settings, 16)
    assert str(caught.value).count("\n") < 2


LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 16,
}


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_scaling": LONGROPE},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 16},
    ],
)
def test_tables_that_only_a_short_run_has_otherwise_are_refused(settings):
    assert import_model(config("llama", **settings), 16).tables
    with pytest.raises(UserError, match="depend on the length of the input"):
        import_model(config("llama", **settings), 17)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rope_scaling": {"type": "mrope"}},
            r"rope_scaling.type is 'mrope', which is unknown\nknown: default, ",
        ),
        (
            {"rope_parameters": {"rope_type": "su"}},
            r"rope_parameters.rope_type is 'su', which is unknown\nknown: ",
        ),
        ({"hidden_act": "swiglu"}, r"hidden_act is 'swiglu', which is unknown\nknown: .*gelu"),
    ],
)
def test_words_that_the_library_does_not_know_are_named_by_key(settings, message):
    with pytest.raises(UserError, match=message):
        native_model(config("llama", **settings))


@pytest.mark.parametrize(("model_type", "positions"), [("gpt_bigcode", 10**5), ("codegen", 10**8)])
def test_buffers_that_would_fill_memory_are_refused(model_type, positions):
    settings = config(model_type, n_positions=positions)
    del settings["max_position_embeddings"]
    with pytest.raises(UserError, match=r"cannot build the \w+ model: it keeps \d+ numbers beside its weights"):
        native_model(settings)


def test_keys_of_classifiers_and_of_calls_do_not_matter():
    asked = {
        "num_labels": 10**9,
        "id2label": [1],
        "problem_type": "x",
        "return_dict": False,
        "use_cache": False,
    }
    model = import_model(config("llama", **asked, output_hidden_states=True, output_attentions=True), 8)
    plain = import_model(config("llama"), 8)
    for ours, theirs in zip(model.nets, plain.nets, strict=True):
        assert print_module(ours.module) == print_module(theirs.module)


def test_window_as_long_as_the_sequence_is_a_causal_mask():
    assert import_model(config("mistral", sliding_window=16), 16).nets
    with pytest.raises(UserError, match="sliding window of 16"):
        import_model(config("mistral", sliding_window=16), 17, 8)
