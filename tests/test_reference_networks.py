"""Networks and graphs of the reference's nodes: chains, tapes, and what is used at several places."""

import numpy as np
import pytest
from reference_oracle import (
    NO_TORCH,
    F,
    assert_backward_is_the_derivative,
    assert_close,
    assert_torch_agrees,
    draw,
    first,
    normal,
    one_by_one,
)

from fcnn import reference as ref


def test_a_chain_trains_by_replacing_its_parameters():
    shared = one_by_one(1, 3, 3)
    net = ref.Chain([shared, ref.Tanh(), shared, ref.Chain([one_by_one(2, 3, 2)])])
    assert list(net.params) == ["0.kernel", "0.bias", "3.0.kernel", "3.0.bias"]  # what is shared is there once
    x, y, loss, update = draw(8, 3), draw(8, 2), ref.SquaredError(), ref.Adam(0.05)
    losses = []
    for _ in range(60):
        losses.append(loss.forward(net.forward(x), y))
        net.clear()
        net.backward(loss.backward())
        net.replace(update.step(net.params, net.gradients))
    assert losses[-1] < 0.3 * losses[0]
    assert np.array_equal(net.params["0.kernel"], shared.params["kernel"])
    assert_backward_is_the_derivative(net, x)  # also by the weights that are used twice


def test_a_small_network_against_torch():
    kernels = {"a": normal(1, 3, 3, 1, 4), "b": normal(2, 2, 2, 2, 6), "c": normal(3, 6, 3)}

    def theirs(torch, p, x):
        a = F(torch).conv2d(first(x), p["0.kernel"].movedim((-1, -2), (0, 1)), padding=1)
        a = F(torch).max_pool2d(F(torch).elu(a), 2)
        b = F(torch).conv2d(a, p["3.kernel"].movedim((-1, -2), (0, 1)), groups=2)
        return F(torch).gelu(b).mean((2, 3)) @ p["6.kernel"]

    net = ref.Chain(
        [
            ref.Conv(kernel=kernels["a"], padding="SAME"),
            ref.ELU(),
            ref.MaxPool(2),
            ref.Conv(kernel=kernels["b"], groups=2),
            ref.GELU(approximate=False),
            ref.GlobalAvgPool(),
            ref.Dense(kernel=kernels["c"]),
        ]
    )
    assert_torch_agrees(net, theirs, draw(2, 8, 8, 1))


def test_gradients_add_at_the_branches_of_a_graph():
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    arrays = {"x": draw(2, 3), "w": normal(1, 3, 3), "b": draw(3)}

    def graph(x, w, b, tanh):
        h = tanh(x @ w + b)  # w: tied, used here and transposed below; h: three branches
        return (h @ w.T - 2.0 * x) * h + (1.0 - h) + (-x)

    tape, node = ref.Tape(), ref.Tanh()
    values = {name: tape.value(array) for name, array in arrays.items()}
    y = graph(**values, tanh=lambda value: ref.apply(node, value))
    ref.backward(y, normal(9, 2, 3))
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
    expected = graph(**tensors, tanh=torch.tanh)
    expected.backward(torch.tensor(normal(9, 2, 3)))
    assert_close(y.array, expected.detach().numpy())
    for name, value in values.items():
        assert_close(value.gradient, tensors[name].grad.numpy(), name, 1e-10)


def test_a_tape_takes_back_what_leads_nowhere():
    """A node that is also used for a value nobody asks for must still find its own inputs on its stack."""
    tape, node = ref.Tape(), ref.Dense(kernel=np.array([[2.0]]))
    x, z = tape.value(np.array([[3.0]])), tape.value(np.array([[50.0]]))
    y = ref.apply(node, x)
    ref.apply(node, z)
    ref.backward(y, np.ones((1, 1)))
    assert (node.gradients["kernel"].item(), x.gradient.item(), z.gradient.item()) == (3, 2, 0)
    with pytest.raises(ValueError, match="nothing is written"):
        ref.backward(y, np.ones((1, 1)))


def test_values_meet_numbers_and_arrays_on_either_side():
    tape = ref.Tape()
    x = tape.value(np.array([[1.0, 2.0], [3.0, 4.0]]))
    y = np.array([1.0, 1.0]) * x + np.array([[2.0, 0.0], [0.0, 2.0]]) @ x - x + 1
    ref.backward(y, np.ones((2, 2)))
    assert y.array.tolist() == [[3, 5], [7, 9]]
    assert x.gradient.tolist() == [[2, 2], [2, 2]]
