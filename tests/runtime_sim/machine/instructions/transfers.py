"""Copies between local memory and flat memory, by shapes and strides."""

from hypothesis import strategies as st

from tests.runtime_sim.machine.instructions.board import WIDTHS, at, code_of, sizes, steps

shapes = st.tuples(st.integers(1, 2), st.integers(1, 140), st.integers(1, 3), st.integers(1, 6))
widths = st.sampled_from(WIDTHS)


def row_major(shape, gap=0):
    _, c, h, w = shape
    return (c * (h * w + gap), h * w + gap, w, 1)


def transfer(board, kind, source, target, dtype, name="dma_tensor", **fields):
    """source and target: (address, shape, strides); a command with strides of its own."""
    ends = {}
    for end, (address, shape, strides) in (("src", source), ("dst", target)):
        ends |= at(end, address) | sizes(end, shape) | steps(end, strides)
    board.run(name, kind, **{"stride_enable": 1, "src_data_format": code_of(dtype)} | ends | fields)
