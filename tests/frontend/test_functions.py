"""Recorded graphs as functions: signatures, locations, names of weights."""

from __future__ import annotations

import re

import pytest

from compiler.ir.location import NameLoc
from compiler.ir.module import walk
from compiler.ir.verify import verify
from dialects import llm
from frontend.importer import import_model
from tests.frontend.models import QWEN3, check_refused, signature


@pytest.fixture(scope="module")
def qwen3():
    return import_model(QWEN3, 24, 16)


def test_signatures_are_those_of_the_client(qwen3):
    assert signature(qwen3, "block_0") == (
        "(tensor<1x16x64xbf16>, tensor<1x16xi32>, tensor<1x1x16x16xbf16>)"
        " -> (tensor<1x16x64xbf16>, tensor<1x16x2x32xbf16>, tensor<1x16x2x32xbf16>)"
    )
    assert signature(qwen3, "block_cache_0") == (
        "(tensor<1x1x64xbf16>, tensor<1x1xi32>, tensor<1x1x1x25xbf16>, tensor<1x24x2x32xbf16>,"
        " tensor<1x24x2x32xbf16>) -> (tensor<1x1x64xbf16>, tensor<1x1x2x32xbf16>, tensor<1x1x2x32xbf16>)"
    )
    assert signature(qwen3, "embedding") == "(tensor<1x16xi32>) -> tensor<1x16x64xbf16>"
    assert signature(qwen3, "embedding_cache") == "(tensor<1x1xi32>) -> tensor<1x1x64xbf16>"
    assert signature(qwen3, "lm_head") == "(tensor<1x64xbf16>) -> tensor<1x1xi32>"


def test_modules_are_valid_and_every_op_knows_its_module(qwen3):
    for group in qwen3.nets:
        verify(group.module)
        for op in walk(group.module):
            if op.opname.startswith("llm."):
                assert op.loc.names(), op


def test_weight_has_the_location_of_its_module(qwen3):
    locations = {op.name: op.loc for op in walk(qwen3.find("block_0")[1]) if isinstance(op, llm.WeightOp)}
    assert locations["self_attn.q_proj.weight"] == NameLoc("model.layers.0.self_attn.q_proj")


def test_weight_names_resolve_to_parameters_of_the_right_shape(qwen3):
    seen = set()
    for group in qwen3.nets:
        for op in walk(group.module):
            if isinstance(op, llm.WeightOp):
                name = group.instances[-1].parameter_name(op.name)
                assert qwen3.parameters[name] == op.y.type.shape
                seen.add(name)
    assert seen == {name for name in qwen3.parameters if not re.search(r"\.layers\.[01]\.", name)}
    assert qwen3.tied == {"lm_head.weight": "model.embed_tokens.weight"}


REFUSED = {
}


@pytest.mark.parametrize("case", REFUSED)
def test_model_that_is_not_understood_is_refused_by_name(case):
    check_refused(*REFUSED[case])
