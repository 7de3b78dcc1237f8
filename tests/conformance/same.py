"""The comparison that conformance tests end in: libbmrt with the vendor's C-model against our simulator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compiler.bmodel import read_bmodel
from runtime_sim.launch.runtime import NUMPY_TYPES, Runtime
from runtime_sim.launch.sampling import Sampling
from runtime_sim.launch.session import Session
from tests.compare import compare
from tests.conformance.vendor_runtime import Generation, VendorRuntime

Arrays = Mapping[str, np.ndarray]


def assert_same_on_vendor(bmodel_path: Path | str, inputs_by_net: Mapping[str, Arrays]) -> None:
    """Run each net with its inputs on both; every bit of every output must be the same."""
    ours = Runtime(read_bmodel(bmodel_path), exact=True)
    with VendorRuntime(bmodel_path) as vendor:
        for net, inputs in inputs_by_net.items():
            theirs = vendor.run(net, dict(inputs))
            for name, output in ours.run(net, inputs).items():
                assert_equal_bits(f"{net}.{name}", output, theirs[name])


def assert_same_session(bmodel_path: Path | str, prompt: list[int], count: int) -> list[int]:
    """Generate tokens on both by the client contract; tokens, and the states behind them, must be equal."""
    return same_generation(bmodel_path, prompt, count).tokens


def same_generation(bmodel_path: Path | str, prompt: list[int], count: int) -> Generation:
    """The vendor's run of `assert_same_session`."""
    session = Session(Runtime(read_bmodel(bmodel_path), exact=True))
    with VendorRuntime(bmodel_path) as vendor:
        theirs = vendor.generate(prompt, count)
    _compare_steps(session, prompt, theirs)
    return theirs


def assert_same_candidates(bmodel_path: Path | str, prompt: list[int], count: int, sampling: Sampling) -> None:
    """What a client draws from after so many greedy tokens, of which it names no more than there are."""
    session = Session(Runtime(read_bmodel(bmodel_path), exact=True))
    session.sample(sampling, seed=0)
    sampler, session.sampler = session.sampler, None
    assert sampler is not None
    tokens = session.generate(prompt, count)
    sampler.draw(session.runtime, session.lm_head.outputs[0].array, session.seen)
    assert session.seen == [*prompt, *tokens[:-1]]
    with VendorRuntime(bmodel_path) as vendor:
        theirs = vendor.sample(prompt, count, [buffer.array for buffer in sampler.net.inputs[2:]])
    for ours, output in zip(sampler.net.outputs, theirs, strict=True):
        assert_equal_bits(ours.info.name, ours.array, output)


def _compare_steps(session: Session, prompt: list[int], theirs: Generation) -> None:
    for step, (token, state) in enumerate(zip(theirs.tokens, theirs.states, strict=True)):
        ours = session.decode(theirs.tokens[step - 1]) if step else session.prefill(prompt)
        assert_equal_bits(f"state {step}", ours.view(state.dtype).reshape(state.shape), state)
        assert session.next_token(ours) == token, f"token {step}"


def assert_equal_bits(what: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    difference = compare(ours, theirs)
    assert difference.differing == 0, f"{what}: {difference}"


def random_inputs(
    bmodel_path: Path | str, net: str, seed: int = 0, stage: int = 0
) -> dict[str, np.ndarray]:
    """Inputs of a stage of a net: standard normal states, small integers, and a mask that hides every second column."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for info in read_bmodel(bmodel_path).net(net).stages[stage].inputs:
        dtype = NUMPY_TYPES[info.dtype]
        if info.dtype == "i32":
            inputs[info.name] = rng.integers(0, 8, info.shape).astype(dtype)
        elif "mask" in info.name:
            inputs[info.name] = np.broadcast_to(np.arange(info.shape[-1]) % 2 * -9984.0, info.shape).astype(
                dtype
            )
        else:
            inputs[info.name] = rng.standard_normal(info.shape).astype(dtype)
    return inputs
