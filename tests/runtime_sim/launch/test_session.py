"""Generation by the client contract, on a model whose answers, keys and values are known."""

from dataclasses import replace

import numpy as np
import pytest

from compiler.diagnostics import UserError
from runtime_sim.launch.runtime import Runtime
from runtime_sim.launch.session import Session, history_rows
from tests.runtime_sim.check.cascades import toy_cascade
from tests.runtime_sim.check.changes import with_net
from tests.runtime_sim.check.programs import HISTORY, ROWS, VOCABULARY, toy_model, toy_table, toy_tokens

PROMPT = [3, 17, 5]


@pytest.fixture
def session() -> Session:
    return Session(Runtime(toy_model()))


def test_tokens_follow_each_other_and_are_announced(session):
    heard = []
    tokens = session.generate(PROMPT, 5, on_token=heard.append)
    assert tokens == heard == toy_tokens(PROMPT[-1], 5)


def test_a_stop_token_ends_the_answer(session):
    expected = toy_tokens(PROMPT[-1], 5)
    assert session.generate(PROMPT, 5, stop={expected[3]}) == expected[:3]


def test_the_answer_ends_when_the_caches_are_full(session):
    tokens = session.generate(PROMPT, 1000)
    assert session.length == HISTORY
    assert len(tokens) == HISTORY - len(PROMPT) + 1


def test_every_layer_keeps_every_token_in_its_row(session):
    tokens = session.generate(PROMPT, 4)
    fed = [*PROMPT, *tokens[:-1]]
    for cache in session.caches:
        keys, values = (buffer.data.view(np.int32)[: len(fed)] for buffer in cache.inputs[3:])
        np.testing.assert_array_equal(keys, toy_table()[fed, 2])
        np.testing.assert_array_equal(values, np.arange(len(fed)))


def test_the_prompts_mask_is_causal_and_hides_padding(session):
    session.prefill(PROMPT)
    mask = session.blocks[1].inputs[2].data.view(np.uint16).reshape(ROWS, ROWS)
    visible = np.zeros((ROWS, ROWS), bool)
    visible[:3, :3] = np.tril(np.ones((3, 3), bool))
    np.testing.assert_array_equal(mask, np.where(visible, 0, 0xC61C))


def test_the_mask_of_a_step_shows_history_and_the_new_token(session):
    session.generate(PROMPT, 3)  # two steps; the second feeds token 4 at position 4
    mask = session.caches[0].inputs[2].data.view(np.uint16)
    assert [i for i, word in enumerate(mask) if word == 0] == [0, 1, 2, 3, HISTORY]
    assert set(mask[4:HISTORY]) == {0xC61C}
    assert session.caches[0].inputs[1].array.flat[0] == 4


def test_a_second_prompt_starts_anew(session):
    session.generate(PROMPT, 4)
    assert session.generate([9], 3) == toy_tokens(9, 3)


def test_a_table_from_disk_replaces_the_embedding_nets():
    model = toy_model()
    nets = [net for net in model.nets if not net.name.startswith("embedding")]
    session = Session(Runtime(replace(model, nets=nets)), toy_table().view(np.uint16))
    assert session.generate(PROMPT, 5) == toy_tokens(PROMPT[-1], 5)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the prompt is empty"),
        (range(ROWS + 1), f"the prompt has {ROWS + 1} tokens, this file takes at most {ROWS}: shorten it"),
        ([1, VOCABULARY], f"token {VOCABULARY} has no row in the embedding, which has {VOCABULARY} rows"),
        ([1, -1], "token -1 has no row"),
        ([1 << 40], "has no row"),
    ],
)
@pytest.mark.parametrize("table", [None, toy_table().view(np.uint16)], ids=["nets", "disk"])
def test_prompts_that_do_not_fit_are_refused(prompt, message, table):
    with pytest.raises(UserError, match=message):
        Session(Runtime(toy_model()), table).generate(prompt, 1)


def test_a_step_is_refused_where_the_embedding_has_no_row(session):
    session.prefill(PROMPT)
    with pytest.raises(UserError, match=f"token {VOCABULARY} has no row"):
        session.decode(VOCABULARY)


def test_files_that_hold_no_language_model_are_refused():
    model = toy_model()
    with pytest.raises(UserError, match="it has no net 'lm_head'"):
        Session(Runtime(replace(model, nets=model.nets[:-1])))


def test_the_shortest_stage_that_holds_all_tokens_is_launched(monkeypatch):
    """As select_decode_stage of Sophgo's C++ client: the token to feed counts among them."""
    session = Session(Runtime(toy_model(histories=(HISTORY, 6, 3))))
    launched, launch = [], session.runtime.launch
    monkeypatch.setattr(
        session.runtime, "launch", lambda net, *given: (launched.append(net.name), launch(net, *given))[1]
    )
    tokens = session.generate(PROMPT[:1], 8)
    assert tokens == toy_tokens(PROMPT[0], 8)
    steps = [name for name in launched if name.startswith("block_cache_1")]
    assert steps == ["block_cache_1.2"] * 2 + ["block_cache_1.1"] * 3 + ["block_cache_1"] * 2
    mask = session.stages[1][0].inputs[2].data.view(np.uint16)
    assert len(mask) == 7


def test_keys_and_values_of_all_stages_come_into_one_history():
    session = Session(Runtime(toy_model(histories=(HISTORY, 6, 3))))
    tokens = session.generate(PROMPT[:1], 9)
    fed = [PROMPT[0], *tokens[:-1]]
    for cache in session.caches:
        keys, values = (buffer.data.view(np.int32)[: len(fed)] for buffer in cache.inputs[3:])
        np.testing.assert_array_equal(keys, toy_table()[fed, 2])
        np.testing.assert_array_equal(values, np.arange(len(fed)))


@pytest.mark.parametrize(
    ("row", "rows"), [(0, 3), (2, 3), (3, 6), (5, 6), (6, HISTORY), (HISTORY - 1, HISTORY)]
)
def test_a_stage_is_large_enough_up_to_its_last_row(row, rows):
    session = Session(Runtime(toy_model(histories=(HISTORY, 6, 3))))
    caches = session.stage_for(row)
    assert history_rows(caches[0]) == rows
    session.set_step(row, caches)
    mask = caches[0].inputs[2].data.view(np.uint16)
    assert [i for i, word in enumerate(mask) if word == 0] == [*range(row), rows]


def test_layers_with_other_stages_are_refused():
    model = toy_model(histories=(HISTORY, 6))
    odd = with_net(model, "block_cache_1", lambda net: replace(net, stages=net.stages[:1]))
    with pytest.raises(UserError, match="its layers do not all have 2 stages of decode"):
        Session(Runtime(odd))


def test_two_devices_say_what_one_does():
    session = Session(Runtime(toy_cascade(2)))
    assert (session.devices, len(session.history(0))) == (2, 4)
    tokens = session.generate(PROMPT, 5)
    assert tokens == toy_tokens(PROMPT[-1], 5)
    fed = [*PROMPT, *tokens[:-1]]
    for buffer in session.history(1)[::2]:
        np.testing.assert_array_equal(buffer.data.view(np.int32)[: len(fed)], toy_table()[fed, 2])


def test_two_devices_take_states_from_a_table():
    model = toy_cascade()
    nets = [net for net in model.nets if not net.name.startswith("embedding")]
    session = Session(Runtime(replace(model, nets=nets)), toy_table().view(np.uint16))
    assert session.generate(PROMPT, 4) == toy_tokens(PROMPT[-1], 4)
