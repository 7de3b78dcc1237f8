"""`quality` on nets that are the reference model itself, or one with a mistake."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bmodel_tool import parser
from compiler.diagnostics import UserError
from runtime_sim.launch.session import Session
from runtime_sim.tool import quality
from runtime_sim.tool.agreement import Agreement
from runtime_sim.tool.quality import TEXTS, Loss, error_of
from runtime_sim.tool.reference import Reference

ROWS = 16  # of the fake runtime's prompts


@pytest.fixture
def measured(folder, runtime, monkeypatch, capsys, tmp_path):
    """Run `quality` on a text whose token t is the letter number t; exit code and what it printed."""
    text = tmp_path / "letters"
    text.write_text("".join(chr(97 + number * number % 23) for number in range(2 * ROWS + 1)))

    def call(json=True, head=None, **changes):
        encode = SimpleNamespace(encode=lambda text: [ord(each) - 97 for each in text])
        weight = runtime.model.lm_head.weight.detach().numpy()
        monkeypatch.setattr(quality, "open_session", lambda *_, **__: Session(runtime))
        monkeypatch.setattr(quality, "Text", lambda config: encode)
        monkeypatch.setattr(quality, "matrix", lambda *_: weight if head is None else head)
        given = {"file": folder / "m.bmodel", "reference": folder, "text": text, "tokens": None, "json": json}
        given["html"] = None
        code = quality.run(Namespace(**(given | changes)))
        return code, capsys.readouterr().out

    return call


def test_the_model_itself_loses_nothing(measured):
    code, text = measured()
    found = json.loads(text)["letters"]
    assert code == 0
    assert found["tokens"] == 2 * ROWS  # the last one has nothing after it
    assert 0 <= found["kl"] < 1e-4
    assert found["same_top_token"] >= 0.9
    assert found["perplexity_of_file"] == pytest.approx(found["perplexity_of_model"], rel=1e-3)
    assert [round(layer["cosine"], 4) for layer in found["layers"]] == [1, 1]
    assert max(layer["error"] for layer in found["layers"]) < 0.01


def test_a_mistake_shows_from_its_layer_on(measured, runtime):
    runtime.base.layers[1].mlp.down_proj.weight.data.neg_()
    found = json.loads(measured()[1])["letters"]
    assert found["kl"] > 0.01
    assert found["layers"][0]["error"] < 0.01 < found["layers"][1]["error"]


def test_a_head_of_fewer_bits_counts_too(measured, runtime):
    head = runtime.model.lm_head.weight.detach().numpy()
    rounded = np.round(head * 100) / 100
    runtime.model.lm_head.weight.data = torch.from_numpy(rounded)
    found = json.loads(measured(head=rounded)[1])["letters"]
    assert found["kl"] > 1e-4
    assert found["layers"][1]["error"] < 0.01


def test_a_head_that_says_something_else_is_an_error(measured, runtime):
    head = runtime.model.lm_head.weight.detach().numpy()
    with pytest.raises(UserError, match="the head of the file says token"):
        measured(head=-head)


def test_a_table_shows_texts_and_layers(measured):
    lines = measured(json=False)[1].splitlines()
    assert lines[1].split()[:2] == ["letters", "32"]
    assert [line.split()[0] for line in lines[4:]] == ["0", "1"]


def test_texts_are_cut_to_the_tokens_asked_for(measured, tmp_path):
    assert json.loads(measured(tokens=18)[1])["letters"]["tokens"] == 18
    short = tmp_path / "short"
    short.write_text("a")
    with pytest.raises(UserError, match="short has 1 tokens; expected 2 or more"):
        measured(text=short)


def test_logits_are_those_of_the_model_with_its_caps(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings = {"num_key_value_heads": 1, "head_dim": 32, "vocab_size": 50, "final_logit_softcapping": 0.5}
    config = AutoConfig.for_model("gemma2", **sizes, **settings)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    reference = Reference(tmp_path)
    trace = reference.trace([3, 1, 4])
    weight = reference.model.get_output_embeddings().weight.detach().numpy()
    same = reference.logits_of(trace.layers[-1].states_out, weight)
    np.testing.assert_allclose(same, trace.logits, atol=1e-5)
    other = reference.logits_of(trace.layers[-1].states_out, 100 * weight)
    assert np.abs(other).max() <= 0.5
    np.testing.assert_array_equal(reference.trace([3, 1, 4]).logits, trace.logits)


def test_divergence_and_perplexity_by_the_formulas():
    model, file = np.log([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]), np.log([[0.25, 0.5, 0.25], [0.1, 0.1, 0.8]])
    loss = Loss()
    loss.add([0, 1], model + 3, file - 5)
    found = loss.as_dict()
    first = 0.5 * np.log(2) + 0.25 * np.log(0.5)
    second = 0.4 * np.log(2) + 0.6 * np.log(0.75)
    assert found["kl"] == pytest.approx((first + second) / 2)
    assert (found["perplexity_of_model"], found["perplexity_of_file"]) == pytest.approx((4, 2))
    assert found["same_top_token"] == 0.5


def test_the_error_of_states_is_that_of_a_typical_token():
    wanted = np.array([[3.0, 4], [1, 0], [0, 1]])
    given = wanted + np.array([[3, 4], [0.1, 0], [0, 0.1]])
    assert error_of(Agreement.of(given, wanted)) == pytest.approx(0.1)


def test_texts_of_both_kinds_ship():
    sizes = {name: path.stat().st_size for name, path in TEXTS.items()}
    assert sizes.keys() == {"prose", "code"}
    assert all(10_000 < size < 20_000 for size in sizes.values())


def test_a_number_of_tokens_is_two_or_more(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["quality", "f", "--reference", "r", "--tokens", "1"])
    assert "expected a number of tokens, 2 or more, not '1'" in capsys.readouterr().err


def test_files_of_several_devices_are_refused():
    with pytest.raises(UserError, match="m is for 2 devices"):
        quality.check_one_device(SimpleNamespace(devices=2), Path("m"))
