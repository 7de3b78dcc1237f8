"""Sizes as people write and read them."""

import pytest

from compiler.sizes import human, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"), [("16GB", 16 * 10**9), ("4.2 gb", 4_200_000_000), ("8GiB", 8 << 30), ("512MiB", 512 << 20), ("7", 7)]
)
def test_sizes_are_read(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e9", "16 TB", "1.GB", "nan", "1" * 40, "٣GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="expected a size such as"):
        parse_bytes(text)


def test_sizes_are_told_in_the_unit_that_leaves_a_digit():
    assert [human(size) for size in (999, 1000, 2_100_000, 16 * 10**9)] == ["999 bytes", "1 KB", "2.1 MB", "16.00 GB"]
