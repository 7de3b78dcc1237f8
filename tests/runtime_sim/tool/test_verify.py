"""`verify` and the session on nets that are the reference model itself, right or with one mistake."""

import numpy as np
import pytest
import torch

from runtime_sim.launch.session import Session
from runtime_sim.tool.reference import Reference

PROMPT = [5, 17, 99, 300, 41]


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
        (lambda base: base.norm.weight.data[::2].zero_(), "lm_head"),
        (lambda base: base.embed_tokens.weight.data.neg_(), "embedding"),
        (lambda base: base.rotary_emb.inv_freq.mul_(0.5), "block_0"),
        (lambda base: base.embed_tokens.weight.data.mul_(1.91), "embedding"),
        (lambda base: base.embed_tokens.weight.data[777].zero_(), "embedding"),
        (lambda base: base.layers[1].mlp.down_proj.weight.data[3, 4].fill_(np.nan), "block_1"),
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
    ],
)
def test_the_first_net_that_parts_is_named(report, runtime, mistake, net):
    mistake(runtime.base)
    code, text = report()
    assert code == 1
    assert f"first at {net} " in text.splitlines()[-1]


def test_a_wrong_token_is_reported(report, runtime):
    runtime.model.lm_head.weight = torch.nn.Parameter(runtime.model.lm_head.weight.flip(0))
    code, text = report()
    assert code == 1
    assert ", the reference " in text.splitlines()[-2]
    assert "1 of 7 nets part from the reference, first at lm_head" in text


def test_other_weights_are_said_to_be_probably_another_model(report, tiny_checkpoint):
    code, text = report(reference=tiny_checkpoint("qwen3", seed=9))
    assert code == 1
    assert "what was compiled?" in text.splitlines()[-1]


def test_a_session_says_what_the_model_says(folder, runtime):
    model = Reference(folder).model
    tokens = Session(runtime).generate(PROMPT, 6)
    fed = list(PROMPT)
    for token in tokens:
        with torch.no_grad():
            logits = model(torch.tensor([fed])).logits[0, -1].numpy()
        assert np.max(logits) - logits[token] < 0.02 * np.std(logits)
        fed.append(token)
