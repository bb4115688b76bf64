"""The NumPy reference against its definitions, central differences, PyTorch and the worked examples."""

import ast
import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnn import reference as ref

ROOT = Path(ref.__file__).parent
NO_TORCH = "PyTorch is not installed; pip install torch==2.13.0"


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def draw(*shape):
    """Numbers of a case, the same in every run."""
    return normal(math.prod(shape) + 7 * len(shape), *shape)


def ties(*shape):
    """Few different values, so that most windows hold their maximum several times."""
    return np.random.default_rng(5).integers(-1, 2, shape).astype(float)


# ---------------------------------------------------------------- what is compared, and with what


@dataclass(frozen=True)
class Case:
    """A node, its inputs, and the same in PyTorch: ``theirs(torch, params, *inputs)``."""

    name: str
    make: Callable[[], ref.Node]
    inputs: tuple[np.ndarray, ...]
    theirs: Callable[..., Any]
    smooth: bool = True  # central differences mean something at the inputs


def F(torch):
    return torch.nn.functional


def first(x):
    """Channels first, as PyTorch has them."""
    return x.movedim(-1, 1)


def last(y):
    return y.movedim(1, -1)


def padded(torch, x, pairs, mode="constant", value=0.0):
    """Pad the space of x (batch, channels, *space) by pairs (before, after)."""
    amounts = [amount for pair in reversed(pairs) for amount in pair]
    return F(torch).pad(x, amounts, mode, value) if mode == "constant" else F(torch).pad(x, amounts, mode)


def conv_case(name, x, kernel, pairs, mode="constant", bias=True, **options):
    """The pairs are written out by hand: that is what the name of the padding must come to."""
    weights = {"kernel": draw(*kernel)} | ({"bias": draw(kernel[-1])} if bias else {})
    plain = {key: value for key, value in options.items() if key != "padding"}

    def theirs(torch, p, x):
        conv = getattr(F(torch), f"conv{x.ndim - 2}d")
        weight = p["kernel"].movedim((-1, -2), (0, 1))
        return last(conv(padded(torch, first(x), pairs, mode), weight, p.get("bias"), **plain))

    return Case(f"conv {name}", lambda: ref.Conv(**weights, **options), (draw(*x),), theirs)


def transposed_case(name, x, kernel, groups=1, **options):
    weights = {"kernel": draw(*kernel), "bias": draw(kernel[-1])}

    def theirs(torch, p, x):
        split = p["kernel"].unflatten(-1, (groups, -1))  # (*kernel, channels // groups, groups, features // groups)
        weight = split.movedim((-2, -3, -1), (0, 1, 2)).flatten(0, 1)
        conv = getattr(F(torch), f"conv_transpose{x.ndim - 2}d")
        return last(conv(first(x), weight, p["bias"], groups=groups, **options))

    ours = options | ({"padding": [(p, p) for p in options["padding"]]} if "padding" in options else {})
    return Case(f"transposed {name}", lambda: ref.ConvTranspose(**weights, groups=groups, **ours), (draw(*x),), theirs)


def local_case(name, x, kernel, pairs, stride, dilation, groups, padding):
    rank = len(stride)
    weights = {"kernel": draw(*kernel), "bias": draw(*kernel[:rank], kernel[-1])}
    options = {"stride": stride, "dilation": dilation, "groups": groups, "padding": padding}

    def theirs(torch, p, x):
        seen = padded(torch, first(x), pairs)  # (batch, channels, *padded)
        for axis in range(rank):
            span = (kernel[rank + axis] - 1) * dilation[axis] + 1
            seen = seen.unfold(2 + axis, span, stride[axis])[..., :: dilation[axis]]
        out = "xyz"[:rank]
        parts = zip(seen.chunk(groups, 1), p["kernel"].chunk(groups, -1), strict=True)
        return torch.cat([torch.einsum(f"nc{out}...,{out}...cf->n{out}f", *part) for part in parts], -1) + p["bias"]

    return Case(f"local {name}", lambda: ref.LocallyConnected(**weights, **options), (draw(*x),), theirs)


def pool_case(name, kind, x, pairs=None, mode="constant", theirs=None, **options):
    """With pairs, PyTorch pads beforehand; without, its own arguments are those given."""
    node = {"max": ref.MaxPool, "avg": ref.AvgPool, "lp": ref.LpPool}[kind]
    smooth = not (x == x.round()).all()
    given = theirs or {key: value for key, value in options.items() if key != "padding" or pairs is None}

    def run(torch, p, x):
        x = first(x)
        if pairs:
            x = padded(torch, x, pairs, mode, -math.inf if kind == "max" else 0.0)
        if kind == "lp":
            x = x.abs()  # for odd powers; PyTorch takes the power of the number itself
        arguments = {"norm_type" if key == "power" else key: value for key, value in given.items()}
        window = arguments.pop("window")
        function = getattr(F(torch), f"{kind}_pool{x.ndim - 2}d")
        return last(function(x, kernel_size=window, **arguments))

    return Case(f"{kind} pool {name}", lambda: node(**options), (x,), run, smooth)


def cells_case(kind, x, out):
    node = {"max": ref.AdaptiveMaxPool, "avg": ref.AdaptiveAvgPool}[kind]
    smooth = not (x == x.round()).all()

    def theirs(torch, p, x):
        return last(getattr(F(torch), f"adaptive_{kind}_pool{x.ndim - 2}d")(first(x), out))

    return Case(f"adaptive {kind} pool {out} of {x.shape}", lambda: node(out), (x,), theirs, smooth)


def global_case(kind, x):
    node = {"max": ref.GlobalMaxPool, "avg": ref.GlobalAvgPool}[kind]
    smooth = not (x == x.round()).all()

    def theirs(torch, p, x):
        cell = getattr(F(torch), f"adaptive_{kind}_pool{x.ndim - 2}d")(first(x), 1)
        return cell.flatten(1)

    return Case(f"global {kind} pool of {x.shape}", node, (x,), theirs, smooth)


def gate(node, function, *inputs, name=""):
    """A gate and its function of torch and the inputs."""
    label = f"{type(node()).__name__} {name}".strip()
    return Case(label, node, inputs or (draw(3, 4),), lambda torch, p, *x: function(torch, *x))


def norm_case(node, function, x, name="", **options):
    weights = {"scale": draw(x.shape[-1]), "bias": draw(x.shape[-1])}
    label = f"{node.__name__} {name}".strip()
    return [
        Case(label, lambda: node(**weights, **options), (x,), function),
        Case(f"{label}, plain", lambda: node(**options), (x,), function),
    ]


def batch_norm(train):
    def theirs(torch, p, x):
        mean, variance = torch.tensor(draw(3), dtype=x.dtype), torch.tensor(draw(3) ** 2, dtype=x.dtype)
        return last(F(torch).batch_norm(first(x), mean, variance, p.get("scale"), p.get("bias"), train, 0.2, 1e-3))

    return theirs


def group_norm(torch, p, x):
    return last(F(torch).group_norm(first(x), 2, p.get("scale"), p.get("bias"), 1e-3))


def layer_norm(torch, p, x):
    return F(torch).layer_norm(x, x.shape[-1:], p.get("scale"), p.get("bias"), 1e-3)


def instance_norm(torch, p, x):
    return last(F(torch).instance_norm(first(x), weight=p.get("scale"), bias=p.get("bias"), eps=1e-3))


def response_norm(torch, p, x):  # PyTorch divides alpha by the size
    return last(F(torch).local_response_norm(first(x), 4, alpha=4 * 0.3, beta=0.6, k=1.5))


def dense(torch, x, p, prefix=""):
    return F(torch).linear(x, p[f"{prefix}kernel"].T, p.get(f"{prefix}bias"))


def one_by_one(seed, *kernel):
    return ref.Dense(kernel=normal(seed, *kernel), bias=normal(seed + 1, kernel[-1]))


MASK = (np.arange(12).reshape(3, 4) % 3 > 0).astype(float)
SETS = np.array([[0, -1, 2], [1, 0, -1], [-1, 1, 0], [2, 2, 1]])
STATISTICS = {"mean": draw(3), "variance": draw(3) ** 2, "momentum": 0.8, "epsilon": 1e-3}

CASES = [
    gate(ref.Add, lambda t, a, b, c: a + b + c, draw(3, 4), draw(4), draw(3, 1)),
    gate(ref.Multiply, lambda t, a, b: a * b, draw(3, 4), draw(4)),
    gate(ref.Multiply, lambda t, a, b: a * b, draw(2, 1, 3), draw(4, 1), name="stretched"),
    gate(ref.Max, lambda t, *x: t.stack(x).amax(0), draw(3, 4), normal(1, 3, 4), normal(2, 3, 4)),
    gate(ref.MatMul, lambda t, a, b: a @ b, draw(3, 4), draw(4, 2)),
    gate(ref.MatMul, lambda t, a, b: a @ b, draw(5, 3, 4), draw(4, 2), name="stacked"),
    gate(ref.Transpose, lambda t, x: x.T),
    gate(ref.Concatenate, lambda t, *x: t.cat(x, -1), draw(2, 3, 1), draw(2, 3, 4), draw(2, 3, 2)),
    gate(ref.Identity, lambda t, x: x * 1),
    gate(ref.Square, lambda t, x: x**2),
    gate(ref.Abs, lambda t, x: x.abs()),
    gate(ref.Exp, lambda t, x: x.exp()),
    gate(ref.Sigmoid, lambda t, x: t.sigmoid(x)),
    gate(ref.Tanh, lambda t, x: t.tanh(x)),
    gate(ref.ReLU, lambda t, x: t.relu(x)),
    gate(ref.LeakyReLU, lambda t, x: F(t).leaky_relu(x, 0.01)),
    gate(lambda: ref.LeakyReLU(0.3), lambda t, x: F(t).leaky_relu(x, 0.3), name="0.3"),
    gate(ref.ELU, lambda t, x: F(t).elu(x)),
    gate(lambda: ref.ELU(0.5), lambda t, x: F(t).elu(x, 0.5), name="0.5"),
    gate(ref.GELU, lambda t, x: F(t).gelu(x, approximate="tanh")),
    gate(lambda: ref.GELU(approximate=False), lambda t, x: F(t).gelu(x), name="exact"),
    gate(ref.SiLU, lambda t, x: F(t).silu(x)),
    gate(ref.Softplus, lambda t, x: F(t).softplus(x)),
    gate(ref.Softmax, lambda t, x: t.softmax(x, -1), draw(2, 3, 4)),
    gate(ref.LogSoftmax, lambda t, x: t.log_softmax(x, -1), draw(2, 3, 4)),
    gate(ref.Flatten, lambda t, x: x.flatten(1), draw(2, 3, 4, 2)),
    gate(lambda: ref.Dropout(MASK, 0.2), lambda t, x: x * t.tensor(MASK) / 0.8),
    gate(lambda: ref.Dropout(None, 0.2), lambda t, x: x * 1, name="in use"),
    gate(lambda: ref.Maxout(3), lambda t, x: x.unflatten(-1, (2, 3)).amax(-1), draw(2, 5, 6)),
    Case("Dense", lambda: one_by_one(3, 4, 2), (draw(3, 4),), lambda t, p, x: dense(t, x, p)),
    Case("Dense over space", lambda: one_by_one(3, 4, 2), (draw(2, 5, 3, 4),), lambda t, p, x: dense(t, x, p)),
    Case(
        "SharedLinear",
        lambda: ref.SharedLinear(values=draw(3), sets=SETS),
        (draw(2, 4),),
        lambda t, p, x: x @ (p["values"][t.tensor(SETS)] * t.tensor(SETS >= 0)),
    ),
    conv_case("1 stride", (2, 9, 4), (3, 4, 3), [(0, 0)], stride=2),
    conv_case("1 causal", (2, 9, 4), (3, 2, 6), [(4, 0)], padding="CAUSAL", dilation=2, groups=2),
    conv_case("1 same, one after", (2, 8, 2), (3, 2, 3), [(0, 1)], padding="SAME", stride=2, bias=False),
    conv_case("1 pair", (2, 5, 2), (3, 2, 3), [(2, 1)], padding=(2, 1)),
    conv_case("2 same", (2, 5, 6, 2), (3, 2, 2, 3), [(1, 1), (0, 1)], padding="SAME"),
    conv_case(
        "2 circular", (2, 5, 6, 2), (3, 3, 2, 3), [(1, 1), (1, 1)], "circular", padding="CIRCULAR", stride=(2, 1)
    ),
    conv_case("2 circular to the rim", (1, 3, 2, 1), (6, 4, 1, 2), [(2, 3), (1, 2)], "circular", padding="CIRCULAR"),
    conv_case("2 reflect", (2, 6, 3, 1), (5, 5, 1, 2), [(2, 2), (2, 2)], "reflect", padding="REFLECT"),
    conv_case("2 pairs", (2, 4, 5, 2), (2, 3, 2, 3), [(2, 0), (1, 3)], padding=((2, 0), (1, 3)), dilation=(1, 2)),
    conv_case("2 depthwise", (2, 4, 4, 3), (2, 2, 1, 6), [(1, 1), (1, 1)], padding=1, groups=3),
    conv_case("3", (2, 3, 4, 3, 2), (2, 2, 2, 1, 4), [(1, 1)] * 3, padding=1, stride=(1, 2, 1), groups=2),
    conv_case("3 reflect", (1, 3, 4, 2, 1), (3, 3, 2, 1, 2), [(1, 1), (1, 1), (0, 1)], "reflect", padding="REFLECT"),
    transposed_case("1", (2, 4, 3), (3, 3, 2), stride=2, padding=(1,), output_padding=1),
    transposed_case("2", (2, 3, 4, 4), (3, 2, 2, 6), groups=2, stride=(2, 1), dilation=(1, 2), padding=(1, 0)),
    transposed_case("3", (1, 2, 3, 2, 2), (2, 3, 2, 2, 2), stride=(1, 2, 3), output_padding=(0, 1, 2)),
    local_case("1", (2, 6, 4), (3, 2, 2, 6), [(1, 0)], (2,), (2,), 2, ((1, 0),)),
    local_case("2", (2, 4, 3, 2), (4, 2, 3, 2, 2, 3), [(1, 1), (0, 0)], (1, 1), (1, 1), 1, ((1, 1), (0, 0))),
    local_case("3", (1, 3, 3, 2, 1), (2, 2, 2, 2, 2, 1, 1, 2), [(0, 0)] * 3, (1,) * 3, (1,) * 3, 1, "VALID"),
    pool_case("2", "max", draw(2, 5, 6, 3), window=2),
    pool_case("1 ceil", "max", draw(2, 8, 3), window=3, stride=2, padding=1, ceil_mode=True),
    pool_case("1 ceil, one window that is too long", "max", draw(2, 2, 3), window=4, ceil_mode=True),
    pool_case("1 ceil, none past the data", "max", draw(2, 5, 3), window=2, stride=2, padding=1, ceil_mode=True),
    pool_case("2 ties", "max", ties(2, 7, 6, 3), window=3, stride=2, padding=1, ceil_mode=True),
    pool_case("2 dilated ties", "max", ties(2, 7, 6, 3), window=2, stride=1, dilation=2),
    pool_case("3 ties", "max", ties(1, 4, 5, 3, 2), window=(2, 3, 2), stride=(1, 2, 1)),
    pool_case(
        "2 same",
        "max",
        draw(2, 5, 4, 2),
        [(1, 1), (0, 1)],
        theirs={"window": 3, "stride": 2},
        window=3,
        stride=2,
        padding="SAME",
    ),
    pool_case("2", "avg", draw(2, 5, 6, 3), window=(2, 3)),
    pool_case(
        "2 ceil",
        "avg",
        draw(2, 6, 7, 2),
        theirs={"window": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
        window=3,
        stride=2,
        padding=1,
        ceil_mode=True,
    ),
    pool_case(
        "2 ceil, padding counted",
        "avg",
        draw(2, 6, 7, 2),
        theirs={"window": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": True},
        window=3,
        stride=2,
        padding=1,
        ceil_mode=True,
        count_padding=True,
    ),
    pool_case(
        "3 circular",
        "avg",
        draw(1, 3, 4, 3, 2),
        [(0, 1), (1, 1), (0, 1)],
        "circular",
        theirs={"window": (2, 3, 2), "stride": 1},
        window=(2, 3, 2),
        stride=1,
        padding="CIRCULAR",
    ),
    pool_case("1", "lp", draw(2, 7, 3), window=2, power=3.0, stride=2),
    pool_case("2 norm", "lp", draw(2, 5, 5, 3), window=3, power=2.0, stride=2),
    pool_case("2 sum", "lp", draw(2, 4, 4, 3), window=2, power=1.0, stride=1),
    cells_case("avg", draw(2, 5, 2), 2),
    cells_case("avg", draw(2, 5, 7, 2), (3, 4)),
    cells_case("avg", draw(1, 3, 4, 2, 2), (2, 3, 4)),
    cells_case("max", draw(2, 5, 7, 2), (3, 4)),
    cells_case("max", ties(2, 5, 7, 2), (2, 3)),
    cells_case("max", ties(1, 3, 4, 5, 2), 2),
    global_case("avg", draw(2, 4, 3, 2)),
    global_case("max", draw(2, 4, 3, 2)),
    global_case("max", ties(2, 3, 2, 3, 2)),
    *norm_case(ref.BatchNorm, batch_norm(True), draw(4, 2, 3), "in training", train=True, **STATISTICS),
    *norm_case(ref.BatchNorm, batch_norm(False), draw(4, 2, 2, 3), "in use", train=False, **STATISTICS),
    *norm_case(ref.GroupNorm, group_norm, draw(2, 3, 2, 6), groups=2, epsilon=1e-3),
    *norm_case(ref.LayerNorm, layer_norm, draw(2, 3, 5), epsilon=1e-3),
    *norm_case(ref.InstanceNorm, instance_norm, draw(2, 3, 2, 3), epsilon=1e-3),
    Case(
        "LocalResponseNorm",
        lambda: ref.LocalResponseNorm(size=4, alpha=0.3, beta=0.6, k=1.5),
        (draw(2, 3, 7),),
        response_norm,
    ),
    Case(
        "Chain",
        lambda: ref.Chain([one_by_one(3, 4, 5), ref.Tanh(), one_by_one(5, 5, 2)]),
        (draw(3, 4),),
        lambda t, p, x: dense(t, t.tanh(dense(t, x, p, "0.")), p, "2."),
    ),
    Case(
        "Residual",
        lambda: ref.Residual(ref.Chain([one_by_one(3, 4, 4), ref.Tanh()])),
        (draw(3, 4),),
        lambda t, p, x: t.tanh(dense(t, x, p, "body.0.")) + x,
    ),
    Case(
        "Residual with shortcut",
        lambda: ref.Residual(one_by_one(3, 4, 2), one_by_one(5, 4, 2)),
        (draw(3, 4),),
        lambda t, p, x: dense(t, x, p, "body.") + dense(t, x, p, "shortcut."),
    ),
    Case(
        "Branches",
        lambda: ref.Branches([one_by_one(3, 4, 2), ref.Square(), one_by_one(5, 4, 1)]),
        (draw(3, 4),),
        lambda t, p, x: t.cat([dense(t, x, p, "0."), x**2, dense(t, x, p, "2.")], -1),
    ),
    Case(
        "Branches summed",
        lambda: ref.Branches([one_by_one(3, 4, 4), ref.Square()], join="sum"),
        (draw(3, 4),),
        lambda t, p, x: dense(t, x, p, "0.") + x**2,
    ),
]
COMPOSED = (ref.Chain, ref.Residual, ref.Branches)


def over(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


every_case = over(CASES)


# ---------------------------------------------------------------- the comparisons, which can fail


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


# ---------------------------------------------------------------- convolution by its definition


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


# ---------------------------------------------------------------- losses, penalties, updates

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


# ---------------------------------------------------------------- networks, tapes, shared parameters


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


# ---------------------------------------------------------------- the worked examples


def test_example_1_convolution_by_hand():
    x, kernel, g = np.array([1.0, 2, 3]).reshape(1, 3, 1), np.array([0.3, 0.5]).reshape(2, 1, 1), np.array([-0.1, 0.2])
    node = ref.Conv(kernel=kernel, bias=np.zeros(1))
    by_hand = {"kernel": [0.3, 0.4], "bias": [0.1], "x": [-0.03, 0.01, 0.1], "y": [1.3, 2.1]}
    assert_close(node.forward(x).ravel(), by_hand["y"])
    assert_close(ref.conv_by_definition(x, kernel).ravel(), by_hand["y"])
    (dx,) = node.backward(g.reshape(1, 2, 1))
    assert_close(dx.ravel(), by_hand["x"])
    assert_close(node.gradients["kernel"].ravel(), by_hand["kernel"])
    assert_close(node.gradients["bias"], by_hand["bias"])
    for name, actual in zip(
        ("x", "kernel", "bias"), ref.conv_gradients_by_definition(x, kernel, g.reshape(1, 2, 1)), strict=True
    ):
        assert_close(actual.ravel(), by_hand[name])


def test_example_2_shared_unshared_dense():
    assert ref.count_weights(ref.scanning_sets((3, 3), 2)) == (4, 16, 36)
    assert ref.LocallyConnected(kernel=draw(2, 2, 2, 2, 1, 1)).params["kernel"].size == 16
    assert np.unique(ref.scanning_sets((3, 3), 2), return_counts=True)[1].tolist() == [20, 4, 4, 4, 4]  # 20 absent


def test_example_3_a_shared_parameter_gets_the_sum_over_its_edges():
    node = ref.SharedLinear(values=np.array([0.5]), sets=np.array([[0, 0], [-1, 0]]))
    node.forward(np.array([[1.0, 10.0]]))
    node.backward(np.array([[2.0, 3.0]]))
    assert node.gradients["values"].tolist() == [1 * 2 + 1 * 3 + 10 * 3]


def test_example_14_a_sigmoid_neuron_as_a_graph_of_gates():
    w0, x0, w1, x1, w2 = (np.array(v) for v in (2.0, -1.0, -3.0, -2.0, -3.0))
    first_product, second_product, total, squash = ref.Multiply(), ref.Multiply(), ref.Add(), ref.Sigmoid()
    y = squash.forward(total.forward(first_product.forward(w0, x0), second_product.forward(w1, x1), w2))
    (dz,) = squash.backward(np.array(1.0))
    d_first, d_second, dw2 = total.backward(dz)
    gradients = (*first_product.backward(d_first), *second_product.backward(d_second), dw2)
    assert round(float(y), 2) == 0.73
    assert [round(float(g), 1) for g in gradients] == [-0.2, 0.4, -0.4, -0.6, 0.2]
    tape = ref.Tape()
    values = [tape.value(v) for v in (w0, x0, w1, x1, w2)]
    out = ref.apply(ref.Sigmoid(), values[0] * values[1] + values[2] * values[3] + values[4])
    ref.backward(out, np.array(1.0))
    assert_close([float(v.gradient) for v in values], [float(g) for g in gradients])


@every_case
def test_example_15_a_gradient_has_the_shape_of_its_variable(case):
    node = case.make()
    _, _, gradients, of_params = run(node, *case.inputs)
    assert [g.shape for g in gradients] == [x.shape for x in case.inputs]
    assert {name: g.shape for name, g in of_params.items()} == {name: p.shape for name, p in node.params.items()}


def test_example_16_the_deltas_of_squared_error():
    first_layer, second_layer = ref.Dense(kernel=draw(3, 4)), ref.Dense(kernel=draw(4, 2))
    net, loss = ref.Chain([first_layer, ref.Tanh(), second_layer, ref.Sigmoid()]), ref.SquaredError()
    x, y = draw(1, 3), draw(1, 2)
    a = net.forward(x)
    loss.forward(a, y)
    net.backward(loss.backward() * a.size)  # the lecture's loss is the sum, not the mean
    hidden = np.tanh(x @ first_layer.params["kernel"])
    last_delta = 2 * (a - y) * a * (1 - a)
    delta = (1 - hidden**2) * (second_layer.params["kernel"] @ last_delta[0])
    assert_close(second_layer.gradients["kernel"], np.outer(hidden, last_delta))
    assert_close(first_layer.gradients["kernel"], np.outer(x, delta))


def test_example_17_softmax_and_the_gradient_of_its_cross_entropy():
    scores, loss = np.array([[2.0, 0.7, 0.2, -0.3, -0.6, -2.5]]), ref.SoftmaxCrossEntropy()
    node = ref.Softmax()
    p = node.forward(scores)
    assert np.abs(p - [0.616, 0.168, 0.102, 0.0615, 0.046, 0.007]).max() < 1e-3
    assert loss.forward(scores, np.array([1])) == pytest.approx(-math.log(p[0, 1]))
    assert_close(loss.backward(), p - [[0, 1, 0, 0, 0, 0]])
    (through_softmax,) = node.backward(np.array([[0, -1 / p[0, 1], 0, 0, 0, 0]]))  # of -ln p
    assert_close(through_softmax, loss.backward())


def test_example_18_kinks():
    node = ref.ReLU()
    node.forward(np.array([-1.0, 0.0, 1.0]))
    assert node.backward(np.ones(3))[0].tolist() == [0, 0, 1]
    pool = ref.MaxPool(3)
    pool.forward(np.array([1.0, 7.0, 7.0]).reshape(1, 3, 1))
    assert pool.backward(np.ones((1, 1, 1)))[0].ravel().tolist() == [0, 1, 0]


def test_example_19_weight_scaling_is_the_mean_over_all_masks():
    x, layer, keep = draw(1, 5), one_by_one(1, 5, 2), 0.7
    mean = np.zeros((1, 2))
    for bits in itertools.product((0.0, 1.0), repeat=5):
        chance = keep ** sum(bits) * (1 - keep) ** (5 - sum(bits))
        mean += chance * layer.forward(ref.Dropout(np.array(bits), 1 - keep).forward(x))
    assert_close(mean, layer.forward(x))  # kept activations are scaled by 1 / p in training
    plain = sum(
        keep ** sum(bits) * (1 - keep) ** (5 - sum(bits)) * layer.forward(x * np.array(bits))
        for bits in itertools.product((0.0, 1.0), repeat=5)
    )
    scaled = ref.Dense(kernel=layer.params["kernel"] * keep, bias=layer.params["bias"])
    assert_close(plain, scaled.forward(x))  # or the weights by p in use


def test_example_20_a_support_vector_machine_of_gates():
    x, w, b, label = draw(1, 4), normal(6, 4, 3), draw(3), 1
    tape = ref.Tape()
    weights, offset = tape.value(w), tape.value(b)
    scores = x @ weights + offset
    total = tape.value(np.zeros((1, 1)))
    pick = np.eye(3)
    for j in (0, 2):
        margin = scores @ (pick[:, [j]] - pick[:, [label]]) + 1.0
        total = total + ref.apply(ref.Max(), margin, tape.value(np.zeros((1, 1))))
    ref.backward(total, np.ones((1, 1)))
    layer, loss = ref.Dense(kernel=w, bias=b), ref.Hinge()
    value = loss.forward(layer.forward(x), np.array([label]))
    layer.backward(loss.backward())
    assert total.array.item() == pytest.approx(value, rel=1e-12)
    assert_close(weights.gradient, layer.gradients["kernel"])
    assert_close(offset.gradient, layer.gradients["bias"])
    kernel = layer.params["kernel"]
    checked = differences(lambda: loss.forward(layer.forward(x), np.array([label])), kernel)
    assert_close(weights.gradient, checked, "the subgradient", 1e-7)


# ---------------------------------------------------------------- bad input

EYE = np.eye(2)
BAD = {
    "integer parameters": (lambda: ref.Dense(kernel=np.eye(2, dtype=int)), TypeError, "floating-point"),
    "integer input": (lambda: ref.MaxPool(2).forward(np.ones((1, 4, 1), int)), TypeError, "floating-point"),
    "bias": (lambda: ref.Dense(kernel=EYE, bias=np.ones(3)), ValueError, "bias"),
    "channels": (lambda: ref.Dense(kernel=EYE).forward(np.ones((1, 3))), ValueError, "does not take"),
    "conv layout": (lambda: ref.Conv(kernel=np.ones((3, 1, 1))).forward(np.ones((3, 1))), ValueError, "batch"),
    "conv channels": (lambda: ref.Conv(kernel=np.ones((3, 2, 1))).forward(np.ones((1, 5, 1))), ValueError, "channels"),
    "conv groups": (
        lambda: ref.Conv(kernel=np.ones((3, 1, 3)), groups=2).forward(np.ones((1, 5, 2))),
        ValueError,
        "groups",
    ),
    "conv size": (lambda: ref.Conv(kernel=np.ones((3, 1, 1))).forward(np.ones((1, 2, 1))), ValueError, "fit"),
    "conv bias": (lambda: ref.Conv(kernel=np.ones((3, 1, 1)), bias=np.ones(2)), ValueError, "bias"),
    "definition size": (lambda: ref.conv_by_definition(np.ones((1, 2, 1)), np.ones((3, 1, 1))), ValueError, "fit"),
    "definition gradient": (
        lambda: ref.conv_gradients_by_definition(np.ones((1, 3, 1)), np.ones((2, 1, 1)), np.ones((1, 3, 1))),
        ValueError,
        "gradient has shape",
    ),
    "padding name": (
        lambda: ref.Conv(kernel=np.ones((3, 1, 1)), padding="FULL").forward(np.ones((1, 3, 1))),
        ValueError,
        "unknown",
    ),
    "padding pair": (lambda: ref.MaxPool(2, padding=(0, 1)).forward(np.ones((1, 3, 3, 1))), ValueError, "not clear"),
    "padding pairs": (lambda: ref.MaxPool(2, padding=((0, 1),)).forward(np.ones((1, 3, 3, 1))), ValueError, "each"),
    "negative padding": (lambda: ref.MaxPool(2, padding=-1).forward(np.ones((1, 3, 1))), ValueError, "at least 0"),
    "fraction": (lambda: ref.MaxPool(2, stride=1.5).forward(np.ones((1, 3, 1))), TypeError, "whole"),
    "mirror": (
        lambda: ref.Conv(kernel=np.ones((5, 1, 1)), padding="REFLECT").forward(np.ones((1, 2, 1))),
        ValueError,
        "copy",
    ),
    "no transpose": (
        lambda: ref.ConvTranspose(kernel=np.ones((3, 1, 1)), padding="CIRCULAR").forward(np.ones((1, 3, 1))),
        ValueError,
        "transposed",
    ),
    "all cropped": (
        lambda: ref.ConvTranspose(kernel=np.ones((1, 1, 1)), padding=2).forward(np.ones((1, 3, 1))),
        ValueError,
        "crops all",
    ),
    "local kernel": (
        lambda: ref.LocallyConnected(kernel=np.ones((3, 2, 1, 1))).forward(np.ones((1, 3, 1))),
        ValueError,
        "asks for",
    ),
    "local bias": (
        lambda: ref.LocallyConnected(kernel=np.ones((2, 2, 1, 1)), bias=np.ones(1)).forward(np.ones((1, 3, 1))),
        ValueError,
        "bias",
    ),
    "nothing but padding": (lambda: ref.AvgPool(1, padding=1).forward(np.ones((1, 3, 1))), ValueError, "nothing but"),
    "no space": (lambda: ref.MaxPool(2).forward(np.ones((1, 3))), ValueError, "space"),
    "no space for cells": (lambda: ref.AdaptiveAvgPool(2).forward(np.ones((1, 3))), ValueError, "space"),
    "no whole space": (lambda: ref.GlobalMaxPool().forward(np.ones((1, 3))), ValueError, "space"),
    "power": (lambda: ref.LpPool(2, power=0.5), ValueError, "power"),
    "pieces": (lambda: ref.Maxout(2).forward(np.ones((1, 3))), ValueError, "divide"),
    "no pieces": (lambda: ref.Maxout(0), ValueError, "pieces"),
    "rate": (lambda: ref.Dropout(np.ones(2), 1.0), ValueError, "rate"),
    "mask values": (lambda: ref.Dropout(np.array([0.5]), 0.5), ValueError, "zeros and ones"),
    "mask shape": (lambda: ref.Dropout(np.ones((2, 3)), 0.5).forward(np.ones((1, 3))), ValueError, "mask"),
    "flat": (lambda: ref.Flatten().forward(np.ones(3)), ValueError, "batch"),
    "scale": (lambda: ref.LayerNorm(scale=np.ones(2)).forward(np.ones((1, 3))), ValueError, "scale"),
    "epsilon": (lambda: ref.LayerNorm(epsilon=-1.0), ValueError, "epsilon"),
    "single": (lambda: ref.BatchNorm(train=True).forward(np.ones((1, 3))), ValueError, "no variance"),
    "statistics": (lambda: ref.BatchNorm(mean=np.ones(2)).forward(np.ones((2, 3))), ValueError, "statistics"),
    "one sample": (lambda: ref.InstanceNorm().forward(np.ones((2, 1, 3))), ValueError, "no variance"),
    "norm groups": (lambda: ref.GroupNorm(2).forward(np.ones((2, 3))), ValueError, "divide"),
    "no groups": (lambda: ref.GroupNorm(0), ValueError, "groups"),
    "size": (lambda: ref.LocalResponseNorm(size=0), ValueError, "size"),
    "no input": (lambda: ref.Add().forward(), ValueError, "at least one"),
    "one to compare": (lambda: ref.Max().forward(np.ones(2)), ValueError, "two or more"),
    "no copies": (lambda: ref.Copy(0), ValueError, "at least 1"),
    "no matrix": (lambda: ref.MatMul().forward(np.ones(2), EYE), ValueError, "matrices"),
    "labels": (lambda: ref.Hinge().forward(EYE, np.array([0.0, 1.0])), TypeError, "integer"),
    "label range": (lambda: ref.SoftmaxCrossEntropy().forward(EYE, np.array([0, 2])), ValueError, "classes"),
    "label shape": (lambda: ref.SoftmaxCrossEntropy().forward(EYE, np.array([0])), ValueError, "shape"),
    "targets": (lambda: ref.SquaredError().forward(EYE, np.ones(2)), ValueError, "shape"),
    "loss backward": (lambda: ref.SquaredError().backward(), ValueError, "forward"),
    "update names": (lambda: ref.SGD(0.1).step({"a": EYE}, {"b": EYE}), ValueError, "gradients of"),
    "update shapes": (lambda: ref.Adam(0.1).step({"a": EYE}, {"a": np.ones(2)}), ValueError, "shape"),
    "other names": (lambda: ref.Dense(kernel=EYE).replace({"bias": EYE}), ValueError, "parameters"),
    "other shapes": (lambda: ref.Dense(kernel=EYE).replace({"kernel": np.ones(2)}), ValueError, "shape"),
    "no node": (lambda: ref.Chain([np.tanh]), TypeError, "not a node"),
    "shortcut": (lambda: ref.Residual(ref.Dense(kernel=np.ones((2, 1)))).forward(EYE), ValueError, "added"),
    "join": (lambda: ref.Branches([ref.Square()], join="max"), ValueError, "join"),
    "sum": (
        lambda: ref.Branches([ref.Square(), ref.Dense(kernel=np.ones((2, 1)))], join="sum").forward(EYE),
        ValueError,
        "agree",
    ),
    "no value": (lambda: ref.apply(ref.Square(), EYE), TypeError, "values on a tape"),
    "two tapes": (lambda: ref.Tape().value(EYE) + ref.Tape().value(EYE), ValueError, "same tape"),
    "tape gradient": (lambda: ref.backward(ref.Tape().value(EYE), 1.0), ValueError, "gradient has shape"),
    "sets": (lambda: ref.SharedLinear(np.ones(2), np.zeros((2, 2))), TypeError, "integers"),
    "set shapes": (lambda: ref.SharedLinear(EYE, np.zeros((2, 2), int)), ValueError, "n_sets"),
    "set labels": (lambda: ref.SharedLinear(np.ones(2), np.full((2, 2), 2)), ValueError, "values"),
    "set input": (
        lambda: ref.SharedLinear(np.ones(1), np.zeros((2, 2), int)).forward(np.ones((1, 3))),
        ValueError,
        "batch",
    ),
    "two weights on an edge": (lambda: ref.scanning_sets((2,), 4, padding="CIRCULAR"), ValueError, "two weights"),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_base_class_does_nothing():
    with pytest.raises(NotImplementedError):
        ref.Node().forward()
    with pytest.raises(NotImplementedError):
        ref.Node().backward()


# ---------------------------------------------------------------- the package itself


def strangers(source):
    """Imports that are neither NumPy, the standard library, nor the package's own files."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [] if node.level == 1 else ["." * node.level + (node.module or "")]
        else:
            continue
        found += [name for name in names if name.split(".")[0] not in {"numpy", *sys.stdlib_module_names}]
    return found


def test_strangers_are_recognised():
    source = "import jax.numpy as jnp\nfrom fcnn import ops\nfrom ..ops import conv\nfrom .. import geometry\n"
    assert strangers(source) == ["jax.numpy", "fcnn", "..ops", ".."]
    assert strangers("import numpy.typing\nfrom math import pi\nfrom .node import Node\nfrom . import gates") == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=lambda path: path.name)
def test_the_package_imports_numpy_and_itself_only(path):
    assert strangers(path.read_text()) == []


def test_the_package_runs_by_itself():
    """Loaded under another name, without fcnn and JAX, it still backpropagates."""
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("alone", {str(ROOT / "__init__.py")!r})
alone = sys.modules["alone"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(alone)
import numpy as np
node = alone.Conv(kernel=np.ones((2, 1, 1)))
node.forward(np.ones((1, 3, 1)))
print(node.backward(np.ones((1, 2, 1)))[0].ravel().tolist(), [m for m in ("fcnn", "jax", "torch") if m in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[1.0, 2.0, 1.0] []"


def code_lines(source):
    """Lines of code: docstrings, comments and empty lines do not count."""
    tree, prose = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            prose |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(source.splitlines(), start=1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and n not in prose for n, line in lines)


def test_the_stated_size_is_true():
    assert code_lines('"""Doc\n\nstring."""\n\n# comment\nx = 1\n\n\ndef f():\n    """Doc."""\n    return x\n') == 3
    stated = int(ref.__doc__.split("About ")[1].split(" lines")[0].replace(",", ""))
    size = sum(code_lines(path.read_text()) for path in ROOT.glob("*.py"))
    assert abs(size - stated) <= 0.05 * size, f"the package has {size} lines of code, its docstring says {stated}"
