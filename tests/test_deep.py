"""Networks nested hundreds of levels deep work, or say what to do."""

import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn

X = np.ones((2, 3), "float32")


def nested(wrap, depth):
    net = fcnn.Dense(3)
    for _ in range(depth):
        net = wrap(net)
    return net


@pytest.mark.parametrize("wrap", [fcnn.residual, fcnn.serial, fcnn.branches], ids=lambda wrap: wrap.__name__)
def test_two_hundred_levels(wrap):
    net, again = nested(wrap, 200), nested(wrap, 200)
    assert net == again
    assert hash(net) == hash(again)
    assert net != nested(wrap, 199)
    params = net.init(jax.random.key(0), (3,))
    inner = params
    while "kernel" not in inner:
        (inner,) = inner.values()
    y = fcnn.Dense(3).apply(inner, X)
    if wrap is fcnn.residual:
        y = X * 200 + y
    np.testing.assert_allclose(net.apply(params, X), y, rtol=1e-4)
    np.testing.assert_allclose(jax.jit(lambda net: net.apply(params, X))(net), y, rtol=1e-4)
    gradient = jax.grad(lambda params: jnp.sum(net.apply(params, X)))(params)
    while "kernel" not in gradient:
        (gradient,) = gradient.values()
    np.testing.assert_allclose(gradient["bias"], [2, 2, 2])
    assert pickle.loads(pickle.dumps(net)) == net


@pytest.mark.parametrize(
    "wrap", [lambda q: fcnn.repeat(q, 1), fcnn.remat, lambda q: fcnn.residual(fcnn.serial(q)),
             lambda q: fcnn.graph(a=q)(lambda layer, x: layer.a(x))], ids=["repeat", "remat", "both", "graph"],
)  # fmt: skip
def test_deeper_than_python_goes(wrap):
    net = nested(wrap, 400)
    says = rf"nested too deeply for Python's limit of {sys.getrecursionlimit()} calls; .*repeat.*setrecursionlimit"
    with pytest.raises(RecursionError, match=says):
        net.apply(net.init(jax.random.key(0), (3,)), X)
