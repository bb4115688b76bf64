"""Comparisons of the reference with what shares no code with it: central differences and PyTorch's autograd."""

import math

import numpy as np
import pytest

from fcnn import reference as ref

NO_TORCH = "PyTorch is not installed; pip install torch==2.13.0"


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def draw(*shape):
    """Numbers of a case, the same in every run."""
    return normal(math.prod(shape) + 7 * len(shape), *shape)


def F(torch):
    return torch.nn.functional


def first(x):
    """Channels first, as PyTorch has them."""
    return x.movedim(-1, 1)


def last(y):
    return y.movedim(1, -1)


def one_by_one(seed, *kernel):
    return ref.Dense(kernel=normal(seed, *kernel), bias=normal(seed + 1, kernel[-1]))


def assert_close(actual, expected, what="the value", tolerance=1e-12):
    """Assert equal shapes, and an error that is small beside the largest value of the truth."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what} has shape {actual.shape}, expected {expected.shape}"
    error = np.max(np.abs(actual - expected), initial=0)
    assert error <= tolerance * np.max(np.abs(expected), initial=1e-300), f"{what} is off by {error}"


def differences(function, array, step=1e-5):
    """Central differences of a function of nothing that reads the array."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = function()
        array[index] = kept - step
        gradient[index] = (above - function()) / (2 * step)
        array[index] = kept
    return gradient


def run(node, *inputs):
    """The value, a random cotangent, and the gradients of inputs and parameters."""
    value = node.forward(*inputs)
    cotangent = normal(99, *value.shape).astype(value.dtype)
    node.clear()
    return value, cotangent, node.backward(cotangent), node.gradients


def assert_backward_is_the_derivative(node, *inputs):
    inputs = tuple(x.copy() for x in inputs)
    _, cotangent, gradients, of_params = run(node, *inputs)

    def loss():
        return float((node.forward(*inputs) * cotangent).sum())

    for place, (x, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        assert_close(gradient, differences(loss, x), f"the gradient of input {place}", 1e-7)
    for name, value in node.params.items():
        assert_close(of_params[name], differences(loss, value), f"the gradient of {name}", 1e-7)


def assert_torch_agrees(node, theirs, *inputs):
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
    params = {name: torch.tensor(value, requires_grad=True) for name, value in node.params.items()}
    expected = theirs(torch, params, *tensors)
    value, cotangent, gradients, of_params = run(node, *inputs)
    assert_close(value, expected.detach().numpy(), "the value", 1e-10)
    truth = torch.autograd.grad(expected, [*tensors, *params.values()], torch.tensor(cotangent))
    names = [f"the gradient of input {i}" for i in range(len(inputs))] + [f"the gradient of {name}" for name in params]
    for name, actual, expected in zip(names, [*gradients, *of_params.values()], truth, strict=True):
        assert_close(actual, expected.numpy(), name, 1e-10)
