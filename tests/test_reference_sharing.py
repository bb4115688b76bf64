"""Sets of edges that share a weight: a scanning linear layer is a convolution."""

import numpy as np
import pytest
from reference_oracle import assert_close, draw, normal

from fcnn import reference as ref


@pytest.mark.parametrize(
    ("space", "kernel", "options"),
    [
        ((7,), (3,), {"stride": 2}),
        ((6,), (3,), {"padding": "SAME", "dilation": 2}),
        ((5,), (3,), {"padding": "CIRCULAR"}),
        ((4, 5), (2, 3), {"stride": (1, 2), "padding": ((1, 0), (0, 2))}),
        ((4, 4), (3, 3), {"padding": "SAME"}),
    ],
)
def test_a_scanning_linear_layer_is_a_convolution(space, kernel, options):
    x, weights = draw(2, *space, 2), draw(*kernel, 2, 3)
    scan = ref.SharedLinear(weights.ravel(), ref.scanning_sets(space, kernel, channels=2, features=3, **options))
    conv = ref.Conv(kernel=weights, **options)
    y = conv.forward(x)
    assert_close(scan.forward(x.reshape(2, -1)), y.reshape(2, -1))
    cotangent = normal(1, *y.shape)
    (dx,), (flat,) = conv.backward(cotangent), scan.backward(cotangent.reshape(2, -1))
    assert_close(flat, dx.reshape(2, -1))
    assert_close(scan.gradients["values"], conv.gradients["kernel"].ravel())
    # the set's derivative by hand: the sum of those of its edges, as if nothing were shared
    unshared = ref.Dense(kernel=scan.matrix())
    unshared.forward(x.reshape(2, -1))
    unshared.backward(cotangent.reshape(2, -1))
    sums = [unshared.gradients["kernel"][scan.sets == label].sum() for label in range(weights.size)]
    assert_close(scan.gradients["values"], sums)


def test_an_update_moves_every_use_of_a_set():
    scan = ref.SharedLinear(np.array([1.0, 2.0]), ref.scanning_sets((4,), 2))
    scan.forward(draw(3, 4))
    scan.backward(draw(3, 3))
    new = ref.SGD(0.1).step(scan.params, scan.gradients)
    scan.replace(new)
    for label in (0, 1):
        assert set(scan.matrix()[scan.sets == label]) == {new["values"][label]}


def test_the_distributed_scan_of_example_23_has_block_shared_sets():
    first_sets = ref.scanning_sets((8,), 2, channels=24, features=2, stride=2)
    second_sets = ref.scanning_sets((4,), 2, channels=2, features=8, stride=2)
    assert (first_sets.shape, second_sets.shape) == ((192, 8), (8, 16))  # an MLP 192-8-16
    assert ref.count_weights(first_sets).shared == 48 * 2
    assert ref.count_weights(first_sets).unshared == 4 * 48 * 2
    assert ref.count_weights(second_sets) == (4 * 8, 2 * 4 * 8, 8 * 16)
