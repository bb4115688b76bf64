"""The reference's losses, penalties and updates against PyTorch, Optax and central differences."""

import jax
import numpy as np
import optax
import pytest
from reference_oracle import NO_TORCH, F, assert_close, differences, draw, normal

from fcnn import reference as ref

LABELS = np.array([2, 0, 3, 1, 1])
LOSSES = [
    (ref.SquaredError, draw(5, 4), lambda t, s, y: F(t).mse_loss(s, y)),
    (ref.SoftmaxCrossEntropy, LABELS, lambda t, s, y: F(t).cross_entropy(s, y)),
    (ref.Hinge, LABELS, lambda t, s, y: F(t).multi_margin_loss(s, y) * s.shape[-1]),  # PyTorch divides by classes
]


@pytest.mark.parametrize(("loss", "targets", "theirs"), LOSSES, ids=lambda v: getattr(v, "__name__", ""))
def test_losses(loss, targets, theirs):
    outputs, loss = 2 * normal(4, 5, 4), loss()
    value, gradient = loss.forward(outputs, targets), loss.backward()
    assert isinstance(value, float)
    assert_close(gradient, differences(lambda: loss.forward(outputs, targets), outputs), "the gradient", 1e-7)
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    tensor = torch.tensor(outputs, requires_grad=True)
    expected = theirs(torch, tensor, torch.tensor(targets))
    expected.backward()
    assert_close(value, expected.item(), "the loss", 1e-10)
    assert_close(gradient, tensor.grad.numpy(), "the gradient", 1e-10)


def test_losses_are_the_means_of_optax(x64):
    outputs, targets = 2 * normal(4, 5, 4), draw(5, 4)
    squared = optax.losses.squared_error(outputs, targets).mean()
    entropy = optax.losses.softmax_cross_entropy_with_integer_labels(outputs, LABELS).mean()
    assert_close(ref.SquaredError().forward(outputs, targets), squared)
    assert_close(ref.SoftmaxCrossEntropy().forward(outputs, LABELS), entropy)


def test_a_loss_over_positions_is_the_mean_over_all():
    scores, labels = draw(2, 3, 4), np.array([[0, 1, 2], [3, 0, 1]])
    for loss in (ref.SoftmaxCrossEntropy(), ref.Hinge()):
        value, gradient = loss.forward(scores, labels), loss.backward()
        assert_close(loss.forward(scores.reshape(6, 4), labels.ravel()), value)
        assert_close(loss.backward(), gradient.reshape(6, 4))


@pytest.mark.parametrize("penalty", [ref.L1(0.3), ref.L2(0.3)], ids=["L1", "L2"])
def test_penalties(penalty):
    w = draw(3, 4)
    assert_close(penalty.gradient(w), differences(lambda: penalty.value(w), w), "the gradient", 1e-7)
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    tensor = torch.tensor(w, requires_grad=True)
    expected = 0.3 * (tensor.abs() if isinstance(penalty, ref.L1) else tensor**2).sum()
    expected.backward()
    assert_close(penalty.value(w), expected.item(), "the penalty", 1e-10)
    assert_close(penalty.gradient(w), tensor.grad.numpy(), "the gradient", 1e-10)


UPDATES = [
    (lambda: ref.SGD(0.1), ("SGD", {"lr": 0.1}), lambda: optax.sgd(0.1)),
    (lambda: ref.Momentum(0.1, 0.8), ("SGD", {"lr": 0.1, "momentum": 0.8}), lambda: optax.sgd(0.1, 0.8)),
    (
        lambda: ref.Nesterov(0.1, 0.8),
        ("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True}),
        lambda: optax.sgd(0.1, 0.8, nesterov=True),
    ),
    (
        lambda: ref.Adam(0.1, b1=0.8, b2=0.95, epsilon=1e-4),
        ("Adam", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-4}),
        lambda: optax.adam(0.1, b1=0.8, b2=0.95, eps=1e-4),
    ),
    (lambda: ref.Adam(0.1), ("Adam", {"lr": 0.1}), lambda: optax.adam(0.1)),
]
update_names = ["SGD", "Momentum", "Nesterov", "Adam", "Adam by default"]
START = {"kernel": draw(3, 2), "bias": draw(2)}


def descent(rule, steps=6):
    """The parameters after a few steps on a loss whose gradient is w^3 + 1."""
    params = START
    for _ in range(steps):
        params = rule.step(params, {name: w**3 + 1 for name, w in params.items()})
    return params


@pytest.mark.parametrize(("make", "theirs", "_"), UPDATES, ids=update_names)
def test_updates_are_those_of_torch(make, theirs, _):
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    name, options = theirs
    tensors = {key: torch.tensor(w, requires_grad=True) for key, w in START.items()}
    rule = getattr(torch.optim, name)(tensors.values(), **options)
    for _step in range(6):
        for w in tensors.values():
            w.grad = w.detach() ** 3 + 1
        rule.step()
    for key, w in descent(make()).items():
        assert_close(w, tensors[key].detach().numpy(), key, 1e-10)


@pytest.mark.parametrize(("make", "_", "theirs"), UPDATES, ids=update_names)
def test_updates_are_those_of_optax(make, _, theirs, x64):
    params, rule = jax.tree.map(jax.numpy.asarray, START), theirs()
    with jax.numpy_dtype_promotion("standard"):  # optax multiplies its count with its rate
        state = rule.init(params)
        for _step in range(6):
            updates, state = rule.update(jax.tree.map(lambda w: w**3 + 1, params), state, params)
            params = optax.apply_updates(params, updates)
    for key, w in descent(make()).items():
        assert_close(w, params[key], key, 1e-10)
