"""`verify` and the session on nets that are the reference model itself, right or with one mistake."""

import pickle
import shutil
from argparse import Namespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from compiler.diagnostics import UserError
from runtime_sim.launch.session import Session
from runtime_sim.tool import verify
from runtime_sim.tool.reference import Reference
from tests.runtime_sim.launch.fake_runtime import FakeRuntime

PROMPT = [5, 17, 99, 300, 41]


@pytest.fixture
def folder(tiny_checkpoint):
    return tiny_checkpoint("qwen3")


@pytest.fixture
def runtime(folder):
    return FakeRuntime(folder)


@pytest.fixture
def report(folder, runtime, monkeypatch, capsys):
    """Run `verify`; its exit code and what it printed."""

    def call(runtime=runtime, **changes):
        arguments = {"file": folder / "m.bmodel", "reference": folder, "prompt": None, "min_cosine": 0.99}
        arguments |= {"ir": None, "bisect": None}
        monkeypatch.setattr(verify, "open_session", lambda *_: Session(runtime))
        code = verify.run(Namespace(exact=False, **(arguments | changes)))
        return code, capsys.readouterr().out

    return call


def test_right_nets_agree(report):
    code, text = report()
    assert code == 0
    lines = text.splitlines()
    names = [
        "embedding",
        "embedding_cache",
        "block_0",
        "block_1",
        "block_cache_0",
        "block_cache_1",
        "lm_head",
    ]
    assert [line.split()[0] for line in lines[:-1]] == names
    assert all("cosine 1.0000" in line for line in lines[:-2])
    assert "as the reference" in lines[-2]
    assert lines[-1].startswith("the file computes what ")
    assert "7 nets, lowest cosine 1.0000" in lines[-1]


@pytest.mark.parametrize(
    ("mistake", "net"),
    [
        (lambda base: base.layers[1].self_attn.k_norm.weight.data.fill_(9), "block_1"),
        (lambda base: base.layers[0].self_attn.k_proj.weight.data.mul_(-1), "block_0"),
        (lambda base: base.layers[1].mlp.down_proj.weight.data.zero_(), "block_1"),
        (lambda base: base.norm.weight.data[::2].zero_(), "block_1"),
        (lambda base: base.embed_tokens.weight.data.neg_(), "embedding"),
        (lambda base: base.rotary_emb.inv_freq.mul_(0.5), "block_0"),
        (lambda base: base.embed_tokens.weight.data.mul_(1.91), "embedding"),
        (lambda base: base.embed_tokens.weight.data[777].zero_(), "embedding"),
        (lambda base: base.layers[1].mlp.down_proj.weight.data[3, 4].fill_(np.nan), "block_1"),
        (lambda base: scale_output(base.norm, 1.1), "block_1"),
    ],
    ids=[
        "k norm",
        "k sign",
        "down proj",
        "final norm",
        "embedding",
        "rope",
        "embedding too long",
        "one row of the embedding",
        "not a number",
        "final norm too long",
    ],
)
def test_the_first_net_that_parts_is_named(report, runtime, mistake, net):
    mistake(runtime.base)
    code, text = report()
    assert code == 1
    assert f"first at {net} " in text.splitlines()[-1]


def scale_output(module, factor):
    module.register_forward_hook(lambda module, given, output: factor * output)


@pytest.mark.parametrize("position", [1, 7, 15])
def test_a_block_that_is_wrong_at_one_position_is_found(report, runtime, position):
    damage_rotation(runtime, position, with_history=False)
    assert f"block_0 out1 (cosine 0.000000 at token {position}," in report()[1].splitlines()[-1]


@pytest.mark.parametrize("position", [1, 9, 22, 23])
def test_a_cache_net_that_is_wrong_at_one_position_is_found(report, runtime, position):
    damage_rotation(runtime, position, with_history=True)
    assert f"block_cache_0 out1 (cosine 0.000000 at token {position}," in report()[1].splitlines()[-1]


def damage_rotation(runtime, position, with_history):
    """Zeros in a row of the rope tables of one kind of net."""
    layer = runtime._layer

    def run(index, x, positions, mask, *history):
        damaged = positions == position if bool(history) == with_history else positions < 0
        hook = runtime.base.rotary_emb.register_forward_hook(
            lambda module, given, output: tuple(torch.where(damaged[..., None], 0, part) for part in output)
        )
        try:
            return layer(index, x, positions, mask, *history)
        finally:
            hook.remove()

    runtime._layer = run


@pytest.mark.parametrize(("rows", "history"), [(1, 1), (1, 2), (5, 12), (16, 16)])
def test_right_nets_of_any_length_agree(folder, report, rows, history):
    assert report(FakeRuntime(folder, rows, history))[0] == 0


def test_a_wrong_token_is_reported(report, runtime):
    runtime.model.lm_head.weight = torch.nn.Parameter(runtime.model.lm_head.weight.flip(0))
    code, text = report()
    assert code == 1
    assert ", the reference " in text.splitlines()[-2]
    assert "1 of 7 nets part from the reference, first at lm_head" in text


def test_another_number_of_layers_is_refused(report, tiny_checkpoint):
    with pytest.raises(UserError, match="the file has 2 layers, the reference 1"):
        report(reference=tiny_checkpoint("qwen3", layers=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 128, "intermediate": 256}, "the file has 256 values in a state, the reference 128"),
        ({"vocab": 512}, "the file has 1024 rows in the embedding, the reference 512"),
        ({"kv_heads": 4}, r"keys of \[2, 64\], the reference has \[4, 64\]"),
    ],
)
def test_another_size_is_refused(report, runtime, tiny_checkpoint, monkeypatch, options, message):
    monkeypatch.setattr(Session, "vocabulary", 1024)
    with pytest.raises(UserError, match=f"not the same model: .*{message}"):
        report(reference=tiny_checkpoint("qwen3", **options))


def test_other_weights_are_said_to_be_probably_another_model(report, tiny_checkpoint):
    code, text = report(reference=tiny_checkpoint("qwen3", seed=9))
    assert code == 1
    assert "what was compiled?" in text.splitlines()[-1]


def test_a_reference_with_pickled_weights_only_is_refused(report, folder, tmp_path):
    shutil.copy(folder / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(EvilPickle()))
    with pytest.raises(UserError, match="no safetensors"):
        report(reference=tmp_path)


class EvilPickle:
    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


def test_a_reference_that_lacks_a_weight_is_refused(report, folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(UserError, match=r"lacks 1 of the model's weights, such as .*up_proj"):
        report(reference=tmp_path)


@pytest.mark.parametrize("model_type", ["phi", "gpt_neox", "persimmon", "gpt2", "gemma3_text", "cohere"])
def test_references_of_other_make_are_traced(tmp_path, model_type):
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    if model_type == "gpt2":
        sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4}
    config = AutoConfig.for_model(model_type, vocab_size=128, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    reference = Reference(tmp_path)
    tokens = list(range(1, 21))
    trace = reference.trace(tokens, [3, 19])
    with torch.no_grad():
        logits = reference.model(torch.tensor([tokens])).logits[0].numpy()
    np.testing.assert_allclose(trace.logits, logits[[3, 19]], atol=1e-5)
    assert len(trace.layers) == config.num_hidden_layers
    assert all(len(layer.keys) == len(layer.states_out) == 20 for layer in trace.layers)


def test_a_folder_without_a_model_is_refused(report, tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        report(reference=tmp_path)


def test_a_session_says_what_the_model_says(folder, runtime):
    model = Reference(folder).model
    tokens = Session(runtime).generate(PROMPT, 6)
    fed = list(PROMPT)
    for token in tokens:
        with torch.no_grad():
            logits = model(torch.tensor([fed])).logits[0, -1].numpy()
        assert np.max(logits) - logits[token] < 0.02 * np.std(logits)
        fed.append(token)
