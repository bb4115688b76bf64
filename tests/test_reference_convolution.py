"""The reference's convolution against its definition, one multiply-add at a time, and the transposed against it."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_oracle import assert_backward_is_the_derivative, assert_close, draw, normal, run

from fcnn import reference as ref


def assert_equal_to_the_definition(x, kernel, bias, padding, pads, **options):
    node = ref.Conv(kernel=kernel, bias=bias, padding=padding, **options)
    value, cotangent, (dx,), of_params = run(node, x)
    assert_close(value, ref.conv_by_definition(x, kernel, bias, pads=pads, **options))
    truth = ref.conv_gradients_by_definition(x, kernel, cotangent, pads=pads, **options)
    for name, actual, expected in zip(("x", "kernel", "bias"), (dx, *of_params.values()), truth, strict=True):
        assert_close(actual, expected, f"the gradient of {name}")


@st.composite
def convolutions(draw_one, rank):
    """Shapes and hyperparameters of a convolution that fits, and the pairs its padding must come to."""
    numbers = st.integers
    axes = [numbers(1, 5 if rank < 3 else 3), numbers(1, 3 if rank < 3 else 2), numbers(1, 3), numbers(1, 2)]
    space, kernel, stride, dilation = (tuple(draw_one(axis) for _ in range(rank)) for axis in axes)
    groups = draw_one(numbers(1, 2))
    padding = draw_one(st.sampled_from(["VALID", "SAME", "CAUSAL", 2, "pairs"]))
    spans = [(p - 1) * d + 1 for p, d in zip(kernel, dilation, strict=True)]
    if padding == "VALID":
        pads = ((0, 0),) * rank
    elif padding == "SAME":  # TensorFlow's rule
        lacks = [max(p - (m % s or s), 0) for m, p, s in zip(space, spans, stride, strict=True)]
        pads = tuple((lack // 2, lack - lack // 2) for lack in lacks)
    elif padding == "CAUSAL":
        pads = tuple((span - 1, 0) for span in spans)
    elif padding == 2:
        pads = ((2, 2),) * rank
    else:
        pads = padding = tuple((draw_one(numbers(0, 2)), draw_one(numbers(0, 3))) for _ in range(rank))
    fits = zip(space, spans, pads, strict=True)
    space = tuple(max(size, span - sum(pair)) for size, span, pair in fits) if padding != "SAME" else space
    return space, kernel, groups, padding, pads, {"stride": stride, "dilation": dilation, "groups": groups}


@pytest.mark.parametrize("rank", [1, 2, 3])
@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.data())
def test_conv_is_its_definition(rank, data):
    space, kernel, groups, padding, pads, options = data.draw(convolutions(rank))
    x, weights = normal(1, 1, *space, 2 * groups), normal(2, *kernel, 2, groups)
    assert_equal_to_the_definition(x, weights, normal(3, groups), padding, pads, **options)


@pytest.mark.parametrize(("padding", "mode"), [("CIRCULAR", "wrap"), ("REFLECT", "reflect")])
def test_copied_padding_is_the_definition_on_a_padded_input(padding, mode):
    x, kernel = draw(2, 5, 4, 2), draw(3, 4, 2, 3)
    wider = np.pad(x, ((0, 0), (1, 1), (1, 2), (0, 0)), mode=mode)
    assert_close(ref.Conv(kernel=kernel, padding=padding).forward(x), ref.conv_by_definition(wider, kernel))


def test_the_comparison_with_the_definition_can_fail():
    with pytest.raises(AssertionError, match="the value has shape"):
        assert_equal_to_the_definition(draw(1, 4, 1), draw(2, 1, 1), None, "VALID", 1)
    with pytest.raises(AssertionError, match="the value is off"):
        assert_equal_to_the_definition(draw(1, 4, 1), draw(2, 1, 1), None, "CAUSAL", ((0, 1),))


def test_a_transposed_convolution_is_the_gradient_of_a_convolution():
    kernel = draw(3, 2, 4, 3)  # channels 3, features 4 of the convolution, swapped
    small, large = draw(2, 4, 3, 4), np.zeros((2, 9, 4, 3))
    of_conv, _, _ = ref.conv_gradients_by_definition(large, kernel.swapaxes(-1, -2), small, stride=(2, 1))
    assert_close(ref.ConvTranspose(kernel=kernel, stride=(2, 1)).forward(small), of_conv)


def test_transposed_same_gives_as_many_samples_as_stride_times_input():
    for span, stride in itertools.product((1, 2, 3, 5), (1, 2, 3)):
        node = ref.ConvTranspose(kernel=draw(span, 1, 1), stride=stride, padding="SAME")
        assert node.forward(draw(1, 4, 1)).shape == (1, 4 * stride, 1)
        assert_backward_is_the_derivative(node, draw(1, 4, 1))
