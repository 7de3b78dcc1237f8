"""Names of parts of parameters of experts."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.weights.part import Part, of_expert, parameter_of, part_of

STACK = np.arange(3 * 4 * 5).reshape(3, 4, 5)
NAMES = {
    "p[2]": STACK[2],
    "p[0].T": STACK[0].T,
    "p[1].T[0:5:2]": STACK[1].T[::2],
    "p[1][1:3:1]": STACK[1, 1:3],
    "p[*].T": STACK.swapaxes(1, 2),
    "p[*][1:4:2]": STACK[:, 1:4:2],
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_what_part_it_is_and_of_what_shape(name):
    part = part_of(name)
    assert part is not None
    assert str(part) == name
    found = part.of(STACK[part.experts])
    np.testing.assert_array_equal(found, NAMES[name])
    assert part.shape(STACK.shape) == found.shape


def test_rows_of_a_vector_are_its_items():
    vectors = STACK[:, :, 0]
    part = Part("b", 1, rows=(1, 4, 2))
    assert part.of(vectors[part.experts]).tolist() == vectors[1, 1:4:2].tolist()
    assert part.shape(vectors.shape) == (2,)


def test_one_expert_is_named_by_the_name_of_all():
    assert of_expert("mlp.experts.up_proj[*].T[0:8:1]", 17) == "mlp.experts.up_proj[17].T[0:8:1]"


@pytest.mark.parametrize("name", ["p", "layers.3.p", "p[", "p[1][2]x", "p[x]"])
def test_other_names_are_no_parts(name):
    assert part_of(name) is None


@pytest.mark.parametrize("name", ["a.weight", "a.weight@b.weight.order", "a.weight[3].T[0:4:1]", "a.weight[*]@b.order"])
def test_the_parameter_of_a_name(name):
    assert parameter_of(name) == "a.weight"
