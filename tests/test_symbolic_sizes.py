"""Programs that are exported before their sizes are known: a symbolic batch, and a symbolic space where that can be."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, IMAGE, inputs_of
from jax import export

import fcnn
from fcnn import ops

#: cases whose parameters, or whose windows, belong to one size of the space
OF_ONE_SIZE = {
    "locally connected": "these parameters belong to one size of the space",
    "conv transpose to a size": "belongs to one size of the space",
    "pixel unshuffle": r"factor \(2, 1\) does not divide the space",
    **dict.fromkeys(("crop", "crop to a size"), "is not known to have the . samples that a crop needs"),
    **dict.fromkeys(
        ("resize", "resize by the nearest", "resize with aligned corners", "resize antialiased", "resize as jax does"),
        "the weights of a resizing are not known",
    ),
    "max unpool": "the indices of maxima need known ones",
    "serial": "these parameters belong to one size of the space",
    "lenet5": "these parameters belong to one size of the space",
    "scan": "where the windows of a Scan lie follows from its size",
    "scan by patches": "where the windows of a Scan lie follows from its size",
}
SPACIOUS = [name for name, case in CASES.items() if len(case.shape) > 1 and name not in OF_ONE_SIZE]
#: cases that between them take every way that a gradient can go; the others are slow
GRADIENTS = ("conv grouped", "max pool overlapping", "avg pool of sound", "repeat")


#: and what a forward pass can be made of
FORWARD = (
    *GRADIENTS,
    "serial",
    "conv circular",
    "conv reflect",
    "conv transpose",
    "residual projected",
    "instance norm",
    "scan",
)


def quickly(names, first):
    """The names, those that are not among the first as slow tests."""
    return [
        name if name in first else pytest.param(name, marks=(pytest.mark.slow, pytest.mark.exhaustive))
        for name in names
    ]


@cache
def made(name):
    case = CASES[name]
    return case.net, case.net.init(jax.random.key(0), *case.shapes), case.net.init_state(*case.shapes)


def trained(name):
    net, params, state = made(name)

    def loss(params, *xs):
        y, _ = net.apply_train(params, *xs, key=jax.random.key(1), state=state)
        return jnp.sum(jnp.sin(y))

    return jax.value_and_grad(loss), params


def used(name):
    net, params, state = made(name)
    return lambda *xs: net.apply(params, *xs, state=state)


def symbolic(case, *, space):
    """Inputs of a symbolic batch, and of a symbolic space if wanted."""
    scope, arguments = export.SymbolicScope(), []
    for shape in case.shapes:
        sizes = ["b", *("hwd" if space else map(str, shape))][: len(shape)]
        dims = export.symbolic_shape(", ".join([*sizes, str(shape[-1])]), scope=scope)
        arguments.append(jax.ShapeDtypeStruct(dims, jnp.float32))
    return arguments


def larger(case, by=3):
    return type(case)(case.net, (*(n + by for n in case.shape[:-1]), case.shape[-1]))


def both(exported, function, inputs):
    found, expected = (jax.tree.map(np.asarray, f(*inputs)) for f in (exported, function))
    # gradients that cancel, as of a bias before batch normalisation, are what rounding leaves of the others' size
    largest = max((np.abs(leaf).max() for leaf in jax.tree.leaves(expected) if leaf.size), default=0.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * (1 + largest)), found, expected)


@pytest.mark.parametrize("name", quickly(CASES, FORWARD))
def test_a_program_of_a_symbolic_batch_serves_every_batch(name):
    case = CASES[name]
    program = export.export(jax.jit(used(name)))(*symbolic(case, space=False))
    for batch in (1, 5):
        both(program.call, jax.jit(used(name)), inputs_of(case, batch))


@pytest.mark.parametrize("name", quickly(SPACIOUS, FORWARD))
def test_a_program_of_a_symbolic_space_serves_every_size(name):
    case = CASES[name]
    program = export.export(jax.jit(used(name)))(*symbolic(case, space=True))
    for shown in (case, larger(case)):
        both(program.call, jax.jit(used(name)), inputs_of(shown, 2))


@pytest.mark.parametrize("name", OF_ONE_SIZE)
def test_what_belongs_to_one_size_of_the_space_says_so(name):
    with pytest.raises(ValueError, match=OF_ONE_SIZE[name]):
        export.export(jax.jit(used(name)))(*symbolic(CASES[name], space=True))


@pytest.mark.parametrize("name", quickly(CASES, GRADIENTS))
def test_gradients_of_a_symbolic_batch_are_those_of_every_batch(name):
    case, (function, params) = CASES[name], trained(name)
    program = export.export(jax.jit(function))(params, *symbolic(case, space=False))
    both(program.call, jax.jit(function), (params, *inputs_of(case, 4)))


@pytest.mark.parametrize("name", quickly(SPACIOUS, GRADIENTS))
def test_gradients_of_a_symbolic_space_are_those_of_every_size(name):
    case, (function, params) = CASES[name], trained(name)
    if "dropout" in repr(case.net).lower():
        function = jax.value_and_grad(
            lambda params, x: jnp.sum(jnp.sin(case.net.apply(params, x, state=made(name)[2])))
        )
    program = export.export(jax.jit(function))(params, *symbolic(case, space=True))
    both(program.call, jax.jit(function), (params, *inputs_of(larger(case), 2)))


def test_an_exported_program_can_be_differentiated():
    net, params, _ = made("graph sharing")
    case = CASES["graph sharing"]
    program, (x,) = export.export(jax.jit(net.apply))(params, *symbolic(case, space=False)), inputs_of(case, 2)
    found = jax.jit(jax.grad(lambda params: jnp.sum(jnp.cos(program.call(params, x)))))(params)
    expected = jax.jit(jax.grad(lambda params: jnp.sum(jnp.cos(net.apply(params, x)))))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


@pytest.mark.parametrize("name", ["conv", "lenet5", "max pool", "scan"])
@pytest.mark.parametrize("space", [False, True])
def test_it_is_lowered_for_every_platform(name, space):
    if space and name in OF_ONE_SIZE:
        pytest.skip("of one size")
    arguments = symbolic(CASES[name], space=space)
    program = export.export(jax.jit(used(name)), platforms=("cpu", "cuda", "tpu"))(*arguments)
    assert program.platforms == ("cpu", "cuda", "tpu")
    both(program.call, jax.jit(used(name)), inputs_of(CASES[name], 2))


@pytest.mark.parametrize("algorithm", [None, "direct", "patches", "blocks", "winograd", "fourier"])
def test_every_algorithm_takes_a_symbolic_batch(algorithm):
    """Channels, features and a kernel for which Winograd, large transforms and blocks are chosen or can be."""
    (b,) = export.symbolic_shape("b")
    kernel = jax.random.normal(jax.random.key(0), (5, 5, 8, 8))

    def function(x):
        with ops.use_algorithm(algorithm):
            return jax.value_and_grad(lambda x: jnp.sum(jnp.sin(ops.conv(x, kernel, padding="SAME"))))(x)

    program = export.export(jax.jit(function))(jax.ShapeDtypeStruct((b, 12, 12, 8), jnp.float32))
    for batch in (1, 6):
        x = jax.random.normal(jax.random.key(1), (batch, 12, 12, 8))
        with ops.use_algorithm("direct"):
            expected = jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(ops.conv(x, kernel, padding="SAME")))))(x)
        for found, right in zip(program.call(x), expected, strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-3, atol=2e-3)


def test_per_example_gradients_take_a_symbolic_batch():
    net = fcnn.serial(fcnn.Conv(4, 3), jax.nn.relu, fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(2))
    params = net.init(jax.random.key(0), IMAGE)
    (b,) = export.symbolic_shape("b")
    function = jax.vmap(jax.grad(lambda params, x: jnp.sum(net.apply(params, x[None]))), (None, 0))
    program = export.export(jax.jit(function))(params, jax.ShapeDtypeStruct((b, *IMAGE), jnp.float32))
    both(program.call, jax.jit(function), (params, jax.random.normal(jax.random.key(1), (3, *IMAGE))))


def test_shapes_are_inferred_of_symbolic_sizes():
    h, w = export.symbolic_shape("h, w")
    net = fcnn.serial(fcnn.Conv(8, 3, stride=2, padding="SAME"), fcnn.MaxPool(2), fcnn.ConvTranspose(3, 2, stride=2))
    out = net.out_shape((4 * h, 4 * w, 1))
    assert out == (2 * h, 2 * w, 3)
