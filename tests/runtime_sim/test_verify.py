"""`verify` and the session on nets that are the reference model itself, right or with one mistake."""

from argparse import Namespace

import numpy as np
import pytest
import torch

from compiler.diagnostics import UserError
from runtime_sim.session import Session
from runtime_sim.tool import verify
from runtime_sim.tool.reference import Reference
from tests.runtime_sim.fake_runtime import FakeRuntime

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

    def call(**changes):
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
    assert [line.split()[0] for line in lines] == names
    assert all("cosine 1.0000" in line for line in lines[:-1])
    assert "as the reference" in lines[-1]


@pytest.mark.parametrize(
    ("mistake", "net"),
    [
        (lambda base: base.layers[1].self_attn.k_norm.weight.data.fill_(9), "block_1"),
        (lambda base: base.layers[0].self_attn.k_proj.weight.data.mul_(-1), "block_0"),
        (lambda base: base.layers[1].mlp.down_proj.weight.data.zero_(), "block_1"),
        (lambda base: base.norm.weight.data[::2].zero_(), "block_1"),
        (lambda base: base.embed_tokens.weight.data.neg_(), "embedding"),
        (lambda base: base.rotary_emb.inv_freq.mul_(0.5), "block_0"),
    ],
    ids=["k norm", "k sign", "down proj", "final norm", "embedding", "rope"],
)
def test_the_first_net_that_parts_is_named(report, runtime, mistake, net):
    mistake(runtime.base)
    code, text = report()
    assert code == 1
    assert f"parts from the reference first at {net} " in text


def test_a_wrong_token_is_reported(report, runtime):
    runtime.model.lm_head.weight = torch.nn.Parameter(runtime.model.lm_head.weight.flip(0))
    code, text = report()
    assert code == 1
    assert ", the reference " in text.splitlines()[-2]
    assert "parts from the reference first at lm_head" in text


def test_another_number_of_layers_is_refused(report, tiny_checkpoint):
    with pytest.raises(UserError, match="the file has 2 layers, the reference 1"):
        report(reference=tiny_checkpoint("qwen3", layers=1))


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
