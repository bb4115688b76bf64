"""Networks drawn at random, each with a window, a scan stride and an image, that are scanned in both ways."""

import dataclasses
import random
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import fcnn
from fcnn import reference
from fcnn.analysis import bridge
from fcnn.scan import Scan, fields
from fcnn.scan import layer as scan_layer
from fcnn.tracing.record import record


class Drawn(NamedTuple):
    """A network for a window, and what it is scanned over."""

    net: fcnn.Layer
    window: tuple[int, ...]
    stride: tuple[int, ...]
    shape: tuple[int, ...]
    fragments: bool
    chunk: int | None


class Differences(NamedTuple):
    """The largest difference by layers and by patches, relative to the largest value, and what was compared."""

    forward: float
    gradient: float
    positions: int
    fragments: int


def first_two(x):
    """A function of a vector that looks at an axis by its place, not from the end."""
    return x[:, :2]


FUNCTIONS = (jax.nn.relu, jnp.tanh, jax.nn.softplus, jnp.sin)


def drawn(seed):
    """One network: depth, kernels, strides, pools, dilations, branches, rank and sizes all from the seed."""
    draw = random.Random(seed)
    rank = draw.choice((1, 1, 2, 2, 2, 3))
    window = tuple(draw.randint(1, {1: 24, 2: 13, 3: 7}[rank]) for _ in range(rank))
    channels, limit = draw.randint(1, 3), draw.randint(1, 7)
    shape, parts = (*window, channels), []
    for _ in range(50):
        try:
            part = draw.choice(_SPATIAL)(draw, shape)
            shape = fcnn.serial(part).out_shape(shape)
        except ValueError:  # does not fit
            continue
        parts.append(part)
        if len(parts) == limit:
            break
    within = random.Random(f"{seed}, a scan inside")  # its own numbers, so that all else is as without it
    if within.random() < 0.2:
        parts.append(_inside(within, shape))
    parts += _ending(draw)
    stride = tuple(draw.choice((1, 1, 2, 3, 4, 6)) for _ in range(rank))
    most = {1: 9, 2: 4, 3: 2}[rank]
    space = tuple(w + s * draw.randint(0, most) + draw.randint(0, s - 1) for w, s in zip(window, stride, strict=True))
    chunk = draw.choice((None, None, None, None, 1, 3, 5))
    return Drawn(fcnn.serial(*parts), window, stride, (*space, channels), draw.random() < 0.5, chunk)


def differences(one, seed):
    """Compute a drawn network by layers and by patches in float64, forward and backward."""
    by_layers = Scan(one.net, one.window, stride=one.stride, fragments=one.fragments)
    by_patches = Scan(one.net, one.window, stride=one.stride, method="patches", chunk=one.chunk)
    draw = np.random.default_rng(seed)
    declared = jax.eval_shape(lambda: (by_layers.init(jax.random.key(0), one.shape), by_layers.init_state(one.shape)))
    params = jax.tree.map(lambda leaf: draw.normal(0.1, 0.7, leaf.shape), declared[0])
    state = jax.tree.map(lambda leaf: draw.uniform(0.5, 1.5, leaf.shape), declared[1])
    x, weights = draw.normal(size=(2, *one.shape)), draw.normal(size=(2, *by_layers.out_shape(one.shape)))

    def both(scan, params, x):
        def weighed(params, x):
            y = scan.apply(params, x, state=state)
            return jnp.vdot(weights, y), y

        (_, y), gradients = jax.value_and_grad(weighed, (0, 1), has_aux=True)(params, x)
        return y, gradients

    answers = jax.jit(lambda p, x: (both(by_layers, p, x), both(by_patches, p, x)))(params, x)
    (y, gradients), (z, expected) = jax.tree.map(np.asarray, answers)
    return _compared(y, z, gradients, expected, by_layers, one)


def _compared(y, z, gradients, expected, scan, one):
    # a part whose gradient is rounding alone is measured by the largest gradient of all
    least = 1e-6 * max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True)
    gradient = max(_relative(a, b, least) for a, b in pairs)
    lattice = scan.rewritten(one.shape).layout.grid
    return Differences(_relative(y, z, 0.0), gradient, _product(lattice.positions), _product(lattice.fragments))


def differences_by_hand(one, seed, dtype=np.float64):
    """The same with both ways computed by the reference: layers and backpropagation by hand, in NumPy, no compiler.

    By layers, the network that the scan is rewritten to is run; what picks fragments and joins them is written by
    hand, too. Only the last laying out is the library's own code, on the numbers of the samples, which says for every
    value which sample it is. With ``np.longdouble``,
    where it has more digits, a difference that is rounding shrinks by as many.
    """
    scan = Scan(one.net, one.window, stride=one.stride)
    draw = np.random.default_rng(seed)
    declared = jax.eval_shape(lambda: (scan.init(jax.random.key(0), one.shape), scan.init_state(one.shape)))
    params = jax.tree.map(lambda leaf: draw.normal(0.1, 0.7, leaf.shape), declared[0])
    state = jax.tree.map(lambda leaf: draw.uniform(0.5, 1.5, leaf.shape), declared[1])
    x = draw.normal(size=(2, *one.shape))
    params, state, x = jax.tree.map(lambda a: np.asarray(a, dtype), (params, state, x))

    node, gradients = _node(scan, params, state, one.shape)
    z = node.forward(x)
    weights = draw.normal(size=z.shape).astype(dtype)
    by_patches = (*node.backward(weights), gradients)

    lattice, _ = scan.placed(one.shape)
    made = scan.rewritten(one.shape, fragments=one.fragments)
    node, gradients = _node(made.net, made.convert(params), state, (*lattice.extent, one.shape[-1]))
    first = _Moved(lambda a: fields.cropped(a, lattice.extent))
    last = _Moved(lambda a: scan_layer.finished(a, made))
    y = last.forward(node.forward(first.forward(x)))
    (slope,) = first.backward(*node.backward(*last.backward(weights)))
    gradients = jax.tree.map(lambda g, p: g.reshape(p.shape), gradients, params)
    return _compared(y, z, (slope, gradients), by_patches, scan, one)


def _node(net, params, state, shape):
    """A network by hand, for two examples, and where the gradients of its parameters go."""
    gradients, untouched = jax.tree.map(np.zeros_like, params), jax.tree.map(np.zeros_like, state)
    builder = bridge._Builder(False, bridge._Trees(None, params, gradients, state, untouched))
    return builder.network(record(net, (shape,), batch=2), ()), gradients


class _Moved(reference.Node):
    """A function that only picks values: which ones is seen by giving it their numbers."""

    def __init__(self, function):
        super().__init__()
        self._function = function

    def forward(self, x):
        with mock.patch.object(fields, "jnp", np):
            places = self._function(np.arange(x.size).reshape(x.shape))
        return self.keep(x.ravel()[places], places, x.shape)

    def backward(self, gradient):
        places, shape = self.recall(gradient)
        found = np.zeros(shape, gradient.dtype)
        np.add.at(found.reshape(-1), places, gradient)
        return (found,)


def _relative(a, b, least):
    scale = max(float(np.abs(b).max()), least)
    return float(np.abs(a - b).max()) / scale if scale else float(np.abs(a).max())


def _product(sizes):
    found = 1
    for size in sizes:
        found *= size
    return found


# Parts that keep a space.


def _sizes(draw, shape, most):
    return tuple(draw.randint(1, min(most, n)) for n in shape[:-1])


def _geometry(draw, shape):
    rank = len(shape) - 1
    dilation = tuple(draw.choice((1, 1, 1, 2)) for _ in range(rank))
    stride = tuple(draw.choice((1, 1, 1, 2, 3)) for _ in range(rank))
    return {"stride": stride, "dilation": dilation}


def _conv(draw, shape):
    groups = shape[-1] if draw.random() < 0.2 else 1
    features = groups * draw.randint(1, 2) if groups > 1 else draw.randint(1, 4)
    return fcnn.Conv(
        features, _sizes(draw, shape, 3), groups=groups, bias=draw.random() < 0.8, **_geometry(draw, shape)
    )


def _pool(draw, shape):
    kind = draw.choice((fcnn.MaxPool, fcnn.MaxPool, fcnn.AvgPool, fcnn.LpPool))
    stride = draw.choice((None, None, 1, 2, 3))
    dilation = draw.choice((1, 1, 1, 2))
    pool = kind(_sizes(draw, shape, 3), stride=stride, dilation=dilation)
    rounded_up = dataclasses.replace(pool, ceil_mode=True)
    same = draw.random() < 0.2 and pool.out_shape(shape) == rounded_up.out_shape(shape)  # no window hangs over the end
    return rounded_up if same else pool


def _adaptive(draw, shape):
    cells = tuple(draw.choice([m for m in range(1, n + 1) if n % m == 0]) for n in shape[:-1])
    return draw.choice((fcnn.AdaptiveMaxPool, fcnn.AdaptiveAvgPool))(cells)


def _by_position(draw, shape):
    kinds = [fcnn.BatchNorm(), fcnn.LocalResponseNorm(size=3), fcnn.Dropout(0.3), fcnn.Dense(draw.randint(1, 3))]
    kinds += [fcnn.LayerNorm()] if shape[-1] > 2 else []  # of two numbers it makes signs, all gradient is rounding
    kinds += [fcnn.Maxout(2)] if shape[-1] % 2 == 0 else []
    return draw.choice(kinds)


def _function(draw, shape):
    return draw.choice(FUNCTIONS)


def _branches(draw, shape):
    kernel, geometry = _sizes(draw, shape, 3), _geometry(draw, shape)
    arms = [fcnn.Conv(2, kernel, **geometry), fcnn.serial(fcnn.Conv(2, kernel, **geometry), jnp.tanh)]
    if draw.random() < 0.5:
        arms.append(fcnn.serial(fcnn.MaxPool(kernel, **geometry), fcnn.Conv(2, 1)))
    return fcnn.branches(*arms, join=draw.choice(("concat", "sum")))


def _residual(draw, shape):
    if draw.random() < 0.5:
        return fcnn.residual(fcnn.serial(fcnn.Conv(shape[-1], 1), jnp.tanh, fcnn.Dense(shape[-1])))
    kernel, geometry = _sizes(draw, shape, 3), _geometry(draw, shape)
    # the shortcut reaches as far by one larger step; where it does not lie on the same samples, it does not fit
    return fcnn.residual(fcnn.Conv(3, kernel, **geometry), fcnn.AvgPool(kernel, **geometry) if shape[-1] == 3 else None)


def _repeat(draw, shape):
    return fcnn.repeat(fcnn.residual(fcnn.serial(jnp.tanh, fcnn.Conv(shape[-1], 1))), 2)


def _inside(draw, shape):
    """A scan inside the scanned window; windows of one sample and steps that leave samples out among them."""
    window, parts = _sizes(draw, shape, 4), []
    stride, inner = tuple(draw.choice((1, 1, 2, 3)) for _ in window), (*window, shape[-1])
    for _ in range(draw.randint(0, 3)):
        try:
            part = draw.choice((_conv, _pool, _function, _by_position))(draw, inner)
            inner = fcnn.serial(part).out_shape(inner)
        except ValueError:  # does not fit
            continue
        parts.append(part)
    parts += [draw.choice((fcnn.GlobalMaxPool(), fcnn.Flatten())), fcnn.Dense(2)]
    return fcnn.Scan(fcnn.serial(*parts), window, stride=stride)


_SPATIAL = (
    _conv, _conv, _conv, _conv, _pool, _pool, _pool, _function, _function, _by_position, _branches, _residual, _repeat,
    _adaptive,
)  # fmt: skip


def _ending(draw):
    kind = draw.choice(("dense", "dense", "dense", "global", "bare", "flat"))
    if kind == "bare":
        return []
    if kind == "flat":
        return [fcnn.Flatten()]
    if kind == "global":
        return [draw.choice((fcnn.GlobalMaxPool(), fcnn.GlobalAvgPool())), fcnn.Dense(2)]
    parts = [fcnn.Flatten(), *([jnp.tanh] if draw.random() < 0.2 else []), fcnn.Dense(draw.randint(2, 4))]
    if draw.random() < 0.5:
        parts += [draw.choice(FUNCTIONS), fcnn.Dense(2)]
    if draw.random() < 0.3:
        parts += [draw.choice((jax.nn.softmax, first_two, fcnn.BatchNorm()))]
    return parts
