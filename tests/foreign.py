"""What the tests of weights from other libraries on JAX have in common."""

import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def library(name, packages):
    """A library that need not be there, imported as it wishes: its warnings are not ours."""
    with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"):
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError:
            pytest.skip(f"{name} is the truth here: pip install {packages}", allow_module_level=True)


def values(shape, name, random):
    """Random numbers for one array; those of a variance are above 0."""
    if "var" in name:
        return random.uniform(0.5, 2, shape)
    return random.normal(1.0 if name in ("scale", "gamma") else 0.0, 0.3, shape)


def loss(y):
    """A number to which every output contributes another share."""
    return (y * jnp.cos(jnp.arange(y.size, dtype=y.dtype).reshape(y.shape))).sum()


def agree(net, params, state, x, y, gradient, slope):
    """Outputs, gradients and the slope along the input are those of the other library, to 1e-10."""

    def ours(params, x):
        y = net.apply(params, x, state=state)
        return loss(y), y

    (_, found), (mine, back) = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))(params, jnp.asarray(x))
    assert found.dtype == y.dtype == jnp.float64
    close(found, y, "output")
    close(back, slope, "slope")
    assert jax.tree.structure(mine) == jax.tree.structure(gradient)
    for path, leaf in jax.tree.leaves_with_path(mine):
        wanted = gradient
        for step in path:
            wanted = wanted[step.key]
        close(leaf, wanted, jax.tree_util.keystr(path))


def close(found, wanted, name):
    wanted = np.asarray(wanted)
    assert np.abs(wanted).max() > 0, name
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max(), err_msg=name)
