import numpy as np
import pytest

from tests.helpers import check_pass, random_tensor
from tests.passes.toy_passes import IR

T = "tensor<4x8xbf16>"
FUSED = f'%z = "toy.swiglu"(%gate, %up) : ({T}, {T}) -> {T}'


def test_sides_are_compared_by_structure():
    check_pass("toy-fuse", before=IR, after=FUSED)


def test_a_pass_that_does_too_little_or_too_much_is_caught():
    with pytest.raises(AssertionError, match="after toy-fuse"):
        check_pass("toy-fuse", before=IR, after=IR)
    with pytest.raises(AssertionError, match="expected"):
        check_pass("", before=IR, after=FUSED)


def test_swapped_operands_are_caught():
    swapped = FUSED.replace("%gate, %up", "%up, %gate")
    with pytest.raises(AssertionError, match="expected"):
        check_pass("toy-fuse", before=IR, after=swapped)


def test_numbered_names_are_matched_by_name():
    before = f'%9 = "toy.mul"(%1, %0) : ({T}, {T}) -> {T}'
    check_pass("", before=before, after=before)
    with pytest.raises(AssertionError, match="expected"):
        check_pass("", before=before, after=before.replace("%1, %0", "%0, %1"))


def test_whole_modules_may_be_given():
    body = '({ "func.return"() : () -> () })'
    text = f'"func.func"() <{{sym_name = "f", function_type = () -> ()}}> {body} : () -> ()'
    check_pass("toy-fuse", before=text, after=text)


def test_random_tensors_repeat_and_fill_their_type():
    assert np.array_equal(random_tensor(3, 4), random_tensor(3, 4))
    assert random_tensor(5, seed=1).tolist() != random_tensor(5).tolist()
    values = random_tensor(4096, dtype=np.int8)
    assert (values.min(), values.max()) == (-128, 127)
