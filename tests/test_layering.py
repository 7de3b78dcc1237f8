"""Imports point one way: IR, dialects, passes beside simulator, frontend and container, then the driver."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("compiler", "dialects", "passes", "runtime_sim")

# Rank of each part; a module imports only modules of its own rank or below. The longest prefix counts, and
# what has none (chips, isa, quant, timing, diagnostics, ...) is at the bottom.
RANKS = {
    "compiler": 0,
    "compiler.ir": 1,
    "dialects": 2,
    "compiler.rewrite": 2,
    "compiler.pass_manager": 2,
    "passes": 3,
    "runtime_sim": 3,
    "compiler.frontend": 3,
    "compiler.bmodel": 3,
    "compiler.weights": 3,
    "compiler.pipelines": 4,
    "compiler.search": 4,
    "compiler.resume": 4,
    "compiler.bisect": 5,
    "compiler.job": 5,
    "compiler.write": 6,
    "compiler.driver": 7,
    "compiler.cli": 8,
}

# Of the same rank, but strangers: a mistake in one must not hide in the other.
STRANGERS = {
    ("passes", "runtime_sim"),
    ("runtime_sim", "passes"),
    ("runtime_sim", "compiler.frontend"),
    ("passes", "compiler.frontend"),
    ("compiler.frontend", "runtime_sim"),
    ("compiler.frontend", "compiler.bmodel"),
    ("compiler.bmodel", "passes"),
    ("compiler.bmodel", "runtime_sim"),
    ("compiler.bmodel", "compiler.frontend"),
}

HEAVY = ("torch", "transformers")


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def part_of(module: str) -> str:
    """The longest entry of RANKS that the module lies in."""
    return max((part for part in RANKS if module == part or module.startswith(f"{part}.")), key=len)


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules that a file imports when it runs, inside functions too; not those for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from imported(node)


def backward_imports(module: str, tree: ast.AST) -> list[str]:
    source = part_of(module)
    targets = [name for name in imported(tree) if name.split(".")[0] in FOLDERS]
    return [
        f"{module} imports {name}"
        for name in targets
        if RANKS[part_of(name)] > RANKS[source] or (source, part_of(name)) in STRANGERS
    ]


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_point_one_way(path):
    assert backward_imports(module_name(path), ast.parse(path.read_text())) == []


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_only_the_frontend_imports_torch_at_once(path):
    """Help, inspection and simulation start at once, so importing torch waits inside a function elsewhere."""
    tree = ast.parse(path.read_text())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name.split(".")[0] for node in top for name in imported(ast.Module([node], []))}
    assert part_of(module_name(path)) == "compiler.frontend" or not names & set(HEAVY)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("compiler.ir.core", "import dialects.llm"),
        ("compiler.chips", "from compiler import driver"),
        ("passes.llm.fuse", "from runtime_sim.llm import rms_norm"),
        ("runtime_sim.llm", "import passes"),
        ("compiler.frontend.trace", "def f():\n    from compiler.driver import run"),
    ],
)
def test_an_arrow_that_points_back_is_found(module, line):
    assert len(backward_imports(module, ast.parse(line))) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("passes.emit_bmodel", "from compiler.bmodel import write_bmodel"),
        ("compiler.ir.core", "if TYPE_CHECKING:\n    from compiler.driver import run"),
        ("runtime_sim.loader", "import numpy, compiler.chips"),
    ],
)
def test_an_arrow_that_points_forward_is_allowed(module, line):
    assert backward_imports(module, ast.parse(line)) == []
