"""`info`: nets, memory and weights, in words and as JSON."""

import json

from tests.runtime_sim.check.cascades import toy_cascade
from tests.runtime_sim.check.cores import sum_model
from tests.runtime_sim.check.programs import toy_model


def test_info_shows_nets_memory_and_weights(tool):
    code, out, _ = tool(toy_model(), "info")
    assert code == 0
    assert "BM1684X, 7 nets" in out
    assert "weights 640 bytes in 1 blobs" in out
    assert "block_0 .. 1 (2 nets): basic, 1 tiu 12 dma, weights none" in out
    assert "<- old_k bf16[1, 12, 1, 2] at 0x100003000" in out


def test_info_as_json(tool):
    code, out, _ = tool(toy_model(), "info", "--json")
    record = json.loads(out)
    assert code == 0
    assert [net["name"] for net in record["nets"]][:2] == ["embedding", "embedding_cache"]
    assert record["memory"]["blobs"] == 1
    assert record["nets"][4]["stages"][0]["inputs"][0]["shape"] == [1, 1, 8]


def test_stages_are_shown_by_name_in_one_memory(tool):
    _, out, _ = tool(toy_model(histories=(12, 6)), "info")
    assert "block_cache_0 .. 1 (2 nets): io_alone" in out
    assert "block_cache_0.1 .. 1.1 (2 nets): io_alone" in out
    assert "<- old_k bf16[1, 6, 1, 2] at 0x100003000" in out
    memory = [json.loads(tool(toy_model(histories=rows), "info", "--json")[1])["memory"] for rows in ((12,), (12, 6))]
    assert memory[0] == memory[1] | {"instructions": memory[0]["instructions"]}


def test_the_nets_of_a_cascade_say_what_they_are_for(tool):
    code, out, _ = tool(toy_cascade(2), "info")
    assert code == 0
    assert "weights 640 bytes in 1 blobs" in out
    assert "block_0 .. 1 (2 nets), device 1 step 1: basic" in out
    assert "<- state_0 bf16[1, 8, 8] at 0x100000000 (hidden)" in out
    record = json.loads(tool(toy_cascade(2), "info", "--json")[1])
    assert [memory["blobs"] for memory in record["devices"]] == [1, 1]
    assert record["nets"][5]["cascade"] == {"main_name": "block_0", "device": 1, "step": 0}


def test_info_counts_the_instructions_of_each_core(tool):
    assert "sum: basic, 3 tiu 12 dma + 3 tiu 12 dma, weights none" in tool(sum_model(), "info")[1]
