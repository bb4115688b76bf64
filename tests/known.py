"""What the tests of known results have in common."""

import math

import jax
import jax.numpy as jnp
import numpy as np

import fcnn

SOBEL_VERTICAL = np.array([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
SOBEL_HORIZONTAL = np.array([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
BLUR = np.full((3, 3), 1 / 9)


def close(actual, expected, tolerance=1e-12):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=tolerance, atol=tolerance)


def signal(values):
    """One example of one channel in one dimension."""
    return jnp.asarray(values, float).reshape(1, -1, 1)


def image(values):
    """One example of one channel in two dimensions."""
    values = np.asarray(values, float)
    return jnp.asarray(values).reshape(1, *values.shape, 1)


def plane(x):
    """The only channel of the only example."""
    assert x.shape[0] == x.shape[-1] == 1
    return np.asarray(x[0, ..., 0])


def filtered(pixels, kernel, padding="VALID"):
    """An image under one kernel, by fcnn."""
    kernel = jnp.asarray(np.asarray(kernel, float))
    net = fcnn.Conv(1, kernel.shape, padding=padding, bias=False)
    return plane(net.apply({"kernel": kernel[..., None, None]}, image(pixels)))


def declared(net, shape):
    """Shapes and dtypes of the parameters that ``init`` would make, without making them."""
    return jax.eval_shape(lambda key: net.init(key, shape), jax.random.key(0))


def drawn(net, *shape, scale=0.3):
    """Parameters from NumPy, biases too: where any values will do, no random numbers need to be compiled."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, scale, leaf.shape), leaf.dtype), declared(net, shape))


def normal(*shape, seed=1):
    """Normal numbers in the dtype that JAX computes in by default."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), float)


def parameter_count(net, shape):
    """Number of parameters, without making them."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(declared(net, shape)))


def sizes_after_each(layers, shape):
    """Output shape after the first layer, the first two, and so on."""
    return [fcnn.serial(*layers[:count]).out_shape(shape) for count in range(1, len(layers) + 1)]


def numerical_gradient(loss, params, step=1e-6):
    """Central differences, one parameter at a time."""
    leaves, tree = jax.tree.flatten(params)
    loss = jax.jit(loss)
    found = []
    for index, leaf in enumerate(leaves):
        slopes = np.zeros(leaf.shape)
        for entry in np.ndindex(leaf.shape):
            around = []
            for sign in (1, -1):
                moved = np.array(leaf)
                moved[entry] += sign * step
                around.append(float(loss(jax.tree.unflatten(tree, [*leaves[:index], moved, *leaves[index + 1 :]]))))
            slopes[entry] = (around[0] - around[1]) / (2 * step)
        found.append(slopes)
    return jax.tree.unflatten(tree, found)


def assert_same_gradients(actual, expected, tolerance=1e-7):
    jax.tree.map(lambda a, b: close(a, b, tolerance), actual, expected)
