"""Which modules are compiled, on models that are only described."""

from __future__ import annotations

import pytest

from compiler.diagnostics import UserError
from dialects.nets import net_of
from driver.groups import embedding_of, groups_to_compile, table_of, weights_of
from frontend.binding import Weights
from frontend.importer import import_model
from tests.frontend.oracle import SMALL


class Named(Weights):
    """Parameters of which some pairs hold the same values."""

    def __init__(self, *same: str) -> None:
        super().__init__({})
        object.__setattr__(self, "equal", set(same))

    def same(self, one: str, other: str) -> bool:
        return one == other or {one, other} <= self.equal


TIED = Named("model.embed_tokens.weight", "lm_head.weight")


def model_of(model_type: str = "llama", **settings: object):
    return import_model({**SMALL, **settings, "model_type": model_type}, 8)


def nets(groups) -> list[list[str]]:
    return [[net_of(function).name for function in group.module.functions()] for group in groups]


BLOCKS = ["block", "block_cache"]


def test_modules_are_those_of_the_model_where_no_weight_is_shared():
    groups = groups_to_compile(model_of(), Named(), embedding_disk=False)
    assert nets(groups) == [["embedding", "embedding_cache"], ["lm_head"], BLOCKS]
    assert [group.name for group in groups] == ["embedding", "lm_head", "block_0"]


def test_embedding_and_head_are_one_module_where_they_share_their_weight():
    model = model_of()
    first, *rest = groups_to_compile(model, TIED, embedding_disk=False)
    assert nets([first, *rest]) == [["embedding", "embedding_cache", "lm_head"], BLOCKS]
    assert {op.name for op in weights_of(first.module)} == {"/model.embed_tokens.weight", "/model.norm.weight"}
    head = model.find("lm_head")[1].parent_op
    assert {op.name for op in weights_of(head)} == {"/lm_head.weight", "/model.norm.weight"}


def test_an_embedding_on_disk_is_compiled_into_no_net():
    groups = groups_to_compile(model_of(), TIED, embedding_disk=True)
    assert nets(groups) == [["lm_head"], BLOCKS]


def test_an_embedding_that_is_scaled_cannot_be_on_disk():
    model = model_of("granite", embedding_multiplier=3.0)
    with pytest.raises(UserError, match=r"--embedding_disk: .* it has llm\.mul behind them, in model"):
        groups_to_compile(model, Named(), embedding_disk=True)


def test_the_embedding_is_what_is_looked_up():
    model = model_of()
    assert embedding_of(model).name == "embedding"
    assert table_of(model).name == "/model.embed_tokens.weight"
    assert table_of(model).y.type.shape == (128, 64)
