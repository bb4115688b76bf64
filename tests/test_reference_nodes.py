"""Every node of the reference against central differences and PyTorch, and the corners that cases do not reach."""

import numpy as np
import pytest
from reference_cases import CASES, COMPOSED, every_case, over
from reference_oracle import (
    NO_TORCH,
    F,
    assert_backward_is_the_derivative,
    assert_close,
    assert_torch_agrees,
    draw,
    first,
    normal,
    run,
)

from fcnn import reference as ref


class WrongInput(ref.Square):
    def df(self, x):
        return x


class WrongParameter(ref.Dense):
    def add_gradient(self, name, share):
        super().add_gradient(name, share * (1.001 if name == "kernel" else 1))


def test_the_comparisons_can_fail():
    with pytest.raises(AssertionError, match="off by"):
        assert_close([1.0, 2.0], [1.0, 2.0 + 1e-9])
    with pytest.raises(AssertionError, match="off by"):
        assert_close([1e-9], [0.0])
    with pytest.raises(AssertionError, match="shape"):
        assert_close(np.ones((1, 2)), np.ones(2))
    with pytest.raises(AssertionError):
        assert_close([np.nan], [1.0])
    with pytest.raises(AssertionError, match="input 0"):
        assert_backward_is_the_derivative(WrongInput(), draw(3))
    with pytest.raises(AssertionError, match="gradient of kernel"):
        assert_backward_is_the_derivative(WrongParameter(kernel=draw(2, 3)), draw(4, 2))


def test_the_comparison_with_torch_can_fail():
    pytest.importorskip("torch", reason=NO_TORCH)
    with pytest.raises(AssertionError, match="the value"):
        assert_torch_agrees(ref.Square(), lambda t, p, x: x**3, draw(3))
    with pytest.raises(AssertionError, match="input 0"):
        assert_torch_agrees(WrongInput(), lambda t, p, x: x**2, draw(3))
    with pytest.raises(AssertionError, match="gradient of kernel"):
        assert_torch_agrees(WrongParameter(kernel=draw(2, 3)), lambda t, p, x: x @ p["kernel"], draw(4, 2))


# ---------------------------------------------------------------- every node


def test_every_node_has_a_case():
    public = {getattr(ref, name) for name in ref.__all__}
    nodes = {thing for thing in public if isinstance(thing, type) and issubclass(thing, ref.Node)}
    assert nodes - {type(case.make()) for case in CASES} == {ref.Node, ref.Copy}  # Copy: a test of its own


@over([case for case in CASES if case.smooth])  # at ties PyTorch's choice is compared instead
def test_backward_is_the_derivative(case):
    assert_backward_is_the_derivative(case.make(), *case.inputs)


@every_case
def test_torch_agrees(case):
    assert_torch_agrees(case.make(), case.theirs, *case.inputs)


@over([case for case in CASES if not isinstance(case.make(), COMPOSED)])  # those are made of the others
def test_single_precision_stays_single(case):
    node = case.make()
    node.params = {name: value.astype(np.float32) for name, value in node.params.items()}
    node.gradients = {name: np.zeros_like(value) for name, value in node.params.items()}
    for name in ("mean", "variance"):
        if getattr(node, name, None) is not None:
            setattr(node, name, getattr(node, name).astype(np.float32))
    value, _, gradients, of_params = run(node, *(x.astype(np.float32) for x in case.inputs))
    assert {array.dtype for array in (value, *gradients, *of_params.values())} == {np.dtype(np.float32)}
    expected, _, exact, _ = run(case.make(), *case.inputs)
    assert_close(value, expected, "the value", 1e-4)
    for gradient, truth in zip(gradients, exact, strict=True):
        assert_close(gradient, truth, "the gradient", 1e-3)


@every_case
def test_a_node_used_twice_adds_its_gradients(case):
    """Run forward twice and backward twice, last in, first out: the shares of both uses are summed."""
    node, other = case.make(), case.make()
    shifted = tuple(x + 1.0 for x in case.inputs)
    _, _, alone, gradients = run(other, *case.inputs)
    shares = {name: value.copy() for name, value in gradients.items()}
    _, cotangent, moved, gradients = run(other, *shifted)
    sums = {name: shares[name] + value for name, value in gradients.items()}
    node.forward(*case.inputs)
    node.forward(*shifted)
    for expected in (moved, alone):
        for actual, truth in zip(node.backward(cotangent), expected, strict=True):
            assert_close(actual, truth, "the gradient of an input")
    for name, total in sums.items():
        assert_close(node.gradients[name], total, name)
    node.clear()
    assert not any(gradient.any() for gradient in node.gradients.values())


@every_case
def test_backward_asks_for_its_forward_and_the_shape_of_the_output(case):
    node = case.make()
    value = node.forward(*case.inputs)
    if not isinstance(node, COMPOSED):
        with pytest.raises(ValueError, match="the gradient has shape"):
            node.backward(np.ones((*value.shape, 1)))
    node.backward(np.ones_like(value))
    with pytest.raises(ValueError, match="needs a forward before it"):
        node.backward(np.ones_like(value))


def test_copy_adds_what_comes_back():
    node = ref.Copy(3)
    copies = node.forward(draw(2, 3))
    assert len(copies) == 3
    assert all(np.array_equal(copy, draw(2, 3)) for copy in copies)
    gradients = [normal(i, 2, 3) for i in range(3)]
    assert_close(node.backward(tuple(gradients))[0], np.sum(gradients, 0))


# ---------------------------------------------------------------- kinks and far values


def test_ties_go_to_the_first():
    for node, x in [
        (ref.MaxPool(2), np.ones((1, 2, 2, 1))),
        (ref.GlobalMaxPool(), np.ones((1, 2, 2, 1))),
        (ref.AdaptiveMaxPool(1), np.ones((1, 2, 2, 1))),
        (ref.Maxout(4), np.ones((1, 4))),
    ]:
        value = node.forward(x)
        assert node.backward(np.ones_like(value))[0].ravel().tolist() == [1, 0, 0, 0]
    node = ref.Max()
    node.forward(np.ones(2), np.ones(2), np.zeros(2))
    assert [g.tolist() for g in node.backward(np.ones(2))] == [[1, 1], [0, 0], [0, 0]]


def test_slopes_at_zero():
    slopes = {
        ref.ReLU: 0,
        ref.Abs: 0,
        ref.LeakyReLU: 0.01,
        ref.ELU: 1,
    }
    for node, slope in slopes.items():
        gate = node()
        gate.forward(np.zeros(1))
        assert gate.backward(np.ones(1))[0].tolist() == [slope]


def test_a_window_of_zeros_has_no_gradient_in_a_norm():
    for power in (1.0, 2.0, 3.0):
        node = ref.LpPool(2, power=power)
        assert node.forward(np.zeros((1, 2, 1))).item() == 0
        assert not node.backward(np.ones((1, 1, 1)))[0].any()
    node = ref.LpPool(3, power=1.0)  # a zero beside other numbers: the slope of |x| at 0 is 0
    node.forward(np.array([0.0, 2.0, -3.0]).reshape(1, 3, 1))
    assert node.backward(np.ones((1, 1, 1)))[0].ravel().tolist() == [0, 1, -1]


def test_far_values_stay_finite():
    x = np.array([-1000.0, -40.0, 40.0, 1000.0])
    for node in (ref.Sigmoid, ref.Tanh, ref.ELU, ref.GELU, ref.SiLU, ref.Softplus, ref.Softmax, ref.LogSoftmax):
        gate = node()
        assert np.isfinite(gate.forward(x)).all()
        assert np.isfinite(gate.backward(np.ones(4))[0]).all()
    assert ref.GELU(approximate=False).forward(np.array([-10.0]))[0] == pytest.approx(-7.61985e-23, rel=1e-5)


def test_running_statistics_are_those_of_torch():
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    x, old_mean, old_variance = draw(4, 5, 3), draw(3), draw(3) ** 2
    mean, variance = torch.tensor(old_mean), torch.tensor(old_variance)
    F(torch).batch_norm(first(torch.tensor(x)), mean, variance, training=True, momentum=0.3)
    node = ref.BatchNorm(mean=old_mean, variance=old_variance, momentum=0.7, train=True)
    node.forward(x)
    assert_close(node.new_mean, mean.numpy())
    assert_close(node.new_variance, variance.numpy())
