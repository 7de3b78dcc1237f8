"""GGUF files as checkpoints, beside what transformers itself reads from them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from compiler.diagnostics import UserError
from compiler.gguf import read_gguf
from compiler.weights.stored import Quantized, to_float32
from frontend.build import native_model
from frontend.gguf import GgufParameters, config_of, form_of_file, is_gguf, write_client_files
from frontend.sources.form import Form
from tests.ggufs import HEAD, HIDDEN, LAYER_SHAPES, TEMPLATE, add_settings, finish, make_gguf


def sources_of(path: Path):
    file = read_gguf(path)
    config = config_of(file)
    model = native_model(dict(config.values), 8)
    return config, model, GgufParameters(file, config, model).sources()


ALWAYS_TIED = ("gemma2", "gemma3")
CASES = [(name, tied) for name in LAYER_SHAPES for tied in (False, True) if tied or name not in ALWAYS_TIED]


@pytest.mark.parametrize(("architecture", "tied"), CASES)
def test_every_parameter_is_what_the_library_reads(tmp_path, architecture, tied):
    path = make_gguf(tmp_path / "model.gguf", architecture, Kind.Q4_1, tied=tied, others={"ffn_down": Kind.Q5_0})
    config, model, sources = sources_of(path)

    wanted = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)
    for key, value in wanted["config"].items():
        assert key == "_model_name_or_path" or config.values[key] == value, key
    assert config.values["head_dim"] == HEAD
    assert sources.keys() == wanted["tensors"].keys()
    assert {*sources, *model.all_tied_weights_keys} >= set(model.state_dict())
    for name, source in sources.items():
        read = source.read()
        values = read.dequantize() if isinstance(read, Quantized) else to_float32(read)
        np.testing.assert_array_equal(values, wanted["tensors"][name].float().numpy(), err_msg=name)
        assert source.shape == values.shape


def test_linears_stay_codes_and_tables_do_not(tmp_path):
    _, _, sources = sources_of(make_gguf(tmp_path / "model.gguf", "qwen2", Kind.Q8_0, others={"attn_v": Kind.F16}))
    codes = {name.removeprefix("model.layers.0.") for name, source in sources.items() if source.scheme is not None}
    assert {"lm_head.weight", "self_attn.q_proj.weight", "mlp.down_proj.weight"} <= codes
    assert not {"model.embed_tokens.weight", "self_attn.v_proj.weight", "self_attn.q_proj.bias"} & codes
    tied, model, _ = sources_of(make_gguf(tmp_path / "tied.gguf", tied=True))
    assert tied.values["tie_word_embeddings"]
    assert "lm_head.weight" in model.all_tied_weights_keys


@pytest.mark.parametrize(
    ("kind", "others", "form"),
    [
        (Kind.Q4_0, {}, Form("bf16", (4,), (32,))),
        (Kind.Q8_0, {}, Form("bf16", (8,), (32,))),
        (Kind.Q4_1, {"ffn_down": Kind.Q8_0}, Form("bf16", (4, 8), (32,))),
        (Kind.Q4_0, {"ffn_down": Kind.Q5_1}, Form("bf16", (4,), (32,), 8)),
        (Kind.Q5_0, {}, Form("bf16", floats=8)),
        (Kind.IQ4_NL, {}, Form("bf16", floats=4)),
        (Kind.F16, {}, Form("f16")),
        (Kind.BF16, {}, Form("bf16")),
        (Kind.F32, {}, Form("bf16")),
    ],
)
def test_the_form_is_that_of_the_layers_matrices(tmp_path, kind, others, form, monkeypatch):
    monkeypatch.setattr("tests.ggufs.quantize", lambda values, kind: blocks_of(values, kind))
    assert form_of_file(read_gguf(make_gguf(tmp_path / "model.gguf", kind=kind, others=others))) == form


def blocks_of(values: np.ndarray, kind: Kind) -> np.ndarray:
    """As many bytes; the package writes only some kinds."""
    from gguf.constants import GGML_QUANT_SIZES

    count, size = GGML_QUANT_SIZES[kind]
    if count == 1:
        return values.astype({2: np.float16, 4: np.float32}[size])
    return np.zeros((len(values), values.shape[1] // count * size), np.uint8)


def test_what_is_dequantized_is_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        sources_of(make_gguf(tmp_path / "model.gguf", others={"attn_v": Kind.Q5_0, "attn_k": Kind.F16}))
    (text,) = [record.getMessage() for record in caplog.records]
    assert "2 tensors of Q5_0, 1 tensors of Q8_0; only linears in Q4_0, Q4_1, Q8_0 stay codes" in text


def test_unknown_architectures_are_refused_with_the_known_ones(tmp_path):
    writer = GGUFWriter(tmp_path / "model.gguf", "jais")
    add_settings(writer, {})
    finish(writer)
    with pytest.raises(UserError, match=r"does not read architecture 'jais' from GGUF\nit reads .*llama.*qwen2, "):
        config_of(read_gguf(tmp_path / "model.gguf"))


def test_experts_are_refused(tmp_path):
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "llama")
    add_settings(writer, {"vocab_size": 384})
    writer.add_tensor("blk.0.ffn_gate_exps.weight", np.zeros((2, 512, HIDDEN), np.float32))
    finish(writer)
    with pytest.raises(UserError, match=r"mixture of experts \(blk\.0\.ffn_gate_exps\.weight\): not supported"):
        sources_of(path)


def test_tensors_in_a_form_that_is_not_the_models_are_refused(tmp_path, monkeypatch):
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, GPT2TensorProcessor

    monkeypatch.setitem(TENSOR_PROCESSORS, "llama", GPT2TensorProcessor)  # which turns matrices round
    with pytest.raises(UserError, match=r"\S+\.weight is stored in another form than the model of llama"):
        sources_of(make_gguf(tmp_path / "model.gguf"))


def test_client_files_are_those_of_a_checkpoint(tmp_path):
    path = make_gguf(tmp_path / "model.gguf", tied=True)
    target = tmp_path / "config"
    target.mkdir()
    write_client_files(path, target)
    settings = json.loads((target / "config.json").read_text())
    assert (settings["model_type"], settings["vocab_size"], settings["tie_word_embeddings"]) == ("llama", 384, True)
    assert json.loads((target / "generation_config.json").read_text())["eos_token_id"] == 257
    assert (target / "tokenizer.json").exists()
    assert TEMPLATE in (target / "chat_template.jinja").read_text()


def test_a_file_without_a_tokenizer_is_noted(tmp_path, caplog):
    writer = GGUFWriter(tmp_path / "model.gguf", "llama")
    add_settings(writer, {"vocab_size": 384})
    finish(writer)
    with caplog.at_level(logging.WARNING):
        write_client_files(tmp_path / "model.gguf", tmp_path)
    assert "no tokenizer can be made of it" in caplog.text


def test_files_are_known_by_their_ending(tmp_path):
    (tmp_path / "folder.gguf").mkdir()
    assert is_gguf(tmp_path / "model.gguf")
    assert not is_gguf(tmp_path / "folder.gguf")
    assert not is_gguf(tmp_path)
