"""The chip table: its numbers agree with each other, and names are found."""

import ast
import dataclasses
from pathlib import Path

import pytest

from compiler.diagnostics import UserError
from compiler.target.chips import CHIPS, chip, chip_of_file
from compiler.target.chips.bm1684x import BM1684X
from compiler.target.chips.bm1688 import BM1688
from compiler.target.costs import Costs
from compiler.target.spec import ChipSpec

ROOT = Path(__file__).parents[3]
READERS = ("compiler", "dialects", "passes", "runtime_sim", "frontend", "driver")


@pytest.mark.parametrize("name", CHIPS)
def test_a_chip_is_named_as_its_file(name):
    assert CHIPS[name].name == name
    assert chip_of_file(CHIPS[name].chip) is CHIPS[name]


def test_a_chip_tells_nothing_that_nobody_asks():
    files = [path for folder in READERS for path in (ROOT / folder).rglob("*.py")]
    read = {
        node.attr
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert {field.name for field in dataclasses.fields(ChipSpec)} - read == set()
    assert {field.name for field in dataclasses.fields(Costs)} - read == set()


@pytest.mark.parametrize("spec", CHIPS.values(), ids=CHIPS)
def test_banks_make_up_a_lane_and_lanes_the_local_memory(spec):
    assert spec.banks * spec.bank_bytes == spec.lane_bytes
    assert spec.local_bytes == spec.lanes * spec.lane_bytes
    assert spec.eu_items(2) * 2 == spec.eu_bytes


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"banks": 8}, "8 banks of 16384 are not 262144 bytes"),
        ({"lanes": 8}, "8 f32 is not a multiple of 64 bytes"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(changes, problem):
    with pytest.raises(ValueError, match=problem):
        dataclasses.replace(chip("bm1684x"), **changes)


def test_local_memory_sizes_are_those_of_the_data_sheets():
    assert chip("bm1684x").local_bytes == 16 << 20
    assert chip("bm1688").local_bytes == 4 << 20


def test_cv186ah_is_bm1688_with_one_core():
    assert (chip("cv186ah").cores, chip("bm1688").cores) == (1, 2)
    assert chip("cv186ah").instructions is chip("bm1688").instructions
    assert chip("cv186ah").chip == "CV186X"


@pytest.mark.parametrize(("name", "meant"), [("cv186x", "cv186ah"), ("BM1684X", "bm1684x")])
def test_aliases_and_capitals_are_understood(name, meant):
    assert chip(name) is CHIPS[meant]


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"'bm1690'.*bm1684x, bm1688, cv186ah"):
        chip("bm1690")


def test_a_cycle_is_one_of_the_slower_clock():
    assert (BM1684X.mhz, BM1688.mhz) == (1000, 900)
