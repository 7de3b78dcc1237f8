"""What a dry run says of memory, of lengths that would fit, and of boards."""

from __future__ import annotations

import pytest

from compiler.bmodel.memory import DeviceMemory
from driver.ahead.boards import boards
from driver.ahead.dry_run import DeviceUse, fitting, told
from driver.convert import compiled_job, proven
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from frontend.load import open_model
from passes import load_all

MEMORY = DeviceMemory(weights=1_200, blobs=1, caches=1_000, io=100, scratch=500, instructions=200)
USE = DeviceUse(0, MEMORY, tokens=100, tables=200, mask=400, whole_prompt=True)


def test_what_grows_with_the_length():
    assert USE.at(100) == MEMORY.total
    assert USE.at(200) == 1_000 + 100 + 2 * (200 + 1_000 + 200 + 100) + 4 * 400


def test_a_prompt_of_its_own_length_needs_the_same_scratch_memory():
    use = DeviceUse(0, MEMORY, 100, 200, 400, whole_prompt=False)
    assert use.at(200) == MEMORY.total + 200 + 1_000 + 200


def test_the_longest_length_that_fits():
    assert USE.longest(USE.at(640) + 1, 1 << 20) == 640
    assert USE.longest(USE.at(640) - 1, 1 << 20) == 576
    assert USE.longest(1_000, 1 << 20) == 0
    assert USE.longest(USE.at(1_000), 1_000) == 1_000  # all that a model can, though no multiple


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (10**9, "fits 1.00 GB; so would -s 1000, all that the model can"),
        (USE.at(640) + 1, "fits 27.1 KB; the longest -s that would is about 640"),
        (2_900, "does not fit 2.9 KB; the longest -s that would is about 64"),
        (1_000, "does not fit 1 KB; nor would any -s"),
    ],
)
def test_whether_it_fits_is_said_in_words(limit, text):
    assert fitting(USE, limit, 1_000) == text


@pytest.mark.parametrize("changes", [{}, {"max_input_length": 64}])
def test_memory_of_another_length_is_close_to_what_that_takes(tiny_checkpoint, changes):
    load_all()

    def use(length):
        options = ConvertOptions(tiny_checkpoint("llama", layers=2), length, "w4bf16", q_group_size=32, **changes)
        options = ConvertOptions(**{**vars(options), "passes": default_pipeline(options)})
        opened = open_model(options.model_path)
        job = compiled_job(options, opened)
        return DeviceUse.of(job, proven(job), 0)

    short, longer = use(128), use(256)
    assert short.at(128) == short.memory.total
    assert short.at(256) == pytest.approx(longer.memory.total, rel=0.15)


def test_a_board_is_told_with_the_estimate_of_its_program():
    board = next(board for board in boards() if board.vendor_rate is not None and board.cores == 2)
    lines = list(told(board, 1e9))
    assert f"{board.model}, 4 bits, 512 tokens, BM1688, 2 cores: first token 1.66 s, 7.98 tokens/s" in lines[0]
    assert lines[1].endswith("by the cautious estimate: 1.58 s, 7.64 tokens/s")
    assert "this model 1.00 GB" in lines[2]
