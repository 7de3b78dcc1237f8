"""Recorded graphs: what values depend on, and fingerprints."""

from __future__ import annotations

from torch.nn import functional as F

from frontend.graph import Graph, GraphValue, Node, map_values
from tests.frontend.recorded import record


def test_fingerprint_ignores_the_prefix_and_sees_constants():
    def scaled(by):
        return record(lambda m, x: F.linear(x, m.weight) * (m.computed * by)).fingerprint("inner.")

    assert scaled(1.0) == scaled(1.0)
    assert scaled(1.0) != scaled(2.0)


def test_fingerprint_sees_parameter_names_and_operand_order():
    def of(function, prefix="inner."):
        return record(function).fingerprint(prefix)

    assert of(lambda m, x: x + m.saved) != of(lambda m, x: x + m.weight[0])
    assert of(lambda m, x: x - x.neg()) != of(lambda m, x: x.neg() - x)
    assert of(lambda m, x: x + m.saved) != of(lambda m, x: x + m.saved, prefix="other.")


def add(graph: Graph, name: str, *operands: GraphValue, results: int = 1) -> list[GraphValue]:
    return graph.add(Node(name, operands), [((2,), "float32")] * results)


def test_a_slice_has_what_its_targets_depend_on_in_the_order_of_the_run():
    graph = Graph()
    (x,), (other,) = add(graph, "input"), add(graph, "other")
    (a,) = add(graph, "a", x)
    (b,) = add(graph, "b", other)
    (c,) = add(graph, "c", a, x)
    assert [node.name for node in graph.slice_to([c], [])] == ["input", "a", "c"]
    assert [node.name for node in graph.slice_to([c, b], [])] == ["input", "other", "a", "b", "c"]
    assert graph.slice_to([], []) == []


def test_a_slice_does_not_look_behind_where_it_stops():
    graph = Graph()
    (x,) = add(graph, "input")
    (a,) = add(graph, "a", x)
    (b,) = add(graph, "b", a)
    assert [node.name for node in graph.slice_to([b], [a])] == ["b"]
    assert [node.name for node in graph.slice_to([b], [x])] == ["a", "b"]
    assert graph.slice_to([b], [b]) == []


def test_a_node_of_several_results_is_needed_for_any_of_them():
    graph = Graph()
    first, second = add(graph, "split", *add(graph, "input"), results=2)
    assert [node.name for node in graph.slice_to([second], [])] == ["input", "split"]
    assert [node.name for node in graph.slice_to([first, second], [second])] == ["input", "split"]


def test_operands_are_found_in_nested_arguments():
    graph = Graph()
    (x,), (y,) = add(graph, "x"), add(graph, "y")
    node = Node("cat", ([x, (3, y)],), {"out": {"of": x}})
    assert node.operands() == [x, y, x]
    changed = map_values(node.args, lambda value: value.node.name)
    assert changed == (["x", (3, "y")],)


def test_fingerprint_sees_shapes_types_keywords_outputs_and_no_paths():
    def of(shape=(2,), dtype="float32", path="", output=0, **keywords):
        graph = Graph()
        made = graph.add(Node("op", (), keywords, path), [(shape, dtype), ((2,), "float32")])
        graph.outputs = [made[output]]
        return graph.fingerprint("")

    assert of() == of(path="model.layers.1.mlp")
    assert of(a=1, b=2) == of(b=2, a=1)
    others = [of(shape=(3,)), of(dtype="int64"), of(output=1), of(a=1), of(a=2)]
    assert len({of(), *others}) == 1 + len(others)
