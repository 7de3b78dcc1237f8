"""Tests lie where what they test lies: a reader of a module finds its tests by its name."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("compiler", "dialects", "frontend", "passes", "runtime_sim", "driver")
WEIGHT = 150  # lines from which a module needs a test of its name

# Modules without one, and where they are tested.
EXCEPTIONS = {
    "compiler/target/chips/bm1688.py": "numbers of one chip: test_chips.py checks those of each",
    "compiler/target/families.py": "tables of instructions: test_isa.py encodes by them",
}


def of_weight() -> list[str]:
    """Modules of so many lines, by path; a package's __init__.py only gathers others."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    large = [path for path in paths if len(path.read_text().splitlines()) >= WEIGHT]
    return [str(path.relative_to(ROOT)) for path in large if path.name != "__init__.py"]


def own_test(module: str) -> str:
    folder, _, name = f"tests/{module}".rpartition("/")
    return f"{folder}/test_{name}"


def test_a_module_of_weight_has_a_test_of_its_name():
    missing = {module for module in of_weight() if not (ROOT / own_test(module)).exists()}
    assert missing == set(EXCEPTIONS)


def test_the_name_of_a_test_follows_the_place_of_its_module():
    assert own_test("compiler/ir/core.py") == "tests/compiler/ir/test_core.py"
