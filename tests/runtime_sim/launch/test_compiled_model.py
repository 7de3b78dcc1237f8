"""A compiled model as a file: the promises of the client contract that only a run can show."""

from pathlib import Path

import numpy as np
import pytest

from compiler.bmodel import read_bmodel
from driver.convert import convert
from driver.options import ConvertOptions
from runtime_sim.check.contract import check_file
from runtime_sim.check.waits import find_race
from runtime_sim.launch.loader import Program
from runtime_sim.launch.orders import run_ahead, shuffled
from runtime_sim.launch.queues import Deadlock
from runtime_sim.launch.runtime import Runtime, RuntimeNet
from runtime_sim.launch.session import Session
from tests.runtime_sim.check.programs import changed

PROMPT = [5, 17, 99, 300, 41]
LLAMA3_MASK = 0xF0E2  # what one client writes whatever the type: -5.6e29 when read as bf16
NETS = ("embedding", "embedding_cache", "block_0", "block_1", "block_cache_0", "block_cache_1", "lm_head")


@pytest.fixture(scope="module")
def bmodel(tiny_checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    path = convert(ConvertOptions(tiny_checkpoint("qwen3"), 64, "w4bf16", out_dir=folder / "out"))
    assert path is not None
    return path


@pytest.fixture
def session(bmodel) -> Session:
    return Session(Runtime(read_bmodel(bmodel), exact=False))


def test_the_file_is_sound(bmodel):
    assert check_file(Program(read_bmodel(bmodel))) == []


@pytest.mark.parametrize("net", ["block_1", "block_cache_1", "lm_head"])
def test_no_wait_is_superfluous(bmodel, net):
    """Each wait left out is found, so none is there for nothing."""
    program = Program(read_bmodel(bmodel))
    core = program.stage(net).cores[0]
    for engine in ("tiu", "dma"):
        for number, instruction in enumerate(getattr(core, engine), 1):
            if instruction.fields["cmd_id_dep"]:
                try:
                    found = find_race([changed(core, engine, number, cmd_id_dep=0)], program.spec)
                except Deadlock:
                    continue
                assert found, f"{engine} {number}"


def outputs(net: RuntimeNet) -> list[np.ndarray]:
    return [buffer.data.copy() for buffer in net.outputs]


def fill(session: Session, word: int) -> None:
    """The same 16-bit word everywhere in scratch and local memory."""
    runtime = session.runtime
    for memory in (runtime.net("block_0").memories.values(), runtime.net("lm_head").memories.values()):
        for array in memory:
            if array.flags.writeable:
                array.view(np.uint16)[:] = word
    for machine in runtime.net("block_0").machines:
        machine.local.bytes.view(np.uint16)[:] = word


@pytest.mark.parametrize("word", [0xFFFF, 0x7F80, 0x0000], ids=["nan", "infinity", "zero"])
def test_nothing_depends_on_what_memory_held_before(session, word):
    expected = session.generate(PROMPT, 3)
    states = [session.caches[1].outputs[0].data.copy()]
    fill(session, word)
    assert session.generate(PROMPT, 3) == expected
    np.testing.assert_array_equal(session.caches[1].outputs[0].data, states[0])


@pytest.mark.parametrize("order", [lambda: run_ahead("dma"), lambda: run_ahead("tiu"), lambda: shuffled(5)])
def test_every_order_that_the_waits_permit_gives_the_same(session, order):
    session.generate(PROMPT, 2)
    for name in NETS:
        net = session.runtime.net(name)
        given = [buffer.data.copy() for buffer in net.inputs]
        session.runtime.launch(net, given)
        expected = outputs(net)
        session.runtime.launch(net, given, order=order())
        for one, other in zip(expected, outputs(net), strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.parametrize("mask", [0xC61C, LLAMA3_MASK], ids=["-9984", "-5.6e29"])
def test_padding_stays_finite_and_real_rows_do_not_see_the_mask_word(session, mask):
    expected = session.generate(PROMPT, 3)
    session.masked = mask
    assert session.generate(PROMPT, 3) == expected
    session.prefill(PROMPT)
    for output in session.blocks[-1].outputs:
        assert np.isfinite(output.array.astype(np.float32)).all(), output.info.name


def test_blocks_keep_positions_and_mask(session):
    session.prefill(PROMPT)
    kept = [buffer.data.copy() for buffer in session.blocks[0].inputs[1:]]
    session.set_prompt(len(PROMPT))
    for before, buffer in zip(kept, session.blocks[0].inputs[1:], strict=True):
        np.testing.assert_array_equal(before, buffer.data)


def test_a_step_leaves_the_history_alone(session):
    """Only the row that the client names as output changes, and what is behind the mask does not matter."""
    token = session.next_token(session.prefill(PROMPT))
    for history in session.history(0) + session.history(1):
        history.array[:, len(PROMPT) :] = 1000
    before = [history.array.copy() for history in session.history(1)]
    state = session.decode(token).copy()
    for old, history in zip(before, session.history(1), strict=True):
        changed_rows = (old != history.array).any(axis=(0, 2, 3))
        assert list(np.flatnonzero(changed_rows)) == [len(PROMPT)]
    other = Session(session.runtime)
    other.prefill(PROMPT)
    np.testing.assert_array_equal(other.decode(token), state)


def test_a_long_prompt_and_a_full_cache(session):
    prompt = [token % 1000 for token in range(7, 7 + 64 * 11, 11)]
    assert len(session.generate(prompt, 10)) == 1
    assert len(session.generate(prompt[:60], 10)) == 5


def test_prefill_and_steps_agree(session):
    """The state of a token is nearly the same whether it came with the prompt or in a step."""
    whole = session.prefill([*PROMPT, 77]).view(np.uint16).copy()
    session.prefill(PROMPT)
    stepped = session.decode(77).view(np.uint16)
    a, b = ((words.astype(np.uint32) << 16).view(np.float32) for words in (whole, stepped))
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.9999
