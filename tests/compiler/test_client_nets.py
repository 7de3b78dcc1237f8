"""Names of nets: made, taken apart, and counted as clients do."""

from __future__ import annotations

import pytest

from compiler.client_nets import BLOCK, BLOCK_CACHE, EMBEDDING_CACHE, LM_HEAD, kind_of, layer_count, net_name
from frontend import signatures


@pytest.mark.parametrize(
    ("kind", "layer", "name"),
    [
        (BLOCK, 0, "block_0"),
        (BLOCK_CACHE, 12, "block_cache_12"),
        (EMBEDDING_CACHE, None, "embedding_cache"),
        (LM_HEAD, None, "lm_head"),
    ],
)
def test_names_and_kinds(kind, layer, name):
    assert net_name(kind, layer) == name
    assert kind_of(name) == (kind, layer)


@pytest.mark.parametrize("name", ["", "_3", "block_", "block_x", "block_-1"])
def test_names_without_a_layer(name):
    assert kind_of(name) == (name, None)


@pytest.mark.parametrize(
    ("names", "count"),
    [
        ((), 0),
        (("block_0", "block_cache_1"), 0),
        (("block_0", "block_cache_0", "block_1"), 1),
        (("block_0", "block_cache_0", "block_2", "block_cache_2"), 1),
    ],
)
def test_layers_are_counted_up_to_the_first_that_lacks_a_net(names, count):
    assert layer_count(names.__contains__) == count


def test_the_front_end_makes_nets_of_these_names():
    made = (signatures.EMBEDDING, signatures.EMBEDDING_CACHE, signatures.BLOCK, signatures.BLOCK_CACHE)
    assert [net.name for net in (*made, signatures.LM_HEAD)] == [
        "embedding",
        "embedding_cache",
        "block",
        "block_cache",
        "lm_head",
    ]
