"""Shares of positions and uses in the gradient of a shared kernel: against sums written out, and unshared kernels."""

import itertools
import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn.analysis import gradient_by_use
from fcnn.scan import Scan

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def weighted(outputs, y):
    """A loss whose gradient at the outputs is y, so that no other code makes the gradient that comes from above."""
    return (outputs * y).sum()


def squared(outputs, y):
    return jnp.square(outputs - y).sum()


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def made(net, *shapes, batch=2):
    """Params, inputs and targets, in float64."""
    params = net.init(jax.random.key(1), *shapes)
    inputs = tuple(jnp.asarray(drawn(batch, *shape, seed=i)) for i, shape in enumerate(shapes))
    y = jnp.asarray(drawn(*jax.eval_shape(net.apply, params, *inputs).shape, seed=9))
    return params, inputs if len(inputs) > 1 else inputs[0], y


def whole(net, params, x, y, path, loss=squared):
    """The gradient of the kernel by jax.grad."""
    inputs = x if isinstance(x, tuple) else (x,)
    found = jax.grad(lambda params: loss(net.apply(params, *inputs), y))(params)
    for step in path.split("/"):
        found = found[step]
    return found["kernel"]


def summed(shares, axes):
    return np.asarray(shares).sum(tuple(axes))


def test_worked_example_1_by_hand():
    params = {"kernel": jnp.array([0.3, 0.5]).reshape(2, 1, 1)}
    x, slope = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1), jnp.array([-0.1, 0.2]).reshape(1, 2, 1)
    net = fcnn.Conv(1, 2, bias=False)
    shares = gradient_by_use(net, params, x, slope, "conv", loss=weighted)
    np.testing.assert_allclose(shares[:, :, 0, 0], [[-0.1 * 1, -0.1 * 2], [0.2 * 2, 0.2 * 3]], rtol=1e-6)
    np.testing.assert_allclose(shares.sum(0).ravel(), [0.3, 0.4], rtol=1e-6)


# NumPy written out: a loop over positions, and over what each sees.

CONVS = {
    "sound": (fcnn.Conv(3, 3, stride=2, padding="CAUSAL"), (9, 2)),
    "images": (fcnn.Conv(4, (2, 3), stride=(2, 1), dilation=(1, 2)), (6, 7, 2)),
    "groups": (fcnn.Conv(6, 2, groups=2, padding=((1, 0), (0, 2))), (4, 5, 4)),
    "depthwise": (fcnn.Conv(6, 3, groups=3, padding="SAME", dilation=2), (6, 5, 3)),
    "same": (fcnn.Conv(2, 4, padding="SAME", stride=3, bias=False), (7, 8, 1)),
    "reflect": (fcnn.Conv(2, 3, padding="REFLECT"), (5, 4, 2)),
    "circular": (fcnn.Conv(2, 4, padding="CIRCULAR", stride=2), (6, 7, 2)),
    "volumes": (fcnn.Conv(2, 2, stride=(1, 2, 1), padding=1), (3, 4, 3, 2)),
    "volumes dilated": (fcnn.Conv(4, 2, dilation=(2, 1, 1), groups=2), (4, 3, 3, 2)),
}
BORDER = {"REFLECT": "reflect", "CIRCULAR": "wrap"}


def every(value, rank):
    return (value,) * rank if isinstance(value, int) else value


def written_out(layer, x, slope):
    rank, kernel_rank = x.ndim - 2, every(layer.kernel, x.ndim - 2)
    stride, dilation = every(layer.stride, rank), every(layer.dilation, rank)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel_rank, dilation, strict=True)]
    if layer.padding == "VALID":
        pads = [(0, 0)] * rank
    elif layer.padding == "CAUSAL":
        pads = [(span - 1, 0) for span in spans]
    elif isinstance(layer.padding, str):
        total = [max((-(-n // s) - 1) * s + p - n, 0) for n, s, p in zip(x.shape[1:-1], stride, spans, strict=True)]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = [(layer.padding,) * 2] * rank if isinstance(layer.padding, int) else layer.padding
    x = np.pad(x, ((0, 0), *pads, (0, 0)), mode=BORDER.get(layer.padding, "constant"))
    out, features, groups = slope.shape[1:-1], slope.shape[-1], layer.groups
    per_group = x.shape[-1] // groups
    found = np.zeros((*out, *kernel_rank, per_group, features))
    for p in itertools.product(*map(range, out)):
        for j in itertools.product(*map(range, kernel_rank)):
            at = tuple(i * s + k * d for i, s, k, d in zip(p, stride, j, dilation, strict=True))
            for o in range(features):
                group = o // (features // groups)
                for c in range(per_group):
                    seen = x[(slice(None), *at, group * per_group + c)]
                    found[(*p, *j, c, o)] = (seen * slope[(slice(None), *p, o)]).sum()
    return found


@pytest.mark.parametrize("name", CONVS)
def test_a_convolution_against_its_shares_written_out(name, x64):
    layer, shape = CONVS[name]
    params, x, y = made(layer, shape)
    shares = gradient_by_use(layer, params, x, y, "conv", loss=weighted)
    np.testing.assert_allclose(shares, written_out(layer, np.asarray(x), np.asarray(y)), **CLOSE)
    total = whole(fcnn.serial(layer), {"conv1": params}, x, y, "conv1", weighted)
    np.testing.assert_allclose(summed(shares, range(len(shape) - 1)), total, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVS)
def test_in_the_middle_of_a_network_the_shares_are_the_gradients_of_unshared_kernels(name, x64):
    layer, shape = CONVS[name]
    options = {n: getattr(layer, n) for n in ("stride", "padding", "dilation", "groups")}
    unshared = fcnn.LocallyConnected(layer.features, layer.kernel, bias=False, **options)
    rank = len(shape) - 1
    before, after = fcnn.Conv(shape[-1], 1, bias=False), (jnp.tanh, fcnn.Conv(3, 1), jnp.tanh)
    shared = fcnn.Conv(layer.features, layer.kernel, bias=False, **options)
    net, other = (
        fcnn.serial(before, jnp.tanh, shared, *after),
        fcnn.serial(before, jnp.tanh, here=unshared, rest=fcnn.serial(*after)),
    )
    params, x, y = made(net, shape)
    out = shared.out_shape(shape)[:-1]
    kernel = params["conv2"]["kernel"]
    others = {
        "conv1": params["conv1"],
        "here": {"kernel": jnp.broadcast_to(kernel, (*out, *kernel.shape))},
        "rest": {"conv1": params["conv3"]},
    }
    np.testing.assert_allclose(net.apply(params, x), other.apply(others, x), **CLOSE)
    shares = gradient_by_use(net, params, x, y, "conv2", loss=squared)
    np.testing.assert_allclose(shares, whole(other, others, x, y, "here"), **CLOSE)
    np.testing.assert_allclose(summed(shares, range(rank)), whole(net, params, x, y, "conv2"), **CLOSE)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (fcnn.ConvTranspose(3, 4, stride=2, padding=1), (3, 4, 2)),
        (fcnn.ConvTranspose(4, (3, 2), stride=(3, 1), dilation=(1, 2), groups=2), (3, 4, 2)),
        (fcnn.ConvTranspose(2, 2, stride=3, padding="SAME"), (4, 3)),
        (fcnn.ConvTranspose(2, 3, stride=2, padding=2, output_padding=1), (3, 3, 2, 1)),
        (fcnn.ConvTranspose(2, 3, stride=2, padding=("CIRCULAR", ((2, 1), (0, 1)))), (4, 3, 2)),
    ],
    ids=["padded", "dilated groups", "gaps", "volumes", "circular"],
)
def test_a_transposed_convolution_position_by_position(layer, shape, x64):
    params, x, y = made(layer, shape)
    shares = gradient_by_use(layer, params, x, y, "conv_transpose", loss=weighted)
    assert shares.shape == (*y.shape[1:-1], *params["kernel"].shape)
    for p in itertools.product(*map(range, y.shape[1:-1])):  # the gradient where the loss sees one position alone
        one = np.zeros(y.shape)
        one[(slice(None), *p)] = np.asarray(y)[(slice(None), *p)]
        alone = jax.grad(lambda params, one=one: weighted(layer.apply(params, x), one))(params)["kernel"]
        np.testing.assert_allclose(shares[p], alone, **CLOSE)


def test_dense_layers(x64):
    net = fcnn.serial(fcnn.Dense(3), jnp.tanh, fcnn.Flatten(), fcnn.Dense(4))
    params, x, y = made(net, (5, 2, 6))
    shares = gradient_by_use(net, params, x, y, "dense1", loss=squared)
    assert shares.shape == (5, 2, 6, 3)
    np.testing.assert_allclose(summed(shares, (0, 1)), whole(net, params, x, y, "dense1"), **CLOSE)
    same = fcnn.serial(fcnn.Conv(3, 1), jnp.tanh, fcnn.Flatten(), fcnn.Dense(4))
    other = {
        "conv1": {**params["dense1"], "kernel": params["dense1"]["kernel"][None, None]},
        "dense1": params["dense2"],
    }
    np.testing.assert_allclose(shares, gradient_by_use(same, other, x, y, "conv1", loss=squared)[:, :, 0, 0], **CLOSE)
    last = gradient_by_use(net, params, x, y, "dense2", loss=squared)
    np.testing.assert_allclose(last, whole(net, params, x, y, "dense2"), **CLOSE)


def test_a_locally_connected_layer_shares_nothing(x64):
    net = fcnn.serial(fcnn.LocallyConnected(2, 2, stride=2), jnp.tanh)
    params, x, y = made(net, (4, 5, 2))
    shares = gradient_by_use(net, params, x, y, "locally_connected1", loss=squared)
    assert shares.shape == params["locally_connected1"]["kernel"].shape
    np.testing.assert_allclose(shares, whole(net, params, x, y, "locally_connected1"), **CLOSE)


@fcnn.graph(conv=fcnn.Conv(2, 3, padding="SAME"), head=fcnn.Dense(2))
def twice(layer, x):
    return layer.head(layer.conv(jnp.tanh(layer.conv(x))))


@fcnn.graph(block=fcnn.serial(fcnn.Conv(2, 3, padding="SAME"), jnp.tanh), head=fcnn.Dense(2))
def nested(layer, x):
    return layer.head(layer.block(layer.block(x)))


@fcnn.graph(conv=fcnn.Conv(2, 2))
def shrinking(layer, x):
    return layer.conv(jnp.tanh(layer.conv(x)))


@fcnn.graph(encode=fcnn.Dense(3, bias=False))
def autoencoder(layer, x):
    return jnp.tanh(layer.encode(x)) @ layer.params["encode"]["kernel"].T


@fcnn.graph(conv=fcnn.Conv(2, 2), other=fcnn.Dense(2))
def read(layer, a, b):
    return layer.other(layer.conv(a)).sum((1, 2)) + b * jnp.square(layer.params["conv"]["kernel"]).sum()


BLOCK = fcnn.serial(fcnn.Conv(2, 3, padding="SAME"), jnp.tanh)
NETWORKS = {
    "residual": (fcnn.serial(fcnn.residual(BLOCK), fcnn.MaxPool(2)), (4, 6, 2), "residual1/body/conv1", 2),
    "branches": (fcnn.branches(a=fcnn.Conv(2, 3), b=fcnn.Conv(1, 3)), (6, 2), "b", 1),
    "run of neighbours": (fcnn.serial(fcnn.Conv(8, 3), jax.nn.relu, fcnn.MaxPool(2)), (9, 8, 1), "conv1", 2),
    "norms": (fcnn.serial(fcnn.LayerNorm(), fcnn.Conv(2, 3), fcnn.GroupNorm(2)), (6, 2), "conv1", 1),
    "remat": (fcnn.serial(fcnn.remat(fcnn.Conv(2, 3)), fcnn.remat(BLOCK)), (6, 2), "conv1", 1),
    "in remat": (fcnn.serial(fcnn.remat(BLOCK), jnp.tanh), (6, 2), "serial1/conv1", 1),
    "repeat": (fcnn.serial(fcnn.repeat(BLOCK, 3), jnp.tanh), (4, 2), "repeat1/conv1", 1),
    "repeat of remat": (fcnn.serial(fcnn.repeat(fcnn.remat(BLOCK), 3), jnp.tanh), (4, 2), "repeat1/conv1", 1),
    "repeat in repeat": (fcnn.repeat(fcnn.serial(fcnn.repeat(BLOCK, 2)), 3), (4, 2), "repeat1/conv1", 1),
    "repeat alone": (fcnn.repeat(BLOCK, 3), (4, 2), "conv1", 1),
    "bare repeat": (fcnn.serial(fcnn.repeat(fcnn.Conv(2, 3, padding="SAME"), 3), jnp.tanh), (4, 2), "repeat1", 1),
    "bare repeats": (
        fcnn.serial(fcnn.repeat(fcnn.repeat(fcnn.remat(fcnn.Dense(2)), 2), 3), jnp.tanh), (4, 2), "repeat1", 1,
    ),
    "repeat of a graph": (fcnn.repeat(twice, 3), (4, 2), "conv", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_shares_sum_to_the_gradient(name, x64):
    net, shape, path, rank = NETWORKS[name]
    params, x, y = made(net, shape)
    shares = gradient_by_use(net, params, x, y, path, loss=squared)
    total = whole(net, params, x, y, path)
    copies = {"repeat in repeat": 2, "bare repeats": 2}.get(name, int("repeat" in name))
    first = int("graph" in name)  # an axis of uses
    axes = [*range(first), *range(first + copies, first + copies + rank)]
    assert float(jnp.abs(total).max()) > 1e-3
    np.testing.assert_allclose(summed(shares, axes), total, **CLOSE)


@pytest.mark.parametrize(("inner", "path"), [(fcnn.Conv(2, 3, padding="SAME"), "repeat1"), (BLOCK, "repeat1/conv1")])
def test_copies_have_the_shares_of_the_same_layers_one_after_the_other(inner, path, x64):
    net = fcnn.serial(fcnn.repeat(inner, 2), jnp.tanh)
    params, x, y = made(net, (5, 2))
    shares = gradient_by_use(net, params, x, y, path, loss=squared)
    assert shares.shape == (2, 5, 3, 2, 2)
    chain = fcnn.serial(a=inner, b=inner, last=jnp.tanh)
    first, second = (jax.tree.map(lambda a, i=i: a[i], params["repeat1"]) for i in range(2))
    for i, name in enumerate(("a", "b")):
        place = path.replace("repeat1", name)
        own = gradient_by_use(chain, {"a": first, "b": second}, x, y, place, loss=squared)
        np.testing.assert_allclose(shares[i], own, **CLOSE)


@pytest.mark.parametrize(("net", "path"), [(twice, "conv"), (nested, "block/conv1")], ids=["twice", "nested"])
def test_each_use_has_the_gradient_of_a_layer_of_its_own(net, path, x64):
    params, x, y = made(net, (4, 5, 2))
    shares = gradient_by_use(net, params, x, y, path, loss=squared)
    assert shares.shape == (2, 4, 5, 3, 3, 2, 2)
    np.testing.assert_allclose(summed(shares, (0, 1, 2)), whole(net, params, x, y, path), **CLOSE)
    conv = fcnn.Conv(2, 3, padding="SAME")
    end = [jnp.tanh] if net is nested else []
    apart = fcnn.serial(conv, jnp.tanh, conv, *end, fcnn.Dense(2))
    kernel = params["conv"] if net is twice else params["block"]["conv1"]
    own = {"conv1": kernel, "conv2": kernel, "dense1": params["head"]}
    for use, name in enumerate(("conv1", "conv2")):
        np.testing.assert_allclose(summed(shares[use], (0, 1)), whole(apart, own, x, y, name), **CLOSE)
        np.testing.assert_array_equal(gradient_by_use(net, params, x, y, path, loss=squared, use=use), shares[use])


def test_in_a_scan_the_positions_are_those_of_the_scan(x64):
    inner = fcnn.serial(
        fcnn.Conv(2, 3), jnp.tanh, fcnn.AvgPool(2), fcnn.Flatten(), fcnn.Dense(3), jnp.tanh, fcnn.Dense(2)
    )
    net = fcnn.serial(Scan(inner, (8,), stride=3))
    params, x, y = made(net, (20, 1))
    assert y.shape == (2, 5, 2)
    for name, positions in (("conv1", 18), ("dense1", 5), ("dense2", 5)):
        shares = gradient_by_use(net, params, x, y, f"scan1/{name}", loss=weighted)
        assert shares.shape == (positions, *params["scan1"][name]["kernel"].shape)
        total = whole(net, params, x, y, f"scan1/{name}", weighted)
        np.testing.assert_allclose(shares.sum(0), total, **CLOSE)
        for i in range(5) if positions == 5 else ():  # the gradient of one window alone
            window = whole(inner, params["scan1"], x[:, 3 * i : 3 * i + 8], y[:, i], name, weighted)
            np.testing.assert_allclose(shares[i], window, **CLOSE)


def test_in_a_scan_of_branches_and_of_what_looks_at_single_windows(x64):
    """Layers that are cropped to the positions that count, and layers that have the positions as examples."""
    branches = fcnn.branches(fcnn.Conv(2, 3, stride=2), fcnn.Conv(2, 4, stride=2))
    single = fcnn.serial(fcnn.Conv(3, 4), jnp.tanh, fcnn.LocallyConnected(2, 1), fcnn.Flatten(), fcnn.Dense(2))
    cropped = fcnn.serial(branches, jnp.tanh, fcnn.Flatten(), fcnn.Dense(2))
    for inner, window, names in (
        (cropped, 8, ("branches1/conv1", "branches1/conv2", "dense1")),
        (single, 4, ("conv1", "locally_connected1", "dense1")),
    ):
        net = fcnn.serial(Scan(inner, window))
        params, x, y = made(net, (10, 11, 2))
        for name in names:
            shares = gradient_by_use(net, params, x, y, f"scan1/{name}", loss=weighted)
            total = whole(net, params, x, y, f"scan1/{name}", weighted)
            np.testing.assert_allclose(shares.sum((0, 1)), total, **CLOSE)
            for i, j in ((0, 0), (2, 5), (6, 7)) if inner is single else ():
                cut = x[:, i : i + window, j : j + window]
                alone = whole(inner, params["scan1"], cut, y[:, i, j], name, weighted)
                np.testing.assert_allclose(shares[i, j], alone, **CLOSE)


def test_tied_weights_by_hand(x64):
    params, x, y = made(autoencoder, (5,))
    kernel, x_, y_ = (np.asarray(a) for a in (params["encode"]["kernel"], x, y))
    shares = gradient_by_use(autoencoder, params, x, y, "encode", loss=squared)
    code = np.tanh(x_ @ kernel)
    slope = 2 * (code @ kernel.T - y_)
    encoding = x_.T @ (slope @ kernel * (1 - code**2))
    np.testing.assert_allclose(shares[0], encoding, **CLOSE)
    np.testing.assert_allclose(shares[1], slope.T @ code, **CLOSE)
    np.testing.assert_allclose(shares.sum(0), whole(autoencoder, params, x, y, "encode"), **CLOSE)


def test_reading_params_is_the_last_use_and_has_no_positions(x64):
    params, (a, b), y = made(read, (3, 4, 2), (2,))
    with pytest.raises(ValueError, match=re.escape("use=0 (conv, positions (2, 3)), use=1 (reading layer.params of c")):
        gradient_by_use(read, params, (a, b), y, "conv", loss=squared)
    call = gradient_by_use(read, params, (a, b), y, "conv", loss=squared, use=0)
    reading = gradient_by_use(read, params, (a, b), y, "conv", loss=squared, use=1)
    assert call.shape == (2, 3, 2, 2, 2, 2)
    total = whole(read, params, (a, b), y, "conv")
    np.testing.assert_allclose(summed(call, (0, 1)) + reading, total, **CLOSE)
    slope = 2 * (np.asarray(read.apply(params, a, b)) - np.asarray(y))
    np.testing.assert_allclose(
        reading, (slope * np.asarray(b)).sum() * 2 * np.asarray(params["conv"]["kernel"]), **CLOSE
    )


@fcnn.graph(conv=fcnn.Conv(2, 2))
def read_without_effect(layer, x):
    y = layer.conv(x) * layer.params["conv"]["bias"]
    return y + jax.lax.stop_gradient(layer.params["conv"]["kernel"]).sum()


def test_reading_something_else_is_no_use_of_the_kernel(x64):
    params, x, y = made(read_without_effect, (5, 2))
    params["conv"]["bias"] += 1
    shares = gradient_by_use(read_without_effect, params, x, y, "conv", loss=squared)
    assert shares.shape == (4, 2, 2, 2)
    np.testing.assert_allclose(shares.sum(0), whole(read_without_effect, params, x, y, "conv"), **CLOSE)


def test_uses_at_different_positions_are_asked_for_one_by_one(x64):
    params, x, y = made(shrinking, (5, 2))
    with pytest.raises(ValueError, match=re.escape("choose one of use=0 (conv, positions (4,)), use=1 (conv#2")):
        gradient_by_use(shrinking, params, x, y, "conv", loss=squared)
    first, second = (gradient_by_use(shrinking, params, x, y, "conv", loss=squared, use=use) for use in (0, 1))
    assert (first.shape, second.shape) == ((4, 2, 2, 2), (3, 2, 2, 2))
    np.testing.assert_allclose(first.sum(0) + second.sum(0), whole(shrinking, params, x, y, "conv"), **CLOSE)


def test_the_default_loss_is_that_of_check_gradients(x64):
    net = fcnn.serial(fcnn.Conv(3, 3), jax.nn.relu, fcnn.Flatten(), fcnn.Dense(4))
    params = net.init(jax.random.key(0), (5, 4, 1))
    x, labels = jnp.asarray(drawn(3, 5, 4, 1)), np.array([0, 3, 1])
    shares = gradient_by_use(net, params, x, labels, "conv1")

    def entropy(outputs, y):
        return -jax.nn.log_softmax(outputs)[np.arange(3), y].mean()

    np.testing.assert_allclose(summed(shares, (0, 1)), whole(net, params, x, labels, "conv1", entropy), **CLOSE)


def test_state_is_used():
    net = fcnn.serial(fcnn.Conv(2, 3), fcnn.BatchNorm(), fcnn.Flatten(), fcnn.Dense(3))
    params, state = net.init(jax.random.key(0), (5, 1)), net.init_state((5, 1))
    state = jax.tree.map(lambda a: a + 1, state)
    x, labels = jnp.asarray(drawn(3, 5, 1), "float32"), jnp.array([0, 2, 1])

    def loss(params):
        outputs = net.apply(params, x, state=state)
        return -jax.nn.log_softmax(outputs)[np.arange(3), labels].mean()

    shares = gradient_by_use(net, params, x, labels, "conv1", state=state)
    np.testing.assert_allclose(shares.sum(0), jax.grad(loss)(params)["conv1"]["kernel"], rtol=2e-5, atol=1e-6)
    with pytest.raises(ValueError, match="batch_norm1: needs its"):
        gradient_by_use(net, params, x, labels, "conv1")


@pytest.mark.parametrize("name", ["repeat", "in remat", "repeat of a graph"])
def test_compiled_equals_eager_and_it_can_be_mapped(name, x64):
    net, shape, path, _ = NETWORKS[name]
    params, x, y = made(net, shape)

    def shares(x, y):
        return gradient_by_use(net, params, x, y, path, loss=squared)

    eager = shares(x, y)
    np.testing.assert_allclose(jax.jit(shares)(x, y), eager, **CLOSE)
    each = jax.vmap(shares)(x[:, None], y[:, None])
    np.testing.assert_allclose(each.sum(0), eager, **CLOSE)


def test_half_precision_keeps_the_dtype_of_the_kernel():
    net = fcnn.serial(fcnn.Conv(2, 3), jnp.tanh)
    params = net.init(jax.random.key(0), (5, 1))
    x = jnp.ones((2, 5, 1), "bfloat16")
    y = jnp.zeros((2, 3, 2), "bfloat16")
    halves = jax.tree.map(lambda a: a.astype("bfloat16"), params)
    assert gradient_by_use(net, halves, x, y, "conv1", loss=squared).dtype == "bfloat16"
    mixed = gradient_by_use(net, params, x, y.astype("float32"), "conv1", loss=squared)
    assert mixed.dtype == "float32"
    np.testing.assert_allclose(mixed.sum(0), whole(net, params, x, y.astype("float32"), "conv1"), rtol=1e-5)


def test_applying_and_capturing_are_as_before():
    net = fcnn.serial(fcnn.Conv(4, 3), jax.nn.relu, fcnn.MaxPool(2), fcnn.repeat(fcnn.residual(BLOCK_4), 2))
    params = net.init(jax.random.key(0), (8, 8, 1))
    x = jnp.asarray(drawn(2, 8, 8, 1), "float32")
    before = net.apply(params, x)
    gradient_by_use(net, params, x, jnp.zeros(before.shape), "repeat1/body/conv1", loss=squared)
    np.testing.assert_array_equal(net.apply(params, x), before)
    np.testing.assert_allclose(fcnn.capture(net, params, x)["repeat1"], before, rtol=1e-5, atol=1e-6)


BLOCK_4 = fcnn.serial(fcnn.Conv(4, 3, padding="SAME"), jnp.tanh)


# Mistakes.

NET = fcnn.serial(fcnn.Conv(2, 3), jax.nn.relu, fcnn.residual(BLOCK), fcnn.Flatten(), fcnn.Dense(3))


@dataclass(frozen=True)
class Doubled(fcnn.Conv):
    """A convolution of a user's own, which uses its kernel otherwise."""

    def forward(self, params, *inputs):
        return super().forward({**params, "kernel": 2 * params["kernel"]}, *inputs)


MISTAKES = {
    "unknown path": (NET, {"layer": "conv9"}, ValueError, "the network has no layer 'conv9'; its layers with a kernel"),
    "the paths": (NET, {"layer": "body"}, ValueError, "are conv1, residual1/body/conv1, dense1"),
    "no kernel": (NET, {"layer": "relu1"}, ValueError, "gradient_by_use: relu1 (jax.nn.relu) has no kernel"),
    "a composition": (
        NET,
        {"layer": "residual1/body"},
        ValueError,
        "the layers that have one are conv1, residual1/body/conv1",
    ),
    "a use": (NET, {"layer": "conv1#2"}, ValueError, "write layer='conv1', and use=1 for the second use"),
    "no string": (NET, {"layer": 1}, TypeError, "layer is the path of a layer such as 'conv1', a string, not 1"),
    "use out of range": (NET, {"layer": "conv1", "use": 1}, ValueError, "there is no use=1 of conv1; there is use=0 ("),
    "negative use": (NET, {"layer": "conv1", "use": -1}, ValueError, "use is -1, it must be at least 0"),
    "use of another kind": (NET, {"layer": "conv1", "use": "a"}, TypeError, "use must be a whole number, not 'a'"),
    "own layer": (fcnn.serial(Doubled(2, 3), fcnn.Flatten()), {"layer": "doubled1"}, ValueError, "known to be applied"),
    "nothing": (fcnn.serial(fcnn.Flatten()), {"layer": "conv1"}, ValueError, "its layers with a kernel are none"),
    "one batch": (NET, {"layer": "conv1", "x": jnp.ones((5, 2))}, ValueError, "one example alone needs a batch axis"),
    "x a list": (NET, {"layer": "conv1", "x": [[1.0]]}, TypeError, "x must be an array (batch, *space, channels)"),
    "params": (NET, {"layer": "conv1", "params": None}, TypeError, "params must be a dict as net.init(key, shape)"),
    "other params": (NET, {"layer": "conv1", "params": {}}, ValueError, "conv1: params have no 'kernel'"),
    "no network": ("lenet", {"layer": "conv1"}, TypeError, "gradient_by_use: 'lenet' is neither a layer nor"),
    "a layer alone in a scan": (
        fcnn.serial(Scan(fcnn.Conv(2, 3), 3), fcnn.Flatten()),
        {"layer": "scan1"},
        ValueError,
        "scan1 scans a single layer, whose kernel has no path of its own; make it a part",
    ),
    "one label for two": (NET, {"layer": "conv1", "y": jnp.array([0])}, ValueError, "y has shape (1,), but outputs"),
    "labels that are no classes": (
        NET,
        {"layer": "conv1", "y": jnp.array([0, 9])},
        ValueError,
        "labels run from 0 to 9, but the network scores",
    ),
    "labels of floats": (
        NET,
        {"layer": "conv1", "y": jnp.zeros(2)},
        TypeError,
        "y has dtype float32, but the default",
    ),
    "no labels": (NET, {"layer": "conv1", "y": None}, TypeError, "y must be an array of targets, not None"),
    "a name for a loss": (NET, {"layer": "conv1", "loss": "mse"}, TypeError, "loss is 'mse', it must be a function"),
    "a loss of nothing": (NET, {"layer": "conv1", "loss": lambda *_: None}, ValueError, "loss returned a NoneType"),
    "several outputs": (
        fcnn.graph(conv1=fcnn.Conv(2, 3))(lambda layer, x: (layer.conv1(x), x)),
        {"layer": "conv1"},
        ValueError,
        "the network gives several outputs, ((2, 3, 2), (2, 5, 2)), and softmax cross-entropy takes one; give loss=",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained(name):
    net, given, kind, message = MISTAKES[name]
    arguments = {
        "params": {} if isinstance(net, str) else net.init(jax.random.key(0), (5, 2)),
        "x": jnp.ones((2, 5, 2)),
        "y": jnp.array([0, 1]),
        **given,
    }
    with pytest.raises(kind, match=re.escape(message)):
        gradient_by_use(net, **{**arguments, **given})


def test_several_outputs_with_a_loss(x64):
    net = fcnn.graph(conv=fcnn.Conv(2, 3))(lambda layer, x: (layer.conv(x), jnp.tanh(layer.conv(x))))
    params, x = net.init(jax.random.key(0), (5, 2)), jnp.asarray(drawn(2, 5, 2))
    y = (drawn(2, 3, 2), drawn(2, 3, 2, seed=1))

    def loss(outputs, y):
        return sum(jnp.square(a - b).sum() for a, b in zip(outputs, y, strict=True))

    shares = gradient_by_use(net, params, x, y, "conv", loss=loss)
    np.testing.assert_allclose(summed(shares, (0, 1)), whole(net, params, x, y, "conv", loss), **CLOSE)
