import pickle

import ml_dtypes
import numpy as np
import pytest

from compiler.ir.types import BF16, ELEMENTS, F32, I1, UI4, UI8, FunctionType, TensorType, element
from tests.compiler.ir.toy import BufferType, Flag, View


@pytest.mark.parametrize("kind", ELEMENTS.values(), ids=ELEMENTS)
def test_element_widths_agree_with_numpy(kind):
    assert kind.numpy.itemsize == max(kind.bits, 8) // 8
    assert element(kind.name) is kind
    assert pickle.loads(pickle.dumps(kind)) is kind


def test_float_elements():
    floats = [name for name, kind in ELEMENTS.items() if kind.is_float]
    assert floats == ["f32", "f64", "f16", "bf16", "f8E4M3FN", "f8E5M2"]


def test_element_dtypes():
    assert BF16.numpy == np.dtype(ml_dtypes.bfloat16)
    assert I1.numpy == np.dtype(bool)
    assert (BF16.bytes, F32.bytes) == (2, 4)


def test_elements_below_a_byte_have_no_byte_count():
    with pytest.raises(AssertionError, match="ui4 elements are smaller than a byte"):
        _ = UI4.bytes


def test_tensor_sizes():
    tensor = TensorType((3, 5), UI4)
    assert (tensor.rank, tensor.size, tensor.bytes) == (2, 15, 8)
    assert TensorType((2,), UI4).bytes == 1


def test_types_print_as_mlir_writes_them():
    view = View(BF16, strides=(1, 2), scale=1e-6, inner=Flag())
    assert str(TensorType((), F32)) == "tensor<f32>"
    assert str(TensorType((1, 64), UI8)) == "tensor<1x64xui8>"
    assert str(FunctionType((F32,), ())) == "(f32) -> ()"
    assert str(BufferType(4096)) == "!toy.buffer<bytes = 4096>"
    assert str(TensorType((2,), BF16, view)) == (
        "tensor<2xbf16, #toy.view<dtype = bf16, strides = [1, 2], scale = 1.0e-06, inner = #toy.flag>>"
    )
