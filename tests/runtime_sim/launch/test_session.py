"""Generation by the client contract, on a model whose answers, keys and values are known."""

from dataclasses import replace

import numpy as np
import pytest

from compiler.diagnostics import UserError
from runtime_sim.launch.runtime import Runtime
from runtime_sim.launch.session import Session
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
