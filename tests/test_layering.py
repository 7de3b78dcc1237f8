"""Imports point one way: machinery, dialects, then front end, passes and simulator side by side, then the driver."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Rank of each folder; a module imports only modules of its own rank or below.
RANKS = {"compiler": 0, "dialects": 1, "frontend": 2, "passes": 2, "runtime_sim": 2, "driver": 3}

# Parts of one rank are strangers, so that a mistake in one does not hide in another.
STRANGERS = ("frontend", "passes", "runtime_sim")

# What the compiler computes the simulator computes by itself; they only share names for it.
OWN_NUMBERS = {"runtime_sim": "compiler.weights"}
SHARED_NAMES = ("compiler.weights.scheme",)

HEAVY = ("torch", "transformers")


def sources() -> list[Path]:
    return sorted(path for folder in RANKS for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def part_of(module: str) -> str:
    return module.partition(".")[0]


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


def ours(tree: ast.AST) -> list[str]:
    return [name for name in imported(tree) if part_of(name) in RANKS]


def backward_imports(module: str, tree: ast.AST) -> list[str]:
    source = part_of(module)
    return [f"{module} imports {name}" for name in ours(tree) if is_backward(source, part_of(name))]


def is_backward(source: str, target: str) -> bool:
    return RANKS[target] > RANKS[source] or (source != target and {source, target} <= set(STRANGERS))


def borrowed_numbers(module: str, tree: ast.AST) -> list[str]:
    """Imports of code that computes, from a part that must have its own."""
    own = OWN_NUMBERS.get(part_of(module))
    names = [name for name in ours(tree) if own and f"{name}.".startswith(f"{own}.")]
    return [name for name in names if not name.startswith(SHARED_NAMES)]


def circle(trees: dict[str, ast.AST]) -> list[str]:
    """Modules each of which imports the next, and the last the first; none when there is no circle."""
    graph = {module: {file_of(name, trees) for name in ours(tree)} - {module} for module, tree in trees.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1][:-1])
    return []


def file_of(name: str, modules: Collection[str]) -> str:
    """The module that an import of `name` reads: `name` itself, or the one that it is defined in."""
    return name if name in modules else name.rpartition(".")[0]


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """All files, by module."""
    return {module_name(path): ast.parse(path.read_text()) for path in sources()}


def test_the_simulator_decodes_weights_by_itself(trees):
    assert [name for module, tree in trees.items() for name in borrowed_numbers(module, tree)] == []


def test_borrowed_numbers_are_found():
    tree = ast.parse("from compiler.weights.stored import Quantized\nfrom compiler.weights.scheme import Scheme")
    assert borrowed_numbers("runtime_sim.interpret.llm", tree) == ["compiler.weights.stored.Quantized"]
    assert borrowed_numbers("driver.blob", tree) == []


def test_imports_point_one_way(trees):
    arrows = {module: backward_imports(module, tree) for module, tree in trees.items()}
    assert {module: found for module, found in arrows.items() if found} == {}


def test_no_file_imports_itself_by_way_of_others(trees):
    assert circle(trees) == []


def test_a_circle_is_found():
    lines = {"compiler.a": "from compiler.b import x", "compiler.b": "def f():\n    import compiler.a"}
    assert set(circle({name: ast.parse(line) for name, line in lines.items()})) == set(lines)


def test_only_the_frontend_imports_torch_at_once(trees):
    """Help, inspection and simulation start at once, so importing torch waits inside a function elsewhere."""
    assert [module for module, tree in trees.items() if part_of(module) != "frontend" and is_heavy(tree)] == []


def is_heavy(tree: ast.Module) -> bool:
    """Whether a module imports torch or transformers when it is imported itself."""
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return any(name.split(".")[0] in HEAVY for node in top for name in imported(ast.Module([node], [])))


def test_a_heavy_import_is_found():
    assert is_heavy(ast.parse("from transformers import AutoModel"))
    assert not is_heavy(ast.parse("def f():\n    import torch"))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("compiler.ir.core", "import dialects.llm"),
        ("compiler.target.chips", "from driver import convert"),
        ("passes.llm.fuse", "from runtime_sim.interpret.llm import rms_norm"),
        ("runtime_sim.interpret.llm", "import passes"),
        ("frontend.importer", "from passes.llm.canonicalize import canonicalize"),
        ("frontend.trace", "def f():\n    from driver.convert import run"),
    ],
)
def test_an_arrow_that_points_back_is_found(module, line):
    assert len(backward_imports(module, ast.parse(line))) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("passes.emit_bmodel", "from compiler.bmodel import write_bmodel"),
        ("compiler.ir.core", "if TYPE_CHECKING:\n    from driver.convert import run"),
        ("runtime_sim.launch.loader", "import numpy, compiler.target.chips"),
    ],
)
def test_an_arrow_that_points_forward_is_allowed(module, line):
    assert backward_imports(module, ast.parse(line)) == []
