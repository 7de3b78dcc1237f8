"""Files that sample: greedy tokens stay what they are, and what is drawn follows the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compiler.bmodel import read_bmodel
from compiler.diagnostics import UserError
from driver.convert import convert
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from runtime_sim.check.contract import check_file
from runtime_sim.launch.loader import Program
from runtime_sim.launch.runtime import Runtime
from runtime_sim.launch.sampling import Sampler, Sampling, candidates
from runtime_sim.launch.session import Session
from runtime_sim.tool import launches
from runtime_sim.tool.verify import verify_file

PROMPT, LENGTH, VOCABULARY = [5, 17, 99, 300, 41], 40, 1003


@pytest.fixture(scope="module")
def compiled(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """A tiny model whose vocabulary fills no row of lanes, with and without the nets for sampling."""
    folder, made = tiny_checkpoint("llama", vocab=VOCABULARY), {}

    def make(**flags: bool) -> tuple[Path, Path]:
        key = repr(flags)
        if key not in made:
            out = tmp_path_factory.mktemp("out") / "out"
            options = ConvertOptions(folder, LENGTH, "bf16", out_dir=out, **flags)
            options = replace(options, passes=default_pipeline(options))
            path = convert(options)
            assert path is not None
            made[key] = (path, folder)
        return made[key]

    return make


def session_of(path: Path) -> Session:
    return Session(Runtime(read_bmodel(path)))


def test_greedy_tokens_are_those_of_a_file_that_gives_tokens(compiled):
    plain, sampling = (session_of(compiled(do_sample=flag)[0]) for flag in (False, True))
    tokens = plain.generate(PROMPT, 8)
    assert len(set(tokens)) > 3
    assert sampling.generate(PROMPT, 8) == tokens
    sampling.sample(Sampling(temperature=0.0))  # which leaves the most likely token
    assert sampling.generate(PROMPT, 8) == tokens


def test_the_file_is_sound_and_computes_what_the_model_does(compiled, capsys):
    path, folder = compiled(do_sample=True)
    assert check_file(Program(read_bmodel(path))) == []
    assert verify_file(path, folder) == 0
    found = capsys.readouterr()
    said = found.out + found.err
    assert "the file computes what" in said
    assert all(name in said for name in ("greedy_head", "sample_head"))


def test_a_net_that_chooses_wrong_is_found(compiled, monkeypatch, capsys):
    """The candidates' probabilities, at another temperature than the one that was asked for."""
    path, folder = compiled(do_sample=True)
    monkeypatch.setattr(launches, "SAMPLING", replace(launches.SAMPLING, temperature=0.5))
    monkeypatch.setattr(launches, "Sampler", lambda net, sampling, seed: Sampler(net, Sampling(1.2, 0.6), seed))
    assert verify_file(path, folder) == 1
    assert "sample_head (a probability is off by 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(penalty=1.3, temperature=0.6, top_k=20, top_p=0.85),
        Sampling(penalty=0.7, temperature=2.0, top_k=3, top_p=0.5),
        Sampling(top_p=0.0),
    ],
)
def test_probabilities_are_those_of_the_formula(compiled, sampling):
    session = session_of(compiled(do_sample=True)[0])
    session.sample(sampling, seed=0)
    logits = (4 * np.random.default_rng(1).standard_normal((1, VOCABULARY))).astype(np.float32)
    likely = np.argsort(-logits[0])[:30]
    seen = [*likely[::2].tolist(), int(likely[0]), 0]
    assert session.sampler.draw(session.runtime, logits, seen) in likely
    probabilities, tokens = (output.array[0] for output in session.sampler.net.outputs)
    wanted, best = candidates(logits[0], np.array(seen), sampling, 50)
    np.testing.assert_array_equal(tokens, best)
    np.testing.assert_allclose(probabilities, wanted, atol=1e-5)


def test_tokens_are_drawn_as_often_as_their_probabilities_say(compiled):
    session = session_of(compiled(do_sample=True)[0])
    session.sample(Sampling(top_k=3), seed=7)
    logits = np.full((1, VOCABULARY), -9, np.float32)
    logits[0, [8, 700, 31]] = np.log([0.6, 0.3, 0.1])
    drawn = [session.sampler.draw(session.runtime, logits, []) for _ in range(100)]
    counts = [drawn.count(token) for token in (8, 700, 31)]
    assert sum(counts) == 100
    np.testing.assert_allclose(counts, [60, 30, 10], atol=15)


def test_a_penalty_below_1_makes_tokens_that_were_more_likely(compiled):
    session = session_of(compiled(do_sample=True)[0])
    session.sample(Sampling(temperature=0.0, penalty=0.02))
    assert set(session.generate(PROMPT, 6)) <= set(PROMPT)


def test_a_file_without_the_net_says_what_to_do(compiled):
    with pytest.raises(UserError, match="compile with --do_sample"):
        session_of(compiled(do_sample=False)[0]).sample(Sampling())
